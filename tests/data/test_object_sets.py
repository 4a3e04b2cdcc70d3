"""VOC, COCO, DAVIS and scenes as images with objects, read from their official layouts."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.data.objects import ObjectImages
from diffprobe.errors import UserError
from diffprobe.pocket.render import render
from tests.data.layouts import (
    COCO_CATEGORIES,
    VOC_OF,
    load_objects,
    some_scenes,
    walk,
    write_coco,
    write_davis,
    write_voc,
)

VOC = Path("VOCdevkit/VOC2012")
ANNOTATIONS = Path("annotations/instances_val2017.json")


def all_of(kind: str, *root: Path, **settings) -> ObjectImages:
    images, problems = load_objects(kind, *root, **settings)
    assert problems == []
    return images


def edit_coco(root: Path, change) -> None:
    content = json.loads((root / ANNOTATIONS).read_text())
    change(content)
    (root / ANNOTATIONS).write_text(json.dumps(content))


def test_copies_of_the_same_scenes_as_voc_and_as_coco_have_the_same_objects(tmp_path):
    scenes = some_scenes(6)
    write_voc(tmp_path, scenes)
    write_coco(tmp_path / "coco", scenes)
    voc, coco = all_of("voc", tmp_path), all_of("coco", tmp_path)
    rendered = render(scenes)
    assert len(voc) == len(coco) == 6
    assert any(len(voc.objects(row)) > 1 for row in range(6))
    for row, scene in enumerate(scenes):
        for images in (voc, coco):
            found = images.objects(row)
            present = [slot for slot in range(3) if rendered.instances[row, slot].any()]
            assert [item.label for item in found] == [VOC_OF[scene.objects[slot].shape] for slot in present]
            assert torch.equal(images.masks(row), rendered.instances[row, present])
            assert [item.area for item in found] == pytest.approx(images.masks(row).float().mean((1, 2)).tolist())
            assert [item.name for item in found] == [f"{images.names[row]}#{item.instance}" for item in found]
        assert torch.equal(voc.picture(row, 32), coco.picture(row, 32))
        assert (voc.picture(row, 64) - rendered.images[row]).abs().mean() < 0.02
    assert voc.captions == [""] * 6
    assert voc.sequences == [""] * 6
    assert voc.frames == [0] * 6


@pytest.mark.parametrize("place", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_is_found_from_any_of_its_folders(tmp_path, place):
    names = write_voc(tmp_path, some_scenes(4))
    assert all_of("voc", tmp_path / place).names == names
    assert all_of("voc", tmp_path / place, split="train").names == names[:2]


def test_the_border_of_voc_belongs_to_no_object(tmp_path):
    (name,) = write_voc(tmp_path, some_scenes(1))
    before = all_of("voc", tmp_path).masks(0)
    for folder in ("SegmentationObject", "SegmentationClass"):
        path = tmp_path / VOC / folder / f"{name}.png"
        numbers = np.array(Image.open(path))
        numbers[:40] = 255
        Image.fromarray(numbers).save(path)
    after = all_of("voc", tmp_path)
    assert torch.equal(after.masks(0)[:, 40:], before[:, 40:])
    assert not after.masks(0)[:, :40].any()
    assert before[:, :40].any()
    assert after.objects(0)[0].area == pytest.approx(after.masks(0)[0].float().mean().item())


def test_coco_leaves_out_crowds_and_classes_that_voc_does_not_have(tmp_path):
    write_coco(tmp_path, some_scenes(2))
    before = all_of("coco", tmp_path)

    def add(content):
        first = content["annotations"][0]
        content["annotations"] += [
            {**first, "id": 900, "iscrowd": 1, "segmentation": {"size": [64, 64], "counts": [4096]}},
            {**first, "id": 901, "category_id": COCO_CATEGORIES["giraffe"]},
        ]

    edit_coco(tmp_path, add)
    after = all_of("coco", tmp_path)
    assert [after.objects(row) for row in range(2)] == [before.objects(row) for row in range(2)]


def test_coco_reads_polygons_and_run_lengths_of_pictures_that_are_not_square(tmp_path):
    write_coco(tmp_path, some_scenes(1))
    Image.new("RGB", (10, 6), (9, 9, 9)).save(tmp_path / "val2017/000000000001.jpg")

    def replace(content):
        content["images"][0].update(height=6, width=10)
        first = content["annotations"][0]
        square = [[2, 1, 6, 1, 6, 4, 2, 4]]  # columns 2 to 5, rows 1 to 3
        runs = {"size": [6, 10], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 26]}
        content["annotations"] = [{**first, "id": 1, "segmentation": square}, {**first, "id": 2, "segmentation": runs}]

    edit_coco(tmp_path, replace)
    polygon, runs = all_of("coco", tmp_path).masks(0)
    expected = torch.zeros(6, 10, dtype=torch.bool)
    expected[1:4, 2:6] = True
    assert torch.equal(polygon, expected)
    assert torch.equal(runs, expected)


def test_coco_finds_a_list_in_either_split(tmp_path):
    write_coco(tmp_path, some_scenes(2))
    write_coco(tmp_path, some_scenes(3), split="train")
    (tmp_path / "list.txt").write_text("000000000003.jpg\nval2017/000000000001.jpg\n")
    assert all_of("coco", tmp_path, split="trainval", list=tmp_path / "list.txt").names == [
        "000000000003",
        "val2017/000000000001.jpg",  # there is one in either
    ]


def test_davis_keeps_the_identity_of_instances_over_frames(tmp_path):
    scenes = [scene for scene in some_scenes(12) if len(scene.objects) == 2][:2]
    write_davis(tmp_path, {"judo": walk(scenes[0], 5), "india": walk(scenes[1], 3)})
    (tmp_path / "list.csv").write_text("src,dataset\njudo,davis\nindia,davis\n2007_1.jpg,pascal\n")
    images = all_of("davis", tmp_path, list=tmp_path / "list.csv", every=2, frames=2)
    assert images.names == ["judo/00000", "judo/00002", "india/00000", "india/00002"]
    assert images.sequences == ["judo", "judo", "india", "india"]
    assert images.frames == [0, 2, 0, 2]
    assert [item.label for item in images.objects(1)] == ["judo/1", "judo/2"]
    assert [item.name for item in images.objects(1)] == ["judo/00002#1", "judo/00002#2"]
    first, third = images.masks(0), images.masks(1)
    assert (first & third).sum((1, 2)).gt(0).all()
    assert not torch.equal(first, third)
    assert all_of("davis", tmp_path, split="train").names == [f"judo/0000{frame}" for frame in range(5)]


def test_a_count_of_davis_is_of_sequences(tmp_path):
    scene = some_scenes(1)[0]
    write_davis(tmp_path, {name: walk(scene, 2) for name in ("skipped", "unused", "b", "a", "d", "c")})
    drawn = all_of("davis", tmp_path, count=2, seed=1)
    assert len(drawn) == 4
    assert drawn.names == sorted(drawn.names)
    assert {tuple(all_of("davis", tmp_path, count=1, seed=seed).sequences) for seed in range(9)} > {("a", "a")}
    with pytest.raises(UserError, match=r"objects\.count=9: there are only 3 sequences"):
        load_objects("davis", root=tmp_path, count=9)


def test_scenes_are_labelled_as_asked_and_masked_exactly():
    scenes = some_scenes(3)
    for label, expected in {
        "shape": lambda item: item.shape,
        "colour": lambda item: item.colour,
        "both": lambda item: f"{item.colour} {item.shape}",
    }.items():
        images = all_of("scenes", count=3, label=label)
        assert images.names == ["scene-000000", "scene-000001", "scene-000002"]
        for row, scene in enumerate(scenes):
            assert [item.label for item in images.objects(row)] == [expected(item) for item in scene.objects]
    rendered = render(scenes, 32)
    images = all_of("scenes", count=3, size=32)
    assert torch.equal(images.picture(1, 32), rendered.images[1])
    assert torch.equal(images.masks(1), rendered.instances[1, : len(scenes[1].objects)])
    assert images.picture(1, 48).shape == (3, 48, 48)
    assert not set(all_of("scenes", count=3, seed=1).names) & set(images.names)


@pytest.mark.parametrize("kind", ["voc", "coco", "davis", "scenes"])
def test_every_set_travels_without_pixels_and_records_what_it_shows(tmp_path, kind):
    scenes = some_scenes(2)
    write_voc(tmp_path, scenes)
    write_coco(tmp_path, scenes)
    write_davis(tmp_path, {"train": scenes, "val": scenes})
    settings = {"count": 2} if kind == "scenes" else {"root": tmp_path}
    images = all_of(kind, **settings)
    packed = pickle.dumps(images)
    assert len(packed) < 4000
    copy = pickle.loads(packed)
    assert images.kind == kind
    for row in range(2):
        assert torch.equal(copy.masks(row), images.masks(row))
        assert copy.objects(row) == images.objects(row)
        assert copy.masks(row).dtype == torch.bool
        assert copy.picture(row, 16).dtype == torch.float32
        assert json.loads(json.dumps(copy.record(row))) == images.record(row)
    assert images.record(0) != {**images.record(1), "id": images.names[0]}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("voc", lambda root: root / VOC / "SegmentationObject/2007_000000.png"),
        ("davis", lambda root: root / "Annotations/480p/val/00000.png"),
    ],
)
def test_a_record_changes_with_the_annotation(tmp_path, kind, change):
    scenes = some_scenes(2)
    write_voc(tmp_path, scenes)
    write_davis(tmp_path, {"train": scenes, "val": scenes})
    images = all_of(kind, tmp_path)
    before = images.record(0)
    path = change(tmp_path)
    numbers = np.array(Image.open(path))
    numbers[:8] = 0
    Image.fromarray(numbers).save(path)
    after = images.record(0)
    assert after["sha256"] == before["sha256"]
    assert after["annotation"] != before["annotation"]


@pytest.mark.parametrize(
    ("kind", "folder"), [("voc", VOC / "SegmentationObject"), ("davis", Path("Annotations/480p/x"))]
)
def test_an_annotation_that_changes_after_it_was_recorded_is_an_error(tmp_path, kind, folder):
    write_voc(tmp_path, some_scenes(1))
    write_davis(tmp_path, {"x": some_scenes(1), "y": some_scenes(1)})
    images = all_of(kind, tmp_path, **({"split": "train"} if kind == "davis" else {}))
    images.record(0)
    before = images.masks(0)
    (mask,) = (tmp_path / folder).glob("*.png")
    content = mask.read_bytes()
    numbers = np.array(Image.open(mask))
    numbers[:8] = 0
    Image.fromarray(numbers).save(mask)
    with pytest.raises(UserError, match=r"the annotation of .* was changed while it was in use"):
        images.masks(0)
    mask.write_bytes(content)
    assert torch.equal(images.masks(0), before)


def test_a_picture_that_changes_after_it_was_looked_at_is_an_error(tmp_path):
    write_voc(tmp_path, some_scenes(2))
    images = all_of("voc", tmp_path)
    (tmp_path / VOC / "JPEGImages/2007_000000.jpg").write_bytes(
        (tmp_path / VOC / "JPEGImages/2007_000001.jpg").read_bytes()
    )
    with pytest.raises(UserError, match=r"2007_000000\.jpg was changed while it was in use"):
        images.picture(0, 16)


def test_masks_and_pictures_that_are_no_regular_files_are_named(tmp_path):
    names = write_voc(tmp_path, some_scenes(3))
    for folder, name in (("JPEGImages", f"{names[0]}.jpg"), ("SegmentationClass", f"{names[1]}.png")):
        (tmp_path / VOC / folder / name).unlink()
        os.mkfifo(tmp_path / VOC / folder / name)
    images, problems = load_objects("voc", root=tmp_path, on_error="skip")
    assert images.names == names[2:]
    assert len(problems) == 2
    assert all("it is a pipe" in problem.reason for problem in problems)


def test_a_picture_that_is_there_twice_is_used_once_but_in_films(tmp_path):
    names = write_voc(tmp_path, some_scenes(3))
    for folder, ending in (("JPEGImages", "jpg"), ("SegmentationObject", "png"), ("SegmentationClass", "png")):
        copied = (tmp_path / VOC / folder / f"{names[0]}.{ending}").read_bytes()
        (tmp_path / VOC / folder / f"{names[2]}.{ending}").write_bytes(copied)
    images, problems = load_objects("voc", root=tmp_path, on_error="skip")
    assert len(images) == 2
    assert [problem.image for problem in problems] in ([names[0]], [names[2]])
    assert "it shows the same picture as 2007_00000" in problems[0].reason
    with pytest.raises(UserError, match="it shows the same picture as"):
        load_objects("voc", root=tmp_path)
    write_davis(tmp_path, {"x": some_scenes(1) * 2, "y": some_scenes(1)})
    assert len(all_of("davis", tmp_path, split="train")) == 2
