"""A tiny model with probes that were never trained, and a labeler that takes what is lighter for the object."""

from __future__ import annotations

import pytest
from torch import Tensor

from diffprobe.app.equipment import Equipment, build_equipment
from diffprobe.data.prompts import Prompt
from diffprobe.probes.bank import ProbeBank

LAYERS = {"down_blocks.0.resnets.1": 8, "up_blocks.3.resnets.2": 8}
PROMPTS = [Prompt(f"picture {number}", number, f"image_{number}") for number in range(5)]


class LighterHalf:
    """Labels what is lighter than the picture's median."""

    def __call__(self, images: Tensor, names: list[str], properties: list[str]) -> dict[str, Tensor]:
        grey = images.mean(1)
        salient = (grey > grey.flatten(1).median(1).values[:, None, None]).float()
        maps = {"saliency": salient, "depth": grey, "shading": grey}
        return {name: maps[name] for name in properties}

    def check(self, names: list[str], properties: list[str], image_size: int) -> None:
        """Knows every image."""

    def fingerprint(self, name: str) -> str:
        return f"lighter half: {name}"


@pytest.fixture(scope="session")
def equipment(tiny_backbone) -> Equipment:
    """Probes of the first and the last of three steps; the first is edited."""
    bank = ProbeBank(LAYERS, [0, 2], ["saliency", "depth"])
    return build_equipment(tiny_backbone, LighterHalf(), bank, PROMPTS, sampling_steps=3)
