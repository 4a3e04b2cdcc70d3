"""`python -m diffprobe.pocket` writes pictures, captions and maps that belong together."""

from __future__ import annotations

import numpy as np
from PIL import Image

from diffprobe.data.images import load_images
from diffprobe.labels.files import FilesLabeler
from diffprobe.pocket.__main__ import main
from diffprobe.pocket.render import render_indices


def test_pictures_captions_and_maps_are_the_rendered_scene(tmp_path, capsys):
    assert main([str(tmp_path / "scenes"), "--count", "2"]) == 0
    assert "2 scenes" in capsys.readouterr().out
    scenes = render_indices(range(2), "test")
    files = load_images(tmp_path / "scenes" / "images" / "captions.csv")
    assert [file.caption for file in files] == scenes.captions
    for row, file in enumerate(files):
        picture = np.asarray(Image.open(file.path)).transpose(2, 0, 1) / 255
        assert np.abs(picture - scenes.images[row].numpy()).max() <= 0.5 / 255 + 1e-6
    names = [file.name for file in files]
    maps = FilesLabeler(tmp_path / "scenes" / "maps")(scenes.images, names, ["saliency", "depth", "shading"])
    assert (maps["saliency"].bool() == scenes.salient).all()
    assert np.allclose(maps["depth"], scenes.depth, atol=1e-5)
    assert np.allclose(maps["shading"], scenes.shading, atol=1e-5)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert main([str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--count", "0"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
