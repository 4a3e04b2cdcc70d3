"""Image classifiers: the built-in one, those of transformers, and those of torchvision."""
