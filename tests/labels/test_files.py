"""Label maps from a folder are found by name, brought to size, and complained about before any work."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.data.images import ImageFileCollection, load_images, read_image
from diffprobe.errors import UserError
from diffprobe.fitting import Geometry
from diffprobe.labels.files import FilesLabeler
from diffprobe.properties import as_properties
from diffprobe.properties.binary import dice
from diffprobe.properties.categorical import Categorical

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


def test_maps_that_lie_above_their_propertys_folder_are_pointed_at(maps):
    with pytest.raises(UserError, match=r"no folder .*saliency.saliency; move the 2 maps in .*saliency there"):
        FilesLabeler(maps / "saliency").check(NAMES, ["saliency"], 8)


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
    labeler = FilesLabeler(tmp_path / "scenes" / "maps")
    instance = Categorical("instance", classes=("ground and wall", "left", "second", "third"))
    properties = ["saliency", "depth", "shading", "instance"]
    labeler.set_properties({"instance": instance, **as_properties(properties[:-1])})
    labeler.check(names, properties, 64)
    found = labeler(scenes.images, names, properties)
    assert torch.equal(found["saliency"], scenes.salient.float())
    assert torch.equal(found["depth"], scenes.depth)
    assert torch.equal(found["shading"], scenes.shading)
    for number, mask in enumerate(scenes.instances.unbind(1), 1):
        assert torch.equal(found["instance"] == number, mask)
    assert found["instance"].amax() > 1  # some scene has several objects


def test_the_fingerprint_tells_the_contents_of_one_propertys_maps(maps):
    labeler = FilesLabeler(maps)
    before = {name: labeler.fingerprint(name) for name in ("saliency", "depth")}
    np.save(maps / "depth" / f"{NAMES[0]}.npy", np.ones((8, 8)))
    assert labeler.fingerprint("saliency") == before["saliency"]
    assert labeler.fingerprint("depth") != before["depth"]
    moved = maps.rename(maps.parent / "moved")
    assert FilesLabeler(moved).fingerprint("saliency") == before["saliency"]


# Maps of pictures that are no squares


def disc(rows: int, columns: int, row: int, column: int) -> np.ndarray:
    """[rows, columns] uint8, 255 in a disc."""
    y, x = np.mgrid[:rows, :columns]
    return (np.hypot(y - row, x - column) < 12).astype(np.uint8) * 255


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("zoom", [1, 3])
def test_the_mask_of_a_bright_object_lies_on_the_object_however_the_picture_is_fitted(tmp_path, fit, orientation, zoom):
    (tmp_path / "images").mkdir()
    (tmp_path / "saliency").mkdir()
    values = disc(64, 128, 22, 70)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "images/x.png", exif=exif)
    Image.fromarray(values.repeat(zoom, 0).repeat(zoom, 1)).save(tmp_path / "saliency/x.png")
    pictures = ImageFileCollection(load_images(tmp_path / "images"), fit)
    labeler = FilesLabeler(tmp_path)
    labeler.set_geometries({"x": pictures.geometry(0)})
    labeler.check(["x"], ["saliency"], 64)
    picture = read_image(pictures.files[0], 64, fit)
    mask = labeler(picture[None], ["x"], ["saliency"])["saliency"]
    assert float(dice((picture[:1] > 0.5).float(), mask)) > 0.95  # of a picture that is smoothed and a mask that is not


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_a_quantity_is_fitted_as_its_picture(tmp_path, fit):
    (tmp_path / "images").mkdir()
    (tmp_path / "depth").mkdir()
    values = np.linspace(0, 65535, 40 * 90).round().astype(np.uint16).reshape(40, 90)
    Image.fromarray(values).save(tmp_path / "images/x.png")
    np.save(tmp_path / "depth/x.npy", values / 65535)
    pictures = ImageFileCollection(load_images(tmp_path / "images"), fit)
    labeler = FilesLabeler(tmp_path)
    labeler.set_geometries({"x": pictures.geometry(0)})
    picture = pictures.picture(0, 32)
    found = labeler(picture[None], ["x"], ["depth"])["depth"][0]
    assert float((found - picture[0])[2:-2, 2:-2].abs().max()) < 2e-3  # bilinear and Lanczos agree on a slope


def test_a_map_of_other_proportions_is_refused_by_name(tmp_path):
    (tmp_path / "saliency").mkdir()
    for name in ("a", "b"):
        Image.fromarray(disc(64, 128, 22, 70)).save(tmp_path / f"saliency/{name}.png")
    labeler = FilesLabeler(tmp_path)
    with pytest.raises(UserError, match=r"2 of the 2 maps of saliency .*a\.png.* 128 x 64 .*its image is square"):
        labeler.check(["a", "b"], ["saliency"], 64)
    labeler.set_geometries({"a": Geometry(256, 128), "b": Geometry(128, 256)})
    with pytest.raises(UserError, match=r"1 of the 2 maps .*b\.png of saliency: it is 128 x 64 .*which is 128 x 256"):
        labeler.check(["a", "b"], ["saliency"], 64)


# Maps that are none


DEEP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
MASK = np.kron(np.eye(2, dtype=np.uint8), np.full((4, 4), 255, np.uint8))
COLOURS = np.random.default_rng(0).integers(1, 256, (8, 8, 3), np.uint8)
GREY_PICTURES = {
    "equal channels": np.dstack([MASK] * 3),
    "equal and opaque": np.dstack([MASK] * 3 + [np.full_like(MASK, 255)]),
    "grey and opaque": np.dstack([MASK, np.full_like(MASK, 255)]),
}
OTHER_PICTURES = {
    "colour": (COLOURS, "in colour"),
    "cut-out": (np.dstack([COLOURS, MASK]), "transparent pixels"),
    "black and alpha": (np.dstack([np.zeros_like(COLOURS), MASK]), "transparent pixels"),
    "grey and alpha": (np.dstack([np.full_like(MASK, 255), MASK]), "transparent pixels"),
    "all foreground": (np.ones_like(MASK), "all foreground; a mask needs both"),
    "all background": (np.zeros_like(MASK), "all background; a mask needs both"),
}


@pytest.fixture
def one(tmp_path):
    (tmp_path / "saliency").mkdir()
    (tmp_path / "depth").mkdir()
    return tmp_path


@pytest.mark.parametrize("what", GREY_PICTURES)
def test_a_mask_may_be_stored_in_equal_channels(one, what):
    Image.fromarray(GREY_PICTURES[what]).save(one / "saliency/x.png")
    labeler = FilesLabeler(one)
    labeler.check(["x"], ["saliency"], 8)
    assert np.array_equal(labeler(IMAGES[:1], ["x"], ["saliency"])["saliency"][0].numpy(), MASK / 255)


@pytest.mark.parametrize("what", OTHER_PICTURES)
def test_a_mask_that_is_no_mask_is_refused_by_name(one, what):
    values, said = OTHER_PICTURES[what]
    Image.fromarray(values).save(one / "saliency/x.png")
    with pytest.raises(UserError, match=rf"saliency/x\.png.*{said}"):
        FilesLabeler(one).check(["x"], ["saliency"], 8)


def test_palettes_of_colours_and_transparent_greys_are_refused_and_grey_palettes_read(one):
    labeler = FilesLabeler(one)
    picture = Image.fromarray(MASK // 255).convert("P")
    picture.putpalette([0, 0, 0, 90, 90, 90])
    picture.save(one / "saliency/x.png")
    labeler.check(["x"], ["saliency"], 8)
    picture.putpalette([0, 0, 0, 128, 0, 0])
    picture.save(one / "saliency/x.png")
    with pytest.raises(UserError, match="in colour"):
        labeler.check(["x"], ["saliency"], 8)
    for mode in ("uint8", "uint16"):
        Image.fromarray(MASK.astype(mode)).save(one / "saliency/x.png", transparency=0)
        with pytest.raises(UserError, match="transparent pixels"):
            labeler.check(["x"], ["saliency"], 8)


def test_a_lossy_picture_is_no_mask_whatever_it_is_called(one):
    Image.fromarray(MASK).save(one / "saliency/x.png", "JPEG")
    with pytest.raises(UserError, match=r"x\.png: it is not a picture .*\(PNG, TIFF\)"):
        FilesLabeler(one).check(["x"], ["saliency"], 8)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.where(DEEP == 0, np.nan, DEEP), "1 of its 64 values are infinite or not numbers"),
        (np.where(DEEP > 250, np.inf, DEEP), "infinite or not numbers"),
        (np.full((8, 8), 0.5), "is 0.5 everywhere; a constant map"),
        (1 + 1e-12 * DEEP, "is 1 everywhere"),  # float32 cannot tell the values apart
        (DEEP * 1e300, r"beyond 3.4e38"),
        (DEEP[None, None].repeat(3, 1), r"one plane of numbers, and has shape"),
        (DEEP[0], "one plane"),
        (DEEP[:0], "one plane"),
        (DEEP[:, :6], "6 x 8 pixels, and its image is square"),
        (DEEP + 1j, "complex128, not real numbers"),
        (DEEP.astype(str), "not real numbers"),
    ],
)
def test_every_map_is_read_before_any_work(one, values, said):
    for name in "abcdefg":
        np.save(one / f"depth/{name}.npy", DEEP)
    np.save(one / "depth/h.npy", values)
    with pytest.raises(UserError, match=rf"1 of the 8 maps of depth cannot be used: .*h\.npy.*{said}"):
        FilesLabeler(one).check("abcdefgh", ["depth"], 8)


def test_maps_that_are_held_against_labels_may_be_constant_but_not_broken(one):
    labeler = FilesLabeler(one)
    np.save(one / "depth/x.npy", np.ones((8, 8)))
    Image.fromarray(np.zeros_like(MASK)).save(one / "saliency/x.png")
    labeler.check_reference_maps(["x"], ["depth", "saliency"], 8)
    np.save(one / "depth/x.npy", np.full((8, 8), np.nan))
    with pytest.raises(UserError, match="infinite or not numbers"):
        labeler.check_reference_maps(["x"], ["depth"], 8)


def test_pipes_damaged_files_and_two_maps_of_one_image_are_named(one):
    os.mkfifo(one / "depth/a.npy")
    (one / "depth/b.png").symlink_to("/dev/zero")
    (one / "depth/c.npy").write_bytes(b"\x93NUMPY\x01\x00")
    np.save(one / "depth/d.npy", DEEP)
    Image.fromarray(DEEP).save(one / "depth/d.png")
    labeler = FilesLabeler(one)
    for name, said in {"a": "it is a pipe", "b": "it is a device", "c": "cannot read the map", "d": "both"}.items():
        with pytest.raises(UserError, match=rf"depth/{name}\..*{said}|{said}.*depth/{name}"):
            labeler.check([name], ["depth"], 8)
    assert labeler.fingerprint("depth") == FilesLabeler(one).fingerprint("depth")  # without waiting
