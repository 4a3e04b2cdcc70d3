"""Files of COCO's kind as other programs write them: nothing of them is lost or mixed up without a word."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffprobe.data.coco import decode_segmentation
from diffprobe.data.coco_file import voc_class
from diffprobe.data.mask_folders import CLASSES
from diffprobe.data.objects import ObjectImages
from diffprobe.errors import UserError
from tests.data.layouts import load_objects

WIDTH, HEIGHT = 64, 48
SQUARE = [[5, 5, 50, 5, 50, 40, 5, 40]]  # columns 5 to 49, rows 5 to 39
CORNER = [[52, 1, 63, 1, 63, 47, 52, 47]]
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 25, "name": "giraffe"}]


def image(number: int | str | float = 1, file_name="1.jpg", **changes) -> dict:
    return {"id": number, "file_name": file_name, "height": HEIGHT, "width": WIDTH, **changes}


def annotation(number=7, **changes) -> dict:
    made = {"id": number, "image_id": 1, "category_id": 18, "iscrowd": 0, "segmentation": SQUARE, **changes}
    return {key: value for key, value in made.items() if value is not ...}


def write(root: Path, annotations, images=None, categories=None, split="val") -> Path:
    """A set of grey pictures, one for each image; each of another grey."""
    images = [image()] if images is None else images
    for grey, entry in enumerate(images):
        path = root / f"{split}2017" / str(entry.get("file_name", "1.jpg"))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (50 * grey,) * 3).save(path)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES if categories is None else categories,
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return root


def found(root: Path, **settings) -> tuple[ObjectImages, dict[str, str], list[str]]:
    """The images, the reasons of what is left out, and what was told."""
    told: list[str] = []
    images, problems = load_objects("coco", root=root, on_error="skip", log=told.append, **settings)
    return images, {problem.object or problem.image: problem.reason for problem in problems}, told


def shown(images: ObjectImages) -> dict[str, tuple[int, list[tuple[int, str, int]]]]:
    """Of each image its grey and (number, class, first column) of its objects: that they belong together."""
    said = {}
    for row, name in enumerate(images.names):
        columns = [int(np.flatnonzero(mask.any(0))[0]) for mask in images.masks(row).numpy()]
        grey = round(float(images.picture(row, 8).mean()) * 255 / 50)
        objects = [(item.instance, item.label, at) for item, at in zip(images.objects(row), columns, strict=True)]
        said[name] = (grey, objects)
    return said


# Ids


def test_annotations_of_one_id_are_not_mixed_up(tmp_path):
    """One mask cannot stand for two objects."""
    twice = [annotation(), annotation(category_id=1, segmentation=CORNER), annotation(8, segmentation=CORNER)]
    write(tmp_path, twice)
    with pytest.raises(UserError, match="1#7: 2 annotations of its image have this id; give each its own"):
        load_objects("coco", root=tmp_path)
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"1": (0, [(8, "dog", 52)])}
    assert list(left_out) == ["1#7"]


def test_an_id_may_come_again_in_another_image(tmp_path):
    write(
        tmp_path,
        [annotation(), annotation(image_id=2, category_id=1, segmentation=CORNER)],
        [image(), image(2, "2.jpg")],
    )
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"1": (0, [(7, "dog", 5)]), "2": (1, [(7, "person", 52)])}
    assert left_out == {}


@pytest.mark.parametrize("written", [str, float])
def test_ids_are_the_same_as_numbers_and_as_text(tmp_path, written):
    annotations = [
        annotation(written(9), image_id=written(1), category_id=18),
        annotation(10, image_id=1, category_id=written(1), segmentation=CORNER),
    ]
    write(tmp_path, annotations, [image(1), image(written(2), "2.jpg")])
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"1": (0, [(9, "dog", 5), (10, "person", 52)])}
    assert left_out == {}


def test_images_may_have_names_as_ids(tmp_path):
    write(tmp_path, [annotation(image_id="b")], [image("a"), image("b", "2.jpg")])
    assert shown(found(tmp_path)[0]) == {"2": (1, [(7, "dog", 5)])}


@pytest.mark.parametrize("number", [None, ..., True, 1.5, [], "seven"])
def test_an_annotation_without_a_number_is_named_by_its_place(tmp_path, number):
    write(tmp_path, [annotation(8, segmentation=CORNER), annotation(number)])
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"1": (0, [(8, "dog", 52)])}
    (name, reason), *others = left_out.items()
    assert name == "1#annotations[1]"
    assert "a whole number is wanted" in reason
    assert others == []


# Images


def test_images_of_one_name_in_two_folders_are_two_images(tmp_path):
    entries = [image(1, "x/0001.jpg"), image(2, "y/0001.jpg")]
    write(tmp_path, [annotation(), annotation(8, image_id=2, category_id=1, segmentation=CORNER)], entries)
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"x/0001": (0, [(7, "dog", 5)]), "y/0001": (1, [(8, "person", 52)])}
    assert left_out == {}
    (tmp_path / "list.txt").write_text("y/0001.jpg\nval2017/x/0001.jpg\n")
    with pytest.raises(UserError, match="val2017/x/0001: the list may mean x/0001 or y/0001; name its folder too"):
        load_objects("coco", root=tmp_path, list=tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("y\\0001.jpg\nx/0001\n")
    assert list(shown(found(tmp_path, list=tmp_path / "list.txt")[0])) == ["y/0001", "x/0001"]


def test_images_of_one_name_with_two_endings_are_two_images(tmp_path):
    entries = [image(1, "1.jpg"), image(2, "1.png")]
    write(tmp_path, [annotation(), annotation(8, image_id=2, category_id=1, segmentation=CORNER)], entries)
    assert shown(found(tmp_path)[0]) == {
        "val2017/1.jpg": (0, [(7, "dog", 5)]),
        "val2017/1.png": (1, [(8, "person", 52)]),
    }


def test_images_of_one_name_in_two_splits_are_two_images(tmp_path):
    write(tmp_path, [annotation()], split="train")
    write(tmp_path, [annotation(8, image_id=2, category_id=1)], [image(1, "0.jpg"), image(2, "1.jpg")])
    assert shown(found(tmp_path, split="trainval")[0]) == {
        "train2017/1.jpg": (0, [(7, "dog", 5)]),
        "val2017/1.jpg": (1, [(8, "person", 5)]),
    }


def test_an_image_listed_twice_keeps_its_objects(tmp_path):
    write(tmp_path, [annotation()], [image(), image()])
    images, left_out, told = found(tmp_path)
    assert [(item.instance, item.label) for item in images.objects(0)] == [(7, "dog")]
    assert left_out == {}
    assert told == ["annotations/instances_val2017.json: images lists 1 image again, with the same values"]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (image(2), "lists its file 2 times, with different values"),
        (image(1, height=10), "lists its file 2 times, with different values"),
        (image(1, "2.jpg"), "gives its id 1 to 2 images"),
    ],
)
def test_an_image_that_cannot_be_told_from_another_is_named(tmp_path, second, reason):
    entries = [image(), second, image(3, "3.jpg")]
    write(tmp_path, [annotation(), annotation(8, image_id=2), annotation(9, image_id=3)], entries)
    images, left_out, _ = found(tmp_path)
    assert list(shown(images)) == ["3"]
    assert left_out["1"] == f"instances_val2017.json {reason}"


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"height": None}, "1", "its height is None and its width 64; numbers of pixels are wanted"),
        ({"height": "48"}, "1", "its height is '48'"),
        ({"height": 48.0}, "1", "its height is 48.0"),
        ({"width": 0}, "1", "its height is 48 and its width 0"),
        ({"width": True}, "1", "its height is 48 and its width True"),
        ({"height": 10**6, "width": 10**6}, "1", "its size is said to be 1000000 x 1000000 pixels"),
        ({"height": 64, "width": 48}, "1", "its mask is 48 x 64 pixels, its image 64 x 48"),
        ({"file_name": None}, "images[0]", "its file_name is None; a path below val2017 is wanted"),
        ({"file_name": 1}, "images[0]", "its file_name is 1"),
        ({"file_name": ""}, "images[0]", "its file_name is ''"),
        ({"file_name": "/etc/1.jpg"}, "images[0]", "its file_name is '/etc/1.jpg'"),
        ({"file_name": "../1.jpg"}, "images[0]", "its file_name is '../1.jpg'"),
        ({"file_name": "http://images.org/1.jpg"}, "images[0]", "its file_name is 'http://images.org/1.jpg'"),
        ({"id": None}, "image_id 1", "instances_val2017.json has objects of an image 1 that it does not list"),
    ],
)
def test_a_bad_entry_of_an_image_is_named(tmp_path, change, name, reason):
    write(tmp_path, [annotation(), annotation(8, image_id=2)], [image(), image(2, "2.jpg")])
    path = tmp_path / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="1 problem in the"):
        load_objects("coco", root=tmp_path)
    images, left_out, _ = found(tmp_path)
    assert images.names == ["2"]
    assert list(left_out) == [name]
    assert left_out[name].startswith(reason)


def test_objects_of_an_image_that_is_not_listed_do_not_replace_one_of_that_name(tmp_path):
    write(tmp_path, [annotation(), annotation(8, image_id=77)], [image(1, "77.jpg")])
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"77": (0, [(7, "dog", 5)])}
    assert list(left_out) == ["image_id 77"]


# Classes


def test_classes_are_known_in_capitals_and_under_either_name(tmp_path):
    written = {"Dog": "dog", " Dining_Table": "diningtable", "POTTED  PLANT": "pottedplant", "TV": "tvmonitor"}
    assert {name: voc_class(name) for name in written} == written
    assert all(voc_class(name) == voc_class(name.title()) == name for name in CLASSES)
    assert voc_class("giraffe") is voc_class("hot dog") is None
    write(tmp_path, [annotation()], categories=[{"id": 18, "name": "DOG"}])
    assert shown(found(tmp_path)[0]) == {"1": (0, [(7, "dog", 5)])}


def test_what_is_left_out_by_rule_is_counted_and_named(tmp_path):
    """Also of images that have nothing else."""
    annotations = [
        annotation(),
        annotation(8, category_id=25),
        annotation(9, iscrowd=1),
        annotation(10, category_id=25, image_id=2),
        annotation(11, image_id=3, segmentation=[[1, 1, 3, 1, 3, 3]]),
    ]
    write(tmp_path, annotations, [image(), image(2, "2.jpg"), image(3, "3.jpg")])
    images, left_out, told = found(tmp_path)
    assert (images.names, left_out) == (["1"], {})
    assert told == [
        "annotations/instances_val2017.json: left out 2 objects of classes that VOC does not have (2 giraffe) "
        "and 1 crowd",
        "coco: left out 1 of 2 images that were looked at, without an object that covers more than 1.00% "
        "(objects.largest_over)",
    ]


def test_a_file_without_a_class_of_voc_says_so(tmp_path):
    write(tmp_path, [annotation()], categories=[{"id": 18, "name": "Dogge"}])
    with pytest.raises(UserError, match=r"no image of .*instances_val2017\.json has an object of one of VOC's twenty"):
        found(tmp_path)


# Objects


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"segmentation": ..., "bbox": [5, 5, 45, 35]}, "1#7", "its annotation has no segmentation, only a box"),
        ({"segmentation": [[5, 5, 50, 5, 50, float("nan")]]}, "1#7", "its segmentation has the corner (50, nan)"),
        ({"segmentation": [[5, 5, 50, 5, float("inf"), 40]]}, "1#7", "its segmentation has the corner (inf, 40)"),
        (
            {"segmentation": [[1e12, 5, 50, 5, 50, 40]]},
            "1#7",
            "its segmentation has the corner (1e+12, 5), not near its",
        ),
        (
            {"segmentation": [[10**400, 5, 50, 5, 50, 40]]},
            "1#7",
            "its segmentation has the corner (100... of 401 digits",
        ),
        ({"segmentation": [[-1e5, 5, 50, 5, 50, 40]]}, "1#7", "its segmentation has the corner (-100000.0, 5)"),
        ({"segmentation": [[5, 5, 50, 5, 50, 40, 5]]}, "1#7", "its segmentation has a polygon of fewer than three"),
        ({"segmentation": [[5, 5, 50, 5]]}, "1#7", "its segmentation has a polygon of fewer than three corners"),
        ({"segmentation": [["5", 5, 50, 5, 50, 40]]}, "1#7", "its segmentation has a polygon that is not a list"),
        ({"segmentation": [[[5, 5], [50, 5], [50, 40]]]}, "1#7", "its segmentation has a polygon that is not a list"),
        ({"segmentation": [5, 5, 50, 5, 50, 40]}, "1#7", "its segmentation is neither polygons"),
        ({"segmentation": {"size": [48, 64], "counts": [1, 2.0, 3069]}}, "1#7", "the run lengths of its mask are"),
        ({"segmentation": {"size": [48, 64], "counts": [True] * 3072}}, "1#7", "the run lengths of its mask are"),
        ({"segmentation": {"size": [48, 64], "counts": "o" * 99_999 + "0"}}, "1#7", "the run lengths of its mask are"),
        ({"segmentation": {"size": [48, 64]}}, "1#7", "the run lengths of its mask are broken"),
        ({"segmentation": {"counts": [3072]}}, "1#7", "its mask has the size (height, width) None"),
        ({"iscrowd": "0"}, "1#7", "its iscrowd is '0'; 0 or 1 is wanted"),
        ({"category_id": ...}, "1#7", "its annotation has no category_id"),
        ({"category_id": 99}, "1#7", "its class is not among the file's categories: category_id 99"),
        ({"image_id": ...}, "annotations[0]", "it does not say of which image it is"),
        ({"image_id": None}, "annotations[0]", "it does not say of which image it is"),
    ],
)
def test_a_bad_object_is_named_and_leaves_the_others_alone(tmp_path, change, name, reason):
    write(tmp_path, [annotation(**change), annotation(8, category_id=1, segmentation=CORNER)])
    with pytest.raises(UserError, match="1 problem in the"):
        load_objects("coco", root=tmp_path)
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"1": (0, [(8, "person", 52)])}
    assert list(left_out) == [name]
    assert left_out[name].startswith(reason)


@pytest.mark.parametrize("entry", [None, 7, "dog", []])
def test_an_annotation_that_is_none_is_named(tmp_path, entry):
    write(tmp_path, [annotation(), entry])
    images, left_out, _ = found(tmp_path)
    assert shown(images) == {"1": (0, [(7, "dog", 5)])}
    assert left_out == {"annotations[1]": f"its annotation {entry!r} is no object"}


def test_a_polygon_that_leaves_its_image_is_cut_at_the_edge():
    """Against the rule that a pixel belongs to a polygon if its centre does."""
    random = np.random.default_rng(0)
    for _ in range(30):
        corners = random.uniform(-2, 3, (5, 2)) * [WIDTH, HEIGHT]
        mask = decode_segmentation([corners.ravel().tolist()], HEIGHT, WIDTH)
        rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        inside = np.zeros((HEIGHT, WIDTH), bool)
        for (x, y), (last_x, last_y) in zip(corners, np.roll(corners, 1, 0), strict=True):
            crosses = (y > rows) != (last_y > rows)
            inside ^= crosses & (columns < (last_x - x) * (rows - y) / (last_y - y) + x)
        assert (mask != inside).mean() < 0.03  # pycocotools rounds corners to fifths of a pixel


# Files


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"images": [', "it cannot be read as JSON, which may be damaged or cut off"),
        ("", "it cannot be read as JSON"),
        ("[" * 100_000, "it cannot be read as JSON"),
        ('[{"image_id": 1}]', "it holds a list, not an object with the lists images, annotations, categories"),
        ('{"info": {}, "images": []}', "it has no list 'annotations', 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "it has no list 'images'"),
        ('{"images": [], "annotations": [], "categories": ["dog"]}', r"categories\[0\] has no id or no name"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', r"categories\[0\] has no id or no name"),
    ],
)
def test_a_file_that_is_none_of_instances_says_why(tmp_path, text, reason):
    write(tmp_path, [annotation()])
    (tmp_path / "annotations/instances_val2017.json").write_text(text)
    with pytest.raises(UserError, match=rf"instances_val2017\.json is no file of COCO instances: {reason}"):
        found(tmp_path)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = write(tmp_path, [annotation()]) / "annotations/instances_val2017.json"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(path.read_text().encode(encoding))
        assert shown(found(tmp_path)[0]) == {"1": (0, [(7, "dog", 5)])}
        path.write_text(path.read_bytes().decode(encoding))


def test_two_categories_of_one_id_are_refused(tmp_path):
    write(tmp_path, [annotation()], categories=[{"id": 18, "name": "dog"}, {"id": "18", "name": "cat"}])
    with pytest.raises(UserError, match="gives two categories the id 18: 'dog' and 'cat'"):
        found(tmp_path)
