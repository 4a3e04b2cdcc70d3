"""What gives an image its target maps: image models, maps that somebody else made, the exact maps of rendered scenes.

`labeler.Labeler` is the interface. `files` reads maps from a folder, `pocket` is the built-in network, `depth`,
`saliency` and `shading` run published image models, `per_property` puts them together, and `cache` keeps their maps.
"""
