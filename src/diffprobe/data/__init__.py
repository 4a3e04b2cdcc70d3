"""What the network is shown: prompts with seeds, real images, and images with annotated objects."""
