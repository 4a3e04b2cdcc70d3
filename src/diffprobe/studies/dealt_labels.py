"""Shuffled labels while images pass by: every image has those of the image before it, and the first those of the last.

So all images of a part of the split are on one cycle, whatever the size of the batches: each label map is used once,
and no image has its own unless it is alone. The images come in an order that is random already. It is the control of
`probes.controls.shuffled_targets` where nothing can be looked up later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Targets = dict[str, Tensor]


class Batch(NamedTuple):
    """Activations {layer: [steps, images, C, h, w]} and target maps {property: [images, H, W]} of images."""

    values: dict[str, Tensor]
    targets: Targets
    names: Sequence[str]


class DealtLabels:
    """Deals labels on from image to image. The first image waits, with its activations, until the last has passed."""

    def __init__(self) -> None:
        self._first: Batch | None = None
        self._last: Targets = {}

    def deal(self, batch: Batch) -> Iterator[Batch]:
        """The images of a batch with the labels of those before them; all but the first image of the part."""
        before, self._last = self._last, {name: maps[-1:] for name, maps in batch.targets.items()}
        if self._first is None:
            waiting = {layer: values[:, :1].clone() for layer, values in batch.values.items()}
            self._first = Batch(waiting, {}, batch.names[:1])
            dealt = {name: maps[:-1] for name, maps in batch.targets.items()}
            batch = Batch({layer: values[:, 1:] for layer, values in batch.values.items()}, dealt, batch.names[1:])
        else:
            dealt = {name: torch.cat([before[name], maps[:-1]]) for name, maps in batch.targets.items()}
            batch = batch._replace(targets=dealt)
        if batch.names:
            yield batch

    def close(self, from_neighbour: Callable[[Targets], Targets]) -> Iterator[Batch]:
        """The first image, with the last labels of the process before this one. The next part may begin."""
        first, last, self._first, self._last = self._first, from_neighbour(self._last), None, {}
        if first is not None:
            yield first._replace(targets=last)
