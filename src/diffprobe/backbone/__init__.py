"""The frozen diffusion model: loading it, its layers and their activations, its trajectories."""
