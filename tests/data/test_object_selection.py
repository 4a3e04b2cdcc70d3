"""Which images and objects are used, and how everything that is wrong with them is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diffprobe.data.object_selection import read_list
from diffprobe.errors import UserError
from diffprobe.parts import make
from tests.data.layouts import load_objects, some_scenes, walk, write_coco, write_davis, write_palette, write_voc

VOC = Path("VOCdevkit/VOC2012")
ANNOTATIONS = Path("annotations/instances_val2017.json")


def voc(root: Path, folder: str, name: str) -> Path:
    return root / VOC / folder / f"{name}.{'jpg' if folder == 'JPEGImages' else 'png'}"


def shrink_to(path: Path, pixels: int) -> None:
    """Leaves so many pixels of the first object, and no other."""
    numbers = np.array(Image.open(path))
    places = np.argwhere(numbers == 1)[:pixels]
    left = np.zeros_like(numbers)
    left[tuple(places.T)] = numbers[tuple(places.T)]
    write_palette(path, left)


# The rule of Diff-Props


def test_only_images_with_an_object_over_one_percent_are_drawn(tmp_path):
    names = write_voc(tmp_path, some_scenes(4))
    for folder in ("SegmentationObject",):
        shrink_to(voc(tmp_path, folder, names[1]), 40)  # of 4096 pixels: 0.98 %
        shrink_to(voc(tmp_path, folder, names[2]), 41)
    images, problems = load_objects("voc", root=tmp_path)
    assert images.names == [names[0], names[2], names[3]]
    assert problems == []
    assert load_objects("voc", root=tmp_path, largest_over=0.009)[0].names == names


def test_a_draw_depends_on_its_seed_only_and_is_fair(tmp_path):
    names = write_voc(tmp_path, some_scenes(5), size=32)
    draws = [tuple(load_objects("voc", root=tmp_path, count=2, seed=seed)[0].names) for seed in range(12)]
    assert all(len(draw) == 2 and list(draw) == sorted(draw) for draw in draws)
    assert {name for draw in draws for name in draw} == set(names)
    assert len(set(draws)) > 3
    assert load_objects("voc", root=tmp_path, count=2, seed=3)[0].names == list(draws[3])
    with pytest.raises(UserError, match=r"5 images of voc with an object that covers more than 1\.00% can be used, 6"):
        load_objects("voc", root=tmp_path, count=6)


def test_small_objects_stay_unless_a_least_area_is_asked_and_are_named_then(tmp_path):
    scenes = [scene for scene in some_scenes(9) if len(scene.objects) > 1][:2]
    names = write_voc(tmp_path, scenes)
    path = voc(tmp_path, "SegmentationObject", names[0])
    numbers = np.array(Image.open(path))
    places = np.argwhere(numbers == 2)
    numbers[tuple(places[5:].T)] = 0
    write_palette(path, numbers)
    kept, nothing = load_objects("voc", root=tmp_path)
    assert [item.instance for item in kept.objects(0)][:2] == [1, 2]
    assert nothing == []
    images, left_out = load_objects("voc", root=tmp_path, min_area=0.005)
    assert 2 not in [item.instance for item in images.objects(0)]
    assert len(images.masks(0)) == len(images.objects(0))
    (problem,) = left_out
    assert (problem.image, problem.object) == (names[0], f"{names[0]}#2")
    assert "0.12%" in problem.reason
    assert "min_area" in problem.reason
    with pytest.raises(UserError, match="0 images of voc"):
        load_objects("voc", root=tmp_path, min_area=0.99)


# Lists


def test_a_list_is_taken_as_it_is_whatever_the_areas(tmp_path):
    names = write_voc(tmp_path, some_scenes(3))
    shrink_to(voc(tmp_path, "SegmentationObject", names[2]), 4)
    for text, file in [
        (f"src,dataset\r\n{names[2]}.jpg,pascal\r\n000000000139.jpg,coco\r\n{names[0]}.jpg,pascal\r\n", "list.csv"),
        (f"{names[2]}\n\n  {names[0]}.jpg \n", "list.txt"),
    ]:
        (tmp_path / file).write_text(text)
        (tmp_path / VOC / "ImageSets").rename(tmp_path / "elsewhere")  # a list does without
        assert load_objects("voc", root=tmp_path, list=tmp_path / file)[0].names == [names[2], names[0]]
        assert load_objects("voc", root=tmp_path, list=tmp_path / file, count=1)[0].names == [names[2]]
        (tmp_path / "elsewhere").rename(tmp_path / VOC / "ImageSets")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,dataset\na.jpg,pascal\n", "has no column 'src'; it has 'path', 'dataset'"),
        ("src,dataset\na.jpg,coco\n", "names nothing of voc; its column dataset should say pascal or voc"),
        ("src,dataset\na.jpg,pascal\na.png,pascal\n", "names a 2 times"),
        ("src,dataset\na.jpg,pascal\nb.jpg,pascla\n", "line 3: unknown dataset 'pascla'; known are pascal, voc, coco"),
        ("src,dataset\n,pascal\n", "line 2: the row names nothing"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_list(tmp_path / "list.csv", "voc")
    with pytest.raises(UserError, match=r"cannot read objects\.list .*there\.csv"):
        read_list(tmp_path / "there.csv", "voc")


def test_the_columns_of_the_published_list_name_the_rows_of_each_set(tmp_path):
    path = tmp_path / "images_and_video_list.csv"
    path.write_text("src,dataset\n2010_001313.jpg,pascal\n000000098503.jpg,coco\nboxing-fisheye,davis\njudo,davis\n")
    assert read_list(path, "voc") == ["2010_001313"]
    assert read_list(path, "coco") == ["000000098503"]
    told = []
    assert read_list(path, "davis", told.append) == ["boxing-fisheye", "judo"]
    assert told == [f"{path}: rows of other sets than davis are left out: 1 of pascal, 1 of coco"]


def test_datasets_are_known_in_capitals_and_names_keep_their_dots(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("Src,Dataset\n val2017/tiny.2.JPG , COCO\nx\\tiny.2,coco\n")
    assert read_list(path, "coco") == ["val2017/tiny.2", "x/tiny.2"]
    path.write_text("src\nJPEGImages\\a.jpg\nb.1\n")
    assert read_list(path, "voc") == ["a", "b.1"]


# What is missing


@pytest.mark.parametrize(
    ("kind", "gone", "shown", "source"),
    [
        ("voc", VOC / "SegmentationClass", "SegmentationObject/2007_000032.png", "VOCtrainval_11-May-2012.tar"),
        ("voc", VOC / "ImageSets", "{train,val,trainval}.txt", "host.robots.ox.ac.uk"),
        ("coco", Path("val2017"), "val2017/000000000139.jpg", "cocodataset.org"),
        ("coco", Path("annotations"), "instances_{train,val}2017.json", "annotations_trainval2017.zip"),
        ("davis", Path("Annotations"), "Annotations/480p/bear/00000.png", "davischallenge.org"),
    ],
)
def test_a_missing_folder_is_named_with_the_layout_and_where_to_get_it(tmp_path, kind, gone, shown, source):
    scenes = some_scenes(2)
    write_voc(tmp_path, scenes, 16)
    write_coco(tmp_path, scenes, 16)
    write_davis(tmp_path, {"one": scenes, "two": scenes}, 16)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as raised:
        load_objects(kind, root=tmp_path)
    message = str(raised.value)
    assert f"no {tmp_path / gone}" in message
    assert "objects.root" in message
    assert shown in message
    assert source in message


def test_a_set_without_its_folder_says_what_to_give():
    with pytest.raises(UserError, match=r"VOC 2012: there is no JPEGImages, .*\n.*VOCdevkit/VOC2012/"):
        load_objects("voc")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "scenes", "on_error": "hide"}, "objects.on_error=hide"),
        ({"kind": "scenes", "count": 0}, "objects.count=0: must be at least 1"),
        ({"kind": "davis", "every": 0}, "objects.every=0"),
        ({"kind": "scenes", "min_area": 2.0}, "objects.min_area=2"),
        ({"kind": "scenes", "label": "size"}, "objects.label=size: choose one of shape, colour, both"),
        ({"kind": "coco", "split": "test"}, "objects.split=test"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        load_objects(**settings)


# Bad data of VOC


def _no_mask(root, name):
    voc(root, "SegmentationObject", name).unlink()


def _small_mask(root, name):
    for folder in ("SegmentationObject", "SegmentationClass"):
        path = voc(root, folder, name)
        Image.open(path).resize((16, 24), Image.Resampling.NEAREST).save(path)


def _two_masks(root, name):
    path = voc(root, "SegmentationClass", name)
    Image.open(path).crop((0, 0, 16, 32)).save(path)


def _broken_mask(root, name):
    path = voc(root, "SegmentationObject", name)
    path.write_bytes(path.read_bytes()[:60])


def _colour_mask(root, name):
    path = voc(root, "SegmentationObject", name)
    Image.open(path).convert("RGB").resize((20, 20)).resize((32, 32)).save(path)


def _broken_image(root, name):
    path = voc(root, "JPEGImages", name)
    path.write_bytes(path.read_bytes()[:500])


def _no_image(root, name):
    voc(root, "JPEGImages", name).unlink()


def _turned_image(root, name):
    path, exif = voc(root, "JPEGImages", name), Image.Exif()
    exif[0x0112] = 3  # upside down: only the size of the picture stays as it was
    Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_no_mask, "there is no mask .*SegmentationObject/2007_000001.png"),
        (_small_mask, "its mask is 16 x 24 pixels, its image 32 x 32"),
        (_two_masks, "its mask of objects is 32 x 32 pixels, its mask of classes 16 x 32"),
        (_broken_mask, "cannot read the mask .*2007_000001.png"),
        (_colour_mask, "the mask .*: its pixels are colours, and it has the colour"),
        (_broken_image, "cannot read the image .*2007_000001.jpg: "),
        (_no_image, "there is no image .*2007_000001.jpg"),
        (_turned_image, "the EXIF data of .* turn it"),
    ],
)
def test_a_bad_image_is_named_and_stops_or_is_left_out(tmp_path, spoil, reason):
    names = write_voc(tmp_path, some_scenes(3), size=32)
    spoil(tmp_path, names[1])
    with pytest.raises(UserError, match=f"1 problem in the 3 images of voc.*{names[1]}: {reason}.*on_error=skip"):
        load_objects("voc", root=tmp_path)
    images, (problem,) = load_objects("voc", root=tmp_path, on_error="skip")
    assert images.names == [names[0], names[2]]
    assert (problem.image, problem.object) == (names[1], "")
    assert problem.reason


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([21], "its pixels have the class 21; one of 1 to 20 is wanted"),
        ([3, 4], "its pixels have the classes 3, 4;"),
        ([3, 0], "its pixels have the classes 0, 3;"),
        ([255], "its pixels have no class;"),
    ],
)
def test_an_object_of_voc_without_one_known_class_is_named(tmp_path, classes, reason):
    scenes = [scene for scene in some_scenes(9) if len(scene.objects) == 2][:1]
    (name,) = write_voc(tmp_path, scenes)
    numbers = np.array(Image.open(voc(tmp_path, "SegmentationObject", name)))
    path = voc(tmp_path, "SegmentationClass", name)
    found = np.array(Image.open(path))
    places = np.argwhere(numbers == 1)
    for part, value in zip(np.array_split(places, len(classes)), classes, strict=True):
        found[tuple(part.T)] = value
    write_palette(path, found)
    images, (problem,) = load_objects("voc", root=tmp_path, on_error="skip")
    assert problem.object == f"{name}#1"
    assert problem.reason.startswith(reason)
    assert [item.instance for item in images.objects(0)] == [2]
    assert len(images.masks(0)) == 1


def test_an_image_left_out_is_replaced_by_another(tmp_path):
    names = write_voc(tmp_path, some_scenes(6), size=32)
    first, second = load_objects("voc", root=tmp_path, count=2)[0].names
    _no_mask(tmp_path, first)
    images, (problem,) = load_objects("voc", root=tmp_path, count=2, on_error="skip")
    assert len(images) == 2
    assert second in images.names
    assert problem.image == first
    assert set(images.names) < set(names)


def test_many_problems_are_counted_and_the_first_three_named(tmp_path):
    names = write_voc(tmp_path, some_scenes(5), size=16)
    (tmp_path / "list.txt").write_text("\n".join([*names[:1], *(f"no_{number}" for number in range(4))]))
    with pytest.raises(UserError, match=r"4 problems in the 5 images .*no_0: .*no_1: .*no_2: ") as raised:
        load_objects("voc", root=tmp_path, list=tmp_path / "list.txt")
    assert "no_3" not in str(raised.value)
    images, problems = load_objects("voc", root=tmp_path, list=tmp_path / "list.txt", on_error="skip")
    assert images.names == names[:1]
    assert [problem.image for problem in problems] == [f"no_{i}" for i in range(4)]


# Bad data of COCO


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"segmentation": None}, "its annotation has no segmentation"),
        ({"segmentation": []}, "its annotation has no segmentation"),
        ({"segmentation": [[1, 1, 5, 5]]}, "its segmentation has a polygon of fewer than three corners"),
        ({"segmentation": [[70, 70, 80, 70, 80, 80]]}, "its mask has no pixels"),
        ({"segmentation": {"size": [32, 32], "counts": [1024]}}, "its mask has no pixels"),
        ({"segmentation": {"size": [16, 64], "counts": [1024]}}, "its mask has the size"),
        ({"segmentation": {"size": [32, 32], "counts": [10, 5]}}, "the run lengths of its mask cover 15 pixels"),
        ({"segmentation": {"size": [32, 32], "counts": "zzz"}}, "the run lengths of its mask are broken"),
        ({"segmentation": {"size": [32, 32], "counts": [2000, -976]}}, "the run lengths of its mask are broken"),
        ({"segmentation": "a car"}, "its segmentation is neither polygons, .*, nor run lengths"),
        ({"category_id": 400}, "its class is not among the file's categories"),
    ],
)
def test_a_bad_annotation_of_coco_is_named(tmp_path, change, reason):
    scenes = [scene for scene in some_scenes(9) if len(scene.objects) == 2][:1]
    (name,) = write_coco(tmp_path, scenes, size=32)
    content = json.loads((tmp_path / ANNOTATIONS).read_text())
    content["annotations"][0].update(change)
    if change.get("segmentation", 1) is None:
        del content["annotations"][0]["segmentation"]
    (tmp_path / ANNOTATIONS).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"1 problem in the 1 images of coco .*: {name}#10: {reason}"):
        load_objects("coco", root=tmp_path)
    images, (problem,) = load_objects("coco", root=tmp_path, on_error="skip")
    assert (problem.image, problem.object) == (name, f"{name}#10")
    assert [item.instance for item in images.objects(0)] == [11]


def test_images_that_coco_does_not_list_or_have_are_named(tmp_path):
    names = write_coco(tmp_path, some_scenes(3), size=16)
    (tmp_path / "val2017" / f"{names[0]}.jpg").unlink()
    content = json.loads((tmp_path / ANNOTATIONS).read_text())
    content["annotations"].append({**content["annotations"][0], "id": 999, "image_id": 77})
    (tmp_path / ANNOTATIONS).write_text(json.dumps(content))
    images, problems = load_objects("coco", root=tmp_path, on_error="skip", seed=1)
    assert images.names == names[1:]
    assert {problem.image: problem.reason.split(tmp_path.name)[0] for problem in problems} == {
        names[0]: f"there is no image {tmp_path}".split(tmp_path.name)[0],
        "image_id 77": "instances_val2017.json has objects of an image 77 that it does not list",
    }
    (tmp_path / "list.txt").write_text(f"{names[1]}\n000000000139.jpg\n")
    with pytest.raises(UserError, match=r"000000000139: annotations/instances_val2017\.json has no image of this name"):
        load_objects("coco", root=tmp_path, list=tmp_path / "list.txt")


def test_a_listed_image_without_objects_of_the_twenty_classes_is_named(tmp_path):
    names = write_coco(tmp_path, some_scenes(2), size=16)
    content = json.loads((tmp_path / ANNOTATIONS).read_text())
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != 1]
    (tmp_path / ANNOTATIONS).write_text(json.dumps(content))
    (tmp_path / "list.txt").write_text("\n".join(names))
    images, (problem,) = load_objects("coco", root=tmp_path, list=tmp_path / "list.txt")
    assert images.names == names[1:]
    assert str(problem) == f"{names[0]}: it has no object"
    assert load_objects("coco", root=tmp_path)[0].names == names[1:]


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": []}'])
def test_a_file_that_is_no_coco_file_is_named(tmp_path, text):
    write_coco(tmp_path, some_scenes(1), size=16)
    (tmp_path / ANNOTATIONS).write_text(text)
    with pytest.raises(UserError, match=r"instances_val2017\.json is no file of COCO instances"):
        load_objects("coco", root=tmp_path)


# Bad data of DAVIS


def test_frames_and_sequences_of_davis_that_cannot_be_used_are_named(tmp_path):
    scene = some_scenes(1)[0]
    write_davis(tmp_path, {"judo": walk(scene, 4), "india": walk(scene, 2)}, size=32)
    masks = tmp_path / "Annotations/480p/judo"
    (masks / "00001.png").unlink()
    write_palette(masks / "00002.png", np.zeros((32, 32)))
    write_palette(masks / "00003.png", np.where(np.eye(32) > 0, 255, 1))
    (tmp_path / "list.txt").write_text("judo\nlindy-hop\n")
    with pytest.raises(UserError, match=r"2 problems in the 5 images of davis.*judo/00001: there is no mask"):
        load_objects("davis", root=tmp_path, list=tmp_path / "list.txt")
    images, problems = load_objects("davis", root=tmp_path, list=tmp_path / "list.txt", on_error="skip")
    assert images.names == ["judo/00000", "judo/00003"]
    assert images.frames == [0, 3]
    assert images.objects(1)[0].area == pytest.approx(31 / 32)
    assert [problem.image for problem in problems] == ["judo/00001", "lindy-hop", "judo/00002"]
    assert "there is no frame in" in problems[1].reason
    assert problems[2].reason == "it has no object"


# The configuration


@pytest.mark.parametrize("kind", ["scenes", "moving_scenes", "voc", "coco", "davis"])
def test_the_configuration_of_a_set_is_what_it_takes(tmp_path, kind):
    scenes = some_scenes(4)
    write_voc(tmp_path, scenes, 16)
    write_coco(tmp_path, scenes, 16)
    write_davis(tmp_path, {"one": scenes, "two": scenes}, 16)
    settings = yaml.safe_load((Path(__file__).parents[2] / "conf" / "objects" / f"{kind}.yaml").read_text())
    if "root" in settings:
        settings["root"] = tmp_path
    images, problems = make({**settings, "count": 1}, seed=0)
    assert images.kind == kind
    assert problems == []
