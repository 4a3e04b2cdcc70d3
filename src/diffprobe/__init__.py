"""diffprobe: what a diffusion model knows, where in the network, and when in the denoising."""
