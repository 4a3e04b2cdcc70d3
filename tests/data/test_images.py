"""Image folders and lists, and files of every mode that cameras, scanners and the web leave."""

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from diffprobe.data.images import BadImage, ImageDataset, ImageFile, load_images, read_image, split_readable
from diffprobe.errors import UserError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, picture: Image.Image, **options) -> ImageFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return ImageFile(path.stem, path)


def plain(path: Path, colour=RED, size=(8, 8)) -> ImageFile:
    return save(path, Image.new("RGB", size, colour))


def halves(left=RED, right=BLUE, size=(8, 8)) -> Image.Image:
    picture = Image.new("RGB", size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def pixel(image: torch.Tensor, row: int, column: int) -> list[float]:
    return [round(float(value), 4) for value in image[:, row, column]]


# Lists


def test_a_folder_gives_its_images_by_name_and_leaves_other_files_alone(tmp_path):
    for name in ("b.png", "a/2.JPG", "a/1.webp"):
        plain(tmp_path / name) if name[-1] != "G" else plain(tmp_path / "a/2.jpg").path.rename(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    images = load_images(tmp_path)
    assert [image.name for image in images] == ["a/1", "a/2", "b"]
    assert [image.path for image in images] == [tmp_path / "a/1.webp", tmp_path / "a/2.JPG", tmp_path / "b.png"]
    assert [image.name for image in load_images(tmp_path, count=2)] == ["a/1", "a/2"]
    assert [image.name for image in load_images(tmp_path / "a", root=tmp_path)] == ["a/1", "a/2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,caption\nb.png,a red square\na/1.png,\n"),
        ("list.csv", "src,dataset\r\nb.png,pascal\r\na/1.png,coco\r\n"),
        ("list.txt", "b.png\n\n  a/1.png\n"),
        ("list", "./b.png\na/../a/1.png"),
    ],
)
def test_a_list_keeps_its_order_and_names_are_relative(tmp_path, name, text):
    plain(tmp_path / "b.png"), plain(tmp_path / "a/1.png")
    (tmp_path / name).write_text(text)
    images = load_images(tmp_path / name)
    assert [(image.name, image.path) for image in images] == [
        ("b", tmp_path / "b.png"),
        ("a/1", tmp_path / "a/1.png"),
    ]
    assert images[0].caption == ("a red square" if "caption" in text else "")


def test_a_list_may_lie_elsewhere_and_name_folders(tmp_path):
    plain(tmp_path / "davis/bear/00001.jpg"), plain(tmp_path / "davis/bear/00000.jpg"), plain(tmp_path / "davis/x.png")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/some.csv").write_text("src,dataset\nbear,davis\nx.png,davis\n")
    images = load_images(tmp_path / "lists/some.csv", root=tmp_path / "davis")
    assert [image.name for image in images] == ["bear/00000", "bear/00001", "x"]


def test_paths_can_be_given_one_by_one_and_names_do_not_depend_on_the_others(tmp_path, monkeypatch):
    plain(tmp_path / "here/a.png"), plain(tmp_path / "there/a.png")
    monkeypatch.chdir(tmp_path / "here")
    inside, outside = load_images(["a.png", tmp_path / "there/a.png"])
    assert inside.name == "a"
    assert outside.name == str(tmp_path / "there/a")[1:]
    assert load_images([tmp_path / "there/a.png"]) == [outside]
    assert [image.name for image in load_images("a.png")] == ["a"]


def test_two_images_of_one_name_are_an_error_that_names_both(tmp_path):
    plain(tmp_path / "a.png"), plain(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"2 images would be named 'a': .*a\.jpg, .*a\.png"):
        load_images(tmp_path)


def test_missing_images_are_counted_and_named(tmp_path):
    plain(tmp_path / "0.png")
    (tmp_path / "list.txt").write_text("".join(f"{number}.png\n" for number in range(9)))
    with pytest.raises(UserError, match=r"8 of the 9 images .*list\.txt are not there.*1\.png.*2\.png.*3\.png; rel"):
        load_images(tmp_path / "list.txt")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"1 of the 2 images .*link\.png"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1\n", "no column 'path'.*'file', 'label'"),
        ("path\n", "has no images"),
        ("path,caption\na.png,one,two\n", "line 2: .*one value for each column"),
        ("path,caption\n,one\n", "line 2: .*one value for each column"),
    ],
)
def test_a_bad_list_is_an_error_that_says_where(tmp_path, text, message):
    plain(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load_images(tmp_path / "list.csv")


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*gone"):
        load_images(tmp_path / "gone")
    with pytest.raises(UserError, match="has no images"):
        load_images(tmp_path)
    plain(tmp_path / "a.png")
    with pytest.raises(UserError, match="only 1 images"):
        load_images(tmp_path, count=2)
    with pytest.raises(UserError, match="at least 1"):
        load_images(tmp_path, count=0)


@pytest.mark.parametrize(
    "hidden", [".ipynb_checkpoints/a-checkpoint.jpg", "._a.jpg", "b/.thumbs/a.png", "__MACOSX/a.jpg", "@eaDir/a/S.jpg"]
)
def test_hidden_copies_of_a_folder_are_left_out_with_a_word(tmp_path, hidden):
    plain(tmp_path / "a.jpg"), plain(tmp_path / hidden)
    told: list[str] = []
    assert [image.name for image in load_images(tmp_path, log=told.append)] == ["a"]
    assert told == [f"left out 1 hidden image of {tmp_path}, such as {tmp_path / hidden}"]
    (tmp_path / "list.txt").write_text(f"a.jpg\n{hidden}\n")  # what is named is wanted
    assert len(load_images(tmp_path / "list.txt", log=told.append)) == 2
    assert len(told) == 1


def test_a_folder_below_a_hidden_one_is_not_hidden(tmp_path):
    plain(tmp_path / ".cache/photos/a.png")
    assert [image.name for image in load_images(tmp_path / ".cache/photos")] == ["a"]


# Modes


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".webp", ".ppm", ".tga"])
def test_colours_come_out_as_they_were_saved(tmp_path, ending):
    options = {"lossless": True} if ending == ".webp" else {}
    image = read_image(save(tmp_path / f"a{ending}", Image.new("RGB", (8, 8), (255, 51, 0)), **options), 4)
    assert image.dtype == torch.float32
    assert image.shape == (3, 4, 4)
    assert pixel(image, 1, 2) == [1.0, 0.2, 0.0]


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("1", 1, [1, 1, 1]),
        ("L", 51, [0.2, 0.2, 0.2]),
        ("LA", (0, 51), [0.8, 0.8, 0.8]),  # a fifth of black over white
        ("RGBA", (255, 0, 0, 51), [1, 0.8, 0.8]),
        ("RGBA", (255, 0, 0, 255), [1, 0, 0]),
        ("I;16", 13107, [0.2, 0.2, 0.2]),
        ("I", 13107, [0.2, 0.2, 0.2]),
        ("LAB", (128, 128, 128), [119 / 255] * 3),
    ],
)
def test_grey_transparent_and_other_modes_are_read(tmp_path, mode, colour, seen):
    file = save(tmp_path / ("a.tif" if mode in ("I", "LAB") else "a.png"), Image.new(mode, (8, 8), colour))
    assert pixel(read_image(file, 4), 0, 0) == pytest.approx(seen, abs=1e-4)


def test_palettes_are_looked_up_and_their_transparent_entry_shows_white(tmp_path):
    picture = halves().quantize(2)
    assert picture.mode == "P"
    opaque = read_image(save(tmp_path / "a.png", picture), 8)
    assert (pixel(opaque, 0, 0), pixel(opaque, 0, 7)) == ([1, 0, 0], [0, 0, 1])
    red = picture.getpixel((0, 0))
    for ending in ("png", "gif"):
        clear = read_image(save(tmp_path / f"b.{ending}", picture, transparency=red), 8)
        assert (pixel(clear, 0, 0), pixel(clear, 0, 7)) == ([1, 1, 1], [0, 0, 1])


def test_a_transparent_grey_value_shows_white_at_8_and_16_bit(tmp_path):
    for mode in ("L", "I;16"):
        file = save(tmp_path / f"{mode[0]}.png", Image.new(mode, (8, 8), 7), transparency=7)
        assert pixel(read_image(file, 4), 0, 0) == [1, 1, 1]


def test_sixteen_bits_of_grey_are_not_cut_to_eight(tmp_path):
    values = np.linspace(30000, 30100, 64).astype(np.uint16).reshape(8, 8)
    for ending in ("png", "tif"):
        image = read_image(save(tmp_path / f"a.{ending}", Image.fromarray(values)), 8)
        assert np.allclose(image[0].numpy() * 65535, values, atol=0.01)
        assert torch.equal(image[0], image[2])


def test_sixteen_bit_colour_is_read_at_eight(tmp_path):
    rows = b"".join(b"\0" + struct.pack(">3H", 0xFFFF, 0x33FF, 0) * 4 for _ in range(4))
    chunks = [(b"IHDR", struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert pixel(read_image(ImageFile("a", tmp_path / "a.png"), 4), 0, 0) == [1, 0.2, 0]


def test_cmyk_and_ycbcr_become_rgb(tmp_path):
    for ending, options in (("jpg", {"quality": 100}), ("tif", {})):
        cyan = save(tmp_path / f"cyan.{ending}", Image.new("CMYK", (16, 16), (255, 0, 0, 0)), **options)
        assert pixel(read_image(cyan, 4), 1, 1) == pytest.approx([0, 1, 1], abs=0.02)
    file = save(tmp_path / "a.tif", Image.new("RGB", (8, 8), RED).convert("YCbCr"))
    if int(PIL.__version__.partition(".")[0]) < 13:  # which cannot decode it
        with pytest.raises(UserError, match=r"a\.tif"):
            read_image(file, 4)
    else:
        assert pixel(read_image(file, 4), 1, 1) == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, None), (2, 0), (3, 3), (4, 1), (5, 5), (6, 2), (7, 6), (8, 4)],
)
def test_exif_rotation_is_applied(tmp_path, orientation, turn):
    colours = {(0, 0): RED, (16, 0): BLUE, (0, 8): WHITE, (16, 8): (0, 255, 0)}
    upright = Image.new("RGB", (32, 16))
    for corner, colour in colours.items():
        upright.paste(colour, (*corner, corner[0] + 16, corner[1] + 8))
    # What the camera stores is the upright picture turned the other way.
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / "a.png", stored, exif=exif)
    expected = read_image(save(tmp_path / "b.png", upright), 16)
    assert torch.equal(read_image(file, 16), expected)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    for ending, options in (("gif", {}), ("png", {}), ("webp", {"lossless": True}), ("tif", {})):
        file = save(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
        assert pixel(read_image(file, 4), 0, 0) == [1, 0, 0], ending


@pytest.mark.parametrize(
    ("mode", "value", "said"),
    [("F", 0.5, "floating-point"), ("I", 70000, "beyond 16 bits"), ("I", -1, "beyond 16 bits")],
)
def test_pixels_of_unknown_range_are_refused_by_name(tmp_path, mode, value, said):
    file = save(tmp_path / "odd.tif", Image.new(mode, (8, 8), value))
    with pytest.raises(UserError, match=rf"cannot read the image .*odd\.tif: .*{said}"):
        read_image(file, 4)


# Fit


def test_stretching_keeps_everything_and_cropping_the_middle(tmp_path):
    picture = Image.new("RGB", (24, 8), RED)
    picture.paste(BLUE, (8, 0, 16, 8))
    wide = save(tmp_path / "wide.png", picture)
    tall = save(tmp_path / "tall.png", picture.transpose(Image.Transpose.ROTATE_90))
    for file, where in ((wide, (4, 0)), (tall, (0, 4))):
        assert pixel(read_image(file, 8, "stretch"), *where)[0] > 0.9  # an end is red
        assert (read_image(file, 8, "crop")[0] == 0).all()  # the middle third is blue


def test_cropping_is_exact_where_nothing_is_resized(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8)
    image = read_image(save(tmp_path / "a.png", Image.fromarray(values)), 9, "crop")
    assert np.array_equal((image.permute(1, 2, 0) * 255).round().numpy(), values[:, 3:12])


def test_shrinking_is_antialiased_and_values_stay_in_range(tmp_path):
    board = (np.indices((256, 256)).sum(0) % 2).astype(np.uint16) * 65535
    for name, picture in (("grey", Image.fromarray(board)), ("colour", Image.fromarray(board > 0).convert("RGB"))):
        image = read_image(save(tmp_path / f"{name}.png", picture), 16)
        assert torch.allclose(image, torch.tensor(0.5), atol=0.01)
    edge = Image.fromarray(np.repeat([[0, 65535]], 4, 1).repeat(8, 0).astype(np.uint16))
    image = read_image(save(tmp_path / "edge.png", edge), 32)
    assert (float(image.min()), float(image.max())) == (0, 1)


def test_a_very_long_picture_is_cropped_without_first_growing(tmp_path):
    assert read_image(save(tmp_path / "a.png", Image.new("L", (30000, 2))), 64, "crop").shape == (3, 64, 64)


def test_an_unknown_fit_or_size_is_an_error(tmp_path):
    file = plain(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"data\.fit=pad: choose one of stretch, crop"):
        read_image(file, 8, "pad")
    with pytest.raises(UserError, match="0 pixels"):
        ImageDataset([file], 0)


# Bad files


@pytest.fixture
def mixed(tmp_path) -> list[ImageFile]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for ending in ("jpg", "png", "webp", "gif", "tif"):
        whole = save(tmp_path / f"cut_{ending}.{ending}", noise).path
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "nothing.pgm").write_bytes(b"P5 0 8 255\n")
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    plain(tmp_path / "good.png"), plain(tmp_path / "too.jpg")
    return load_images(tmp_path)


def test_broken_files_are_left_out_only_on_request_and_each_with_its_reason(mixed):
    good, bad = split_readable(mixed, "skip")
    assert [image.name for image in good] == ["good", "too"]
    assert [image.name for image in bad] == [
        *("cut_gif", "cut_jpg", "cut_png", "cut_tif", "cut_webp", "empty", "nothing", "text")
    ]
    assert all(image.name in image.reason for image in bad)
    assert isinstance(bad[0], BadImage)
    with pytest.raises(UserError, match=r"8 of 10 images cannot be read: .*cut_gif.*; .*cut_jpg.*on_error=skip"):
        split_readable(mixed)


def test_sorting_out_finds_nothing_wrong_with_good_images_and_everything_with_bad_ones(mixed):
    good = [image for image in mixed if image.name in ("good", "too")]
    assert split_readable(good) == (good, [])
    with pytest.raises(UserError, match=r"8 of 8 images cannot be read: [^;]*;[^;]*;[^;]*$"):
        split_readable([image for image in mixed if image not in good], "skip")
    with pytest.raises(UserError, match="on_error=ignore: choose one of error, skip"):
        split_readable(good, "ignore")


def test_a_file_that_goes_bad_later_is_named(mixed):
    file = next(image for image in mixed if image.name == "good")
    file.path.unlink()
    with pytest.raises(UserError, match=r"cannot read the image .*good\.png: No such file"):
        read_image(file, 8)


def test_an_image_that_shows_what_another_shows_is_left_out_only_on_request(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8))
    first = save(tmp_path / "a.png", noise)
    other = plain(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(first.path.read_bytes())
    (tmp_path / "d.png").symlink_to(first.path)
    save(tmp_path / "e.bmp", noise)  # other bytes, the same picture
    exif = Image.Exif()
    exif[0x0112] = 3
    save(tmp_path / "f.png", noise.rotate(180), exif=exif)
    images = load_images(tmp_path)
    good, bad = split_readable(images, "skip")
    assert good == [first, other]
    assert [image.name for image in bad] == ["c", "d", "e", "f"]
    assert all(str(first.path) in image.reason for image in bad)
    with pytest.raises(UserError, match=r"4 of 6 images .*twice: .*c\.png shows the same picture as .*a\.png.*skip"):
        split_readable(images)


def test_an_image_that_changes_after_it_was_sorted_out_is_an_error(tmp_path):
    (file,), _ = split_readable([plain(tmp_path / "a.png")])
    assert pixel(read_image(file, 4), 0, 0) == [1, 0, 0]
    plain(tmp_path / "a.png", BLUE)
    with pytest.raises(UserError, match=r"the image .*a\.png was changed while it was in use"):
        read_image(file, 4)
    assert pixel(read_image(ImageFile("a", tmp_path / "a.png"), 4), 0, 0) == [0, 0, 1]


def test_no_pipe_is_waited_for_and_no_postscript_is_run(tmp_path):
    plain(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    (tmp_path / "d.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n%%EOF\n")
    good, bad = split_readable(load_images(tmp_path), "skip")
    assert [image.name for image in good] == ["a"]
    assert [re.sub(".*: ", "", image.reason)[:16] for image in bad] == [
        "it is a pipe, no",
        "it is a device, ",
        "it is not a pict",
    ]
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"list of images .*list\.txt is no file"):
        load_images(tmp_path / "list.txt")


# Data set


@pytest.mark.slow
def test_workers_read_the_same_images_under_their_names(tmp_path):
    for number in range(5):
        plain(tmp_path / f"{number}.png", (number * 50, 0, 0))
    dataset = ImageDataset(load_images(tmp_path), 4, "crop")
    assert len(dataset) == 5
    batches = list(DataLoader(dataset, batch_size=3, num_workers=2))
    names = [name for batch, _ in batches for name in batch]
    images = torch.cat([batch for _, batch in batches])
    assert names == ["0", "1", "2", "3", "4"]
    for name, image in zip(names, images, strict=True):
        assert torch.equal(image, read_image(ImageFile(name, tmp_path / f"{name}.png"), 4))
        assert pixel(image, 0, 0)[0] == pytest.approx(int(name) * 50 / 255, abs=1e-4)


@pytest.mark.slow
def test_the_page_about_images_runs_as_written(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    plain(tmp_path / "photos/a.png", size=(90, 70))
    (tmp_path / "photos/broken.jpg").touch()
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block.replace("steps=10", "steps=3"), scope)
    said = capsys.readouterr().out
    assert "broken cannot read the image" in said
    assert "261.0 {'down_blocks.2.resnets.0': (1," in said
    assert "range(12, 15)" in said
    assert "(1, 3, 64, 64)" in said


def test_a_list_may_name_files_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("~/a.png\n")
    (found,) = load_images(tmp_path / "list.txt")
    assert found.path == tmp_path / "a.png"
