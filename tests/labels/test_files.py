"""Label maps from a folder are found by name, brought to size, and complained about before any work."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.errors import UserError
from diffprobe.labels.files import FilesLabeler

NAMES = ["prompt_1_seed_2", "prompt_3_seed_4"]
IMAGES = torch.zeros(2, 3, 8, 8)


@pytest.fixture
def maps(tmp_path):
    for name in ("saliency", "depth"):
        (tmp_path / name).mkdir()
    mask = np.zeros((16, 16), np.uint8)
    mask[:8] = 7  # any value above 0 is salient
    Image.fromarray(mask).save(tmp_path / "saliency" / f"{NAMES[0]}.png")
    np.save(tmp_path / "saliency" / f"{NAMES[1]}.npy", np.ones((4, 4), bool))
    np.save(tmp_path / "depth" / f"{NAMES[0]}.npy", np.linspace(0, 1, 64, dtype=np.float64).reshape(8, 8))
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "depth" / f"{NAMES[1]}.png")
    return tmp_path


def test_maps_come_by_name_at_the_size_of_the_images(maps):
    found = FilesLabeler(maps)(IMAGES, NAMES[::-1], ["saliency", "depth"])
    assert found["saliency"].shape == found["depth"].shape == (2, 8, 8)
    assert torch.equal(found["saliency"][1, :4], torch.ones(4, 8))
    assert torch.equal(found["saliency"][1, 4:], torch.zeros(4, 8))
    assert torch.equal(found["saliency"][0], torch.ones(8, 8))
    assert torch.allclose(found["depth"][1].flatten(), torch.linspace(0, 1, 64))


def test_sixteen_bit_pictures_keep_their_precision(maps):
    assert FilesLabeler(maps)(IMAGES, NAMES, ["depth"])["depth"][1].unique().tolist() == [40_000]


def test_missing_maps_are_named_before_work(maps):
    with pytest.raises(UserError, match=r"lacks the maps of 1 of 3 images, such as other"):
        FilesLabeler(maps).check([*NAMES, "other"], ["saliency"], 512)
    with pytest.raises(UserError, match="shading"):
        FilesLabeler(maps).check(NAMES, ["shading"], 512)
    with pytest.raises(UserError, match="no such folder"):
        FilesLabeler(maps / "nothere")


def test_maps_that_are_no_plane_of_numbers_are_refused(maps):
    np.save(maps / "depth" / f"{NAMES[0]}.npy", np.full((8, 8), np.nan))
    with pytest.raises(UserError, match=NAMES[0]):
        FilesLabeler(maps)(IMAGES, NAMES, ["depth"])
    np.save(maps / "depth" / f"{NAMES[0]}.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot read"):
        FilesLabeler(maps)(IMAGES, NAMES, ["depth"])


def test_the_exact_maps_of_rendered_scenes_are_read_as_they_were_written(tmp_path):
    from diffprobe.pocket.__main__ import write_scenes
    from diffprobe.pocket.render import render_indices

    write_scenes(tmp_path / "scenes", 3)
    scenes = render_indices(range(3), "test")
    names = [path.stem for path in sorted((tmp_path / "scenes" / "images").glob("*.png"))]
    properties = ["saliency", "depth", "shading"]
    labeler = FilesLabeler(tmp_path / "scenes" / "maps")
    labeler.check(names, properties, 64)
    found = labeler(scenes.images, names, properties)
    assert torch.equal(found["saliency"], scenes.salient.float())
    assert torch.equal(found["depth"], scenes.depth)
    assert torch.equal(found["shading"], scenes.shading)


def test_the_fingerprint_tells_the_contents_of_one_propertys_maps(maps):
    labeler = FilesLabeler(maps)
    before = {name: labeler.fingerprint(name) for name in ("saliency", "depth")}
    np.save(maps / "depth" / f"{NAMES[0]}.npy", np.ones((8, 8)))
    assert labeler.fingerprint("saliency") == before["saliency"]
    assert labeler.fingerprint("depth") != before["depth"]
    moved = maps.rename(maps.parent / "moved")
    assert FilesLabeler(moved).fingerprint("saliency") == before["saliency"]
