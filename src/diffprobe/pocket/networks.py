"""The pocket labeler and classifier: small convolutional networks that look at pictures, loaded from safetensors."""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffprobe.errors import UserError
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.weights import check_unchanged, fill, read_weights

SLOTS = 3
MAPS = ("saliency", "depth", "shading")
Network = TypeVar("Network", bound=nn.Module)


class LabelerNetwork(nn.Module):
    """A small U-Net from a picture to its saliency logit, inverse depth (standardised) and shading (standardised).

    It works on blocks of 2x2 pixels, at a quarter of the cost of full resolution.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(len(MAPS)))
        self.register_buffer("scale", torch.ones(len(MAPS)))
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1), _Block(width))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(low, high, 3, stride=2, padding=1), _Block(high), _Block(high))
            for low, high in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(low + high, low, 3, padding=1), _Block(low)) for low, high in pairwise(widths)
        )
        self.head = nn.Sequential(nn.Conv2d(width, 4 * len(MAPS), 3, padding=1), nn.PixelShuffle(2))

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, size, size] in [0, 1] -> [batch, 3, size, size]: logit and standardised maps."""
        features = [self.stem(images * 2 - 1)]
        for block in self.down:
            features.append(block(features[-1]))
        below = features.pop()
        for block in reversed(self.up):  # type: ignore[call-overload]
            beside = features.pop()
            below = block(torch.cat([beside, functional.interpolate(below, size=beside.shape[-2:])], 1))
        return self.head(below)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """The maps in their own units: saliency as probability, inverse depth, irradiance; each [batch, size, size]."""
        logit, depth, shading = self(images).float().unbind(1)
        return {
            "saliency": logit.sigmoid(),
            "depth": depth * self.scale[1] + self.mean[1],
            "shading": shading * self.scale[2] + self.mean[2],
        }


class ClassifierNetwork(nn.Module):
    """Names the colour and shape of up to three objects, from left to right; the last class of each is 'no object'."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1)]
        for low, high in ((width, 2 * width), (2 * width, 3 * width)):
            layers += [_Block(low), nn.Conv2d(low, high, 3, stride=2, padding=1)]
        layers += [_Block(3 * width), nn.Conv2d(3 * width, 16, 1), nn.Flatten(), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(16 * 64, SLOTS * (len(COLOURS) + len(SHAPES) + 2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, 3, 64, 64] in [0, 1] -> logits of colour [batch, 3, 7] and shape [batch, 3, 5]."""
        logits = self.head(self.features(images * 2 - 1)).unflatten(-1, (SLOTS, -1))
        return logits[..., : len(COLOURS) + 1], logits[..., len(COLOURS) + 1 :]


class _Block(nn.Module):
    """Two normalised convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


def load_labeler() -> LabelerNetwork:
    """The shipped labeler, frozen."""
    return load_weights(LabelerNetwork(), shipped("labeler.safetensors"))


def load_classifier() -> ClassifierNetwork:
    """The shipped classifier, frozen."""
    return load_weights(ClassifierNetwork(), shipped("classifier.safetensors"))


def shipped(name: str) -> Path:
    """A file of the weights inside the package.

    Raises:
        UserError: it is not there, as in a checkout whose weights were removed, or not what it was when it was made.
    """
    folder = Path(str(files("diffprobe.pocket"))) / "weights"
    if not (folder / name).exists():
        raise UserError(f"{folder / name} is missing; train it: python -m diffprobe.pocket.training all --install")
    check_unchanged(folder, name)
    return folder / name


def load_weights(network: Network, path: Path) -> Network:
    """Puts float16 weights from a safetensors file into a network, in float32, and freezes it.

    Raises:
        UserError: the file is damaged, or does not hold exactly the weights of this network.
    """
    weights = {key: value.float() for key, value in read_weights(path).items()}
    return fill(network, weights, str(path)).requires_grad_(False).eval()
