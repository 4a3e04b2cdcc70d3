"""How much of its prompt a picture of the pocket world shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from diffprobe.pocket.networks import load_classifier
from diffprobe.pocket.scenes import COLOURS, SHAPES

BATCH = 64
_OBJECT = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")


class PromptAgreement:
    """The share of the objects that a prompt names, by colour and shape, that the pocket classifier sees somewhere."""

    def __init__(self) -> None:
        self.network = load_classifier()

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Images [images, 3, 64, 64] in [0, 1] -> [images]; NaN where the prompt names no object of that world."""
        seen = [objects for batch in images.split(BATCH) for objects in self._objects(batch.float().cpu())]
        return torch.tensor([_own_shards(prompt, there) for prompt, there in zip(prompts, seen, strict=True)])

    def _objects(self, images: Tensor) -> list[list[tuple[str, str]]]:
        colours, shapes = (logits.argmax(-1).tolist() for logits in self.network(images))
        return [
            [(COLOURS[c], SHAPES[s]) for c, s in zip(*image, strict=True) if c < len(COLOURS) and s < len(SHAPES)]
            for image in zip(colours, shapes, strict=True)
        ]


def _own_shards(prompt: str, seen: list[tuple[str, str]]) -> float:
    named, left = _OBJECT.findall(prompt), list(seen)
    if not named:
        return float("nan")
    found = 0
    for item in named:
        if item in left:
            left.remove(item)
            found += 1
    return found / len(named)
