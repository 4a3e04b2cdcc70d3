"""What gives a generated image its target maps: an image model, or maps that somebody else made.

A labeler is a callable `(images, names, properties) -> {property: maps}` with images [images, 3, height, width] in
[0, 1], one name per image, and maps [images, height, width] float32: saliency 0 or 1, depth as relative inverse depth
(larger is nearer), shading as irradiance. The two here are `PocketLabeler` and `FilesLabeler`.
"""
