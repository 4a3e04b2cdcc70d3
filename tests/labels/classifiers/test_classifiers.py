"""Classifiers: probabilities of named classes, the same as from the model itself, and clear errors."""

import hashlib
import sys
from enum import Enum
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from diffprobe.errors import UserError
from diffprobe.labels.classifiers import TorchvisionClassifier, TransformersClassifier, check_download
from diffprobe.labels.pocket import PocketClassifier
from diffprobe.pocket.render import render
from diffprobe.pocket.scenes import sample_scene
from tests.tiny import build_tiny_classifier

IMAGES = torch.rand(5, 3, 48, 40, generator=torch.Generator().manual_seed(1))


def test_the_built_in_classifier_names_colour_and_shape_of_rendered_scenes():
    scenes = [sample_scene(index, "test", 1) for index in range(40)]
    classifier = PocketClassifier()
    found = classifier(render(scenes).images)
    named = [classifier.classes[place] for place in found.argmax(1)]
    right = [f"{scene.objects[0].colour} {scene.objects[0].shape}" for scene in scenes]
    assert np.mean([one == other for one, other in zip(named, right, strict=True)]) > 0.9
    torch.testing.assert_close(found.sum(1), torch.ones(40))


def test_the_built_in_classifier_refuses_images_of_another_world():
    with pytest.raises(UserError, match="classifier=transformers"):
        PocketClassifier().check(512)


def test_a_model_of_transformers_gives_what_its_own_processor_and_network_give(tmp_path):
    from transformers import AutoModelForImageClassification, ConvNextImageProcessorPil

    folder = build_tiny_classifier(tmp_path / "net", ["lemon", "orange, fruit", "tench"])
    classifier = TransformersClassifier(str(folder), device="cpu", batch_size=2)
    assert (classifier.name, classifier.classes) == ("net", ["lemon", "orange, fruit", "tench"])
    pictures = list((IMAGES * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    inputs = ConvNextImageProcessorPil.from_pretrained(folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        wanted = AutoModelForImageClassification.from_pretrained(folder)(**inputs).logits.softmax(-1)
    torch.testing.assert_close(classifier(IMAGES), wanted)
    assert wanted.std(0).min() > 1e-4


@pytest.mark.parametrize("name", ["nothing_here", "a_folder"])
def test_what_is_no_classifier_is_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(UserError, match=name):
        TransformersClassifier(name, device="cpu")


def test_files_that_lack_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = build_tiny_classifier(tmp_path / "net", ["lemon", "tench"])
    file = folder / "model.safetensors"
    kept = {name: values for name, values in load_file(file).items() if "classifier" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 2 of its \d+ weights, first classifier\.bias"):
        TransformersClassifier(str(folder), device="cpu")


def test_a_network_of_torchvision_says_what_to_install_where_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match="needs torchvision"):
        TorchvisionClassifier()


def test_a_network_of_torchvision_sees_its_own_transforms(monkeypatch):
    """Of a package with the parts of torchvision's that are called, since the real one is not to be had everywhere."""

    class Weights(Enum):
        FIRST = SimpleNamespace(categories=["dark", "bright"])

        def transforms(self):
            return lambda batch: batch.float().mean((2, 3)) / 255

        @property
        def meta(self):
            return {"categories": self.value.categories}

    class Network(nn.Module):
        def forward(self, batch):
            return torch.stack([1 - batch.mean(1), batch.mean(1)], 1)

    models = SimpleNamespace(
        get_model_weights=lambda name: Weights, get_model=lambda name, weights: Network().eval()
    )  # fmt: skip
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    classifier = TorchvisionClassifier("vgg16", "FIRST", device="cpu", batch_size=1)
    found = classifier(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]))
    assert classifier.classes == ["dark", "bright"]
    torch.testing.assert_close(found[:, 1], torch.tensor([-1.0, 1.0]).sigmoid())
    with pytest.raises(UserError, match="'OTHER'"):
        TorchvisionClassifier("vgg16", "OTHER")


def test_a_damaged_download_of_torchvision_is_named_and_not_read(monkeypatch, tmp_path):
    """The cache of torch.hub is compared with the checksum in the file's name, which else only a download is."""
    digest = hashlib.sha256(b"as published").hexdigest()[:8]
    published = SimpleNamespace(url=f"https://download.pytorch.org/models/vgg16-{digest}.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / f"vgg16-{digest}.pth"
    check_download(published)  # is not there yet, and will be checked when it comes
    file.write_bytes(b"as published")
    check_download(published)
    file.write_bytes(b"as publishee")
    with pytest.raises(UserError, match=rf"vgg16-{digest}\.pth is damaged.*delete it"):
        check_download(published)


@pytest.mark.parametrize("error", [RuntimeError("Missing key(s) in state_dict"), EOFError(), KeyError("features")])
def test_weights_of_torchvision_that_do_not_fit_are_one_line(monkeypatch, error):
    def get_model(name, weights):
        raise error

    weights = {"FIRST": SimpleNamespace(url="https://download.pytorch.org/models/vgg16-00000000.pth")}
    models = SimpleNamespace(get_model_weights=lambda name: weights, get_model=get_model)
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    with pytest.raises(UserError, match="cannot load the weights FIRST of vgg16"):
        TorchvisionClassifier("vgg16", "FIRST", device="cpu")
