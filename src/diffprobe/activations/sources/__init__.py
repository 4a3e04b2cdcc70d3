"""Where activations come from: images being generated, or real ones noised, inverted, or half denoised again."""
