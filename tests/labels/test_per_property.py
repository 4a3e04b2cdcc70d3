"""One labeler a property: made when asked for, checked before work, cached; and the configuration of them all."""

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from diffprobe.errors import UserError
from diffprobe.labels.files import FilesLabeler
from diffprobe.labels.labeler import PerProperty
from tests.labels.tiny_onnx import SCRAMBLED, save_maps

CONF = Path(__file__).parents[2] / "conf"
IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b"]


class Constant:
    """A labeler of one value that counts what happens to it."""

    made: ClassVar[list[float]] = []
    calls: ClassVar[list[float]] = []

    def __init__(self, value):
        self.value = value
        self.made.append(value)

    def check(self, names, properties, image_size):
        if image_size > 64:
            raise UserError(f"too large for {self.value}")

    def __call__(self, images, names, properties):
        self.calls.append(self.value)
        return {name: torch.full((len(images), 4, 4), self.value) for name in properties}

    def fingerprint(self, name):
        return f"{name}-{self.value}"


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    monkeypatch.setattr(Constant, "made", [])
    monkeypatch.setattr(Constant, "calls", [])


def together(cache=None):
    return PerProperty(cache, depth=partial(Constant, 1.0), shading=partial(Constant, 2.0))


def test_each_property_comes_from_its_own_labeler():
    labeler = together()
    maps = labeler(IMAGES, NAMES, ["shading", "depth"])
    assert {name: values.unique().tolist() for name, values in maps.items()} == {"shading": [2.0], "depth": [1.0]}
    assert labeler.fingerprint("depth") == "depth-1.0"


def test_only_what_is_asked_for_is_made_and_once():
    labeler = together()
    assert Constant.made == []
    labeler.check(NAMES, ["depth"], 64)
    labeler(IMAGES, NAMES, ["depth"])
    labeler(IMAGES, NAMES, ["depth"])
    assert Constant.made == [1.0]


def test_all_that_are_asked_for_are_checked_before_work():
    with pytest.raises(UserError, match=r"too large for 1\.0"):
        together().check(NAMES, ["depth"], 512)
    with pytest.raises(UserError, match="no labeler for saliency; there is one for depth, shading"):
        together().check(NAMES, ["depth", "saliency"], 64)
    assert Constant.calls == []


def test_what_is_no_labeler_is_named():
    with pytest.raises(UserError, match=r"labeler\.path=maps is no labeler"):
        PerProperty(path="maps")  # type: ignore[arg-type]


def test_maps_are_kept_but_not_those_that_are_files_already(tmp_path):
    (tmp_path / "maps" / "saliency").mkdir(parents=True)
    for name in NAMES:
        np.save(tmp_path / "maps" / "saliency" / f"{name}.npy", np.ones((4, 4)))
    for _ in range(2):
        labeler = PerProperty(
            tmp_path / "kept", depth=partial(Constant, 1.0), saliency=partial(FilesLabeler, tmp_path / "maps")
        )
        maps = labeler(IMAGES, NAMES, ["depth", "saliency"])
        assert torch.equal(maps["depth"], maps["saliency"])
    assert Constant.calls == [1.0]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["depth"]


def configured(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", ["labeler=image_models", *overrides]).labeler)


def test_the_configuration_needs_nothing_for_properties_that_are_not_asked_for(tmp_path):
    (tmp_path / "depth").mkdir()
    for name in NAMES:
        np.save(tmp_path / "depth" / f"{name}.npy", np.eye(IMAGES.shape[-1]))
    labeler = configured("labeler/depth=files", f"labeler.depth.path={tmp_path}", "labeler.cache=null")
    labeler.check(NAMES, ["depth"], 512)
    assert labeler(IMAGES, NAMES, ["depth"])["depth"].unique().tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match=r"labeler\.saliency\.path=FILE\.onnx"):
        labeler.check(NAMES, ["saliency"], 512)


def test_the_configuration_gives_each_image_model_its_settings(tmp_path):
    labeler = configured("labeler.depth.model=nowhere", "labeler.saliency.family=tracer")
    with pytest.raises(UserError, match="no depth model 'nowhere'"):
        labeler.check(NAMES, ["depth"], 512)
    with pytest.raises(UserError, match=r"labeler\.saliency\.family=tracer"):
        labeler.check(NAMES, ["saliency"], 512)


def test_normals_and_depth_by_onnx_files_are_parts_too(tmp_path):
    normals = save_maps(tmp_path / "normals.onnx")
    depth = save_maps(tmp_path / "depth.onnx", SCRAMBLED[:1])
    overrides = ("model.device=cpu", f"labeler.cache={tmp_path / 'kept'}", "labeler/depth=onnx")
    labeler = configured(*overrides, f"labeler.normals.path={normals}", f"labeler.depth.path={depth}")
    labeler.check(NAMES, ["normals", "depth"], 4)
    for _ in range(2):
        maps = labeler(IMAGES, NAMES, ["normals", "depth"])
        assert maps["normals"].shape == (2, 3, 4, 4)
        assert maps["depth"].shape == (2, 4, 4)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["depth", "normals"]
    with pytest.raises(UserError, match=r"no model is set to label normals with; give labeler\.normals\.path=FILE"):
        configured().check(NAMES, ["normals"], 4)


def test_normals_may_be_files_beside_image_models(tmp_path):
    (tmp_path / "normals").mkdir()
    for name in NAMES:
        np.save(tmp_path / "normals" / f"{name}.npy", np.broadcast_to([0.0, 0.0, 1.0], (4, 4, 3)))
    labeler = configured("labeler/normals=files", f"labeler.normals.path={tmp_path}", "labeler.cache=null")
    labeler.check(NAMES, ["normals"], 4)
    assert labeler(IMAGES, NAMES, ["normals"])["normals"][0, :, 1, 2].tolist() == [0, 0, 1]
