"""Published networks label photographs as a person would: IS-Net's saliency, EfficientNet-Lite0's classes.

Skipped unless a folder to keep the networks in is named (170 MB, fetched once, then read from there):

    DIFFPROBE_PUBLISHED_MODELS=~/published python -m pytest -n 0 -s tests/integration/test_published_label_models.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffprobe.data.images import load_images, read_image
from diffprobe.labels.saliency import OnnxSaliency
from diffprobe.try_labels import main
from tests.integration.published_models import is_net, photographs, unpacked

pytestmark = pytest.mark.slow

SIZE = 512
# Inside of what stands out, drawn by eye: left, top, right and bottom in shares of the picture
OBJECTS = {
    "astronaut": (0.15, 0.45, 0.65, 0.95),
    "chelsea": (0.10, 0.10, 0.70, 0.90),
    "coffee": (0.25, 0.10, 0.70, 0.85),
    "rocket": (0.485, 0.35, 0.515, 0.90),
}
# Corners of a tenth of the sides that show background: the astronaut's sleeve and the cat reach others
CORNERS = {
    "astronaut": ("top left", "top right"),
    "chelsea": ("top right", "bottom right"),
    "coffee": ("top left", "top right", "bottom left", "bottom right"),
    "rocket": ("top right", "bottom right"),
}
COVERED, UNCOVERED = 0.85, 0.1
# ImageNet has no class of astronauts; what is seen of one is the helmet
SEEN = {
    "astronaut": {"football helmet"},
    "chelsea": {"Egyptian cat", "tabby", "tiger cat"},
    "coffee": {"espresso", "cup"},
    "rocket": {"missile", "projectile", "space shuttle"},
}


def covered(mask: torch.Tensor, box: tuple[float, float, float, float]) -> float:
    """The share of foreground in a box."""
    left, top, right, bottom = (round(share * SIZE) for share in box)
    return mask[top:bottom, left:right].mean().item()


def corner(name: str) -> tuple[float, float, float, float]:
    low, left = (0.9 if name.startswith("bottom") else 0.0), (0.9 if name.endswith("right") else 0.0)
    return left, low, left + 0.1, low + 0.1


@pytest.mark.parametrize("size", ["small", "medium"])
def test_is_net_finds_what_stands_out_in_photographs(size: str) -> None:
    files = load_images(photographs())
    labeler = OnnxSaliency(is_net(size), device="cpu")
    images = torch.stack([read_image(file, SIZE) for file in files])
    masks = labeler(images, [file.name for file in files], ["saliency"])["saliency"]
    measured = {}
    for file, mask in zip(files, masks, strict=True):
        inside = covered(mask, OBJECTS[file.name])
        outside = max(covered(mask, corner(name)) for name in CORNERS[file.name])
        measured[file.name] = inside, outside
        print(f"\nIS-Net {size}, {file.name}: {inside:.3f} of the object, {outside:.3f} of a corner", end="")
    assert set(measured) == set(OBJECTS)
    assert min(inside for inside, _ in measured.values()) > COVERED
    assert max(outside for _, outside in measured.values()) < UNCOVERED


def test_the_command_labels_photographs_and_names_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(unpacked()))
    out = tmp_path / "labels.png"
    words = ["labeler=image_models", f"labeler.saliency.path={is_net('small')}", f"labeler.cache={tmp_path}"]
    words += ["property=saliency", "data.fit=crop", "classifier=transformers", f"classifier.model={unpacked()}"]
    words += ["classifier._target_=tests.integration.published_models.EfficientNetLite0", "model.device=cpu"]
    assert main(["--images", str(photographs()), "--out", str(out), *words]) == 0
    said = capsys.readouterr().out
    with capsys.disabled():
        print(f"\n{said}", end="")
    assert out.is_file()
    lines = said.split("classifier EfficientNet-Lite0")[1].splitlines()
    for name, expected in SEEN.items():
        (line,) = (line for line in lines if line.strip().startswith(name))
        assert any(seen in line for seen in expected), line
