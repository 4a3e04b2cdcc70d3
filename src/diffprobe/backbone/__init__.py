"""The frozen diffusion model: loading it, naming its layers, taking their activations, running its trajectories."""
