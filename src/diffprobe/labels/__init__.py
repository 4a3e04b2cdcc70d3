"""Target maps of images (labelers) and classes of images (classifiers): from models, files, or the pocket world."""
