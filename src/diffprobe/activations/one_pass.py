"""Activations that are used while they are computed, and never kept: one batch of images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import lightning
import torch
from torch import Tensor, nn

from diffprobe.activations.extraction import ExtractionModule, Tell, decoded, predict
from diffprobe.activations.sources.source import Source
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError


@dataclass(frozen=True)
class Seen:
    """A batch of images, taken through all their steps, on the backbone's device.

    Attributes:
        rows: which images of the source they are.
        activations: of each layer at the wanted steps, [steps, batch, channels, h, w].
        noisy: what the denoiser was given at these steps, [steps, batch, channels, h, w].
        latents: the same after the step.
        images: as they are at the end, or the real ones, [batch, 3, H, W] in [0, 1].
    """

    rows: list[int]
    activations: dict[str, Tensor]
    noisy: Tensor
    latents: Tensor
    images: Tensor


def pass_by(
    look: Callable[[list[int]], Seen],
    rows: Sequence[int],
    use: Callable[[Seen], None],
    *,
    names: Sequence[str],
    batch_size: int,
    trainer: lightning.Trainer,
    tell: Tell = lambda line: None,
) -> None:
    """Shows images to `look`, a batch at a time, and what it saw to `use`. Processes share the rows among them.

    Args:
        names: of all images, by row.

    Raises:
        UserError: a process would see none, or an image is not finite.
    """
    if len(rows) < trainer.world_size:
        raise UserError(f"{len(rows)} images of a part of the split cannot be shared by {trainer.world_size} processes")
    share = list(rows[trainer.global_rank :: trainer.world_size])
    batches = [share[start : start + batch_size] for start in range(0, len(share), batch_size)]
    module = ExtractionModule(lambda rows: iter([look(rows)]), batch_size, batches, names)
    predict(module, lambda rows, seen: use(seen), trainer, tell)


def see(backbone: Backbone, source: Source, layers: Sequence[str], steps: Sequence[int], rows: list[int]) -> Seen:
    """Takes some images of the source through its steps, each once."""
    wanted, last = [], None
    for step in source.run(backbone, rows, layers, steps):
        last = step
        if step.index in steps:
            wanted.append(step)
    assert last is not None  # a source has steps
    pictures = source.pictures(backbone, rows)
    return Seen(
        rows,
        {layer: torch.stack([step.activations[layer] for step in wanted]) for layer in layers},
        torch.stack([step.noisy for step in wanted]),
        torch.stack([step.latents for step in wanted]),
        decoded(backbone, last.latents) if pictures is None else pictures,
    )


def see_again(
    backbone: Backbone, source: Source, denoiser: nn.Module, layers: Sequence[str], steps: Sequence[int], seen: Seen
) -> dict[str, Tensor]:
    """What another denoiser's layers say of the very latents that ours saw, [steps, batch, channels, h, w] each."""
    found = _by_step(source.replay(backbone, denoiser, seen.rows, layers, seen.noisy, steps))
    return {layer: torch.stack([values[layer] for values in found]) for layer in layers}


def _by_step(replayed: Iterator[tuple[int, float, dict[str, Tensor]]]) -> list[dict[str, Tensor]]:
    return [values for _, _, values in replayed]
