"""Batches of images for the frozen network: prompts and seeds, or real images and the masks of their objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import lightning
from torch import Tensor


class ImageBatch(NamedTuple):
    """Some images of a source.

    Attributes:
        rows: their numbers in the source.
        names: their ids.
        prompts: what the network is told of each.
        seeds: of each one's noise.
        images: real images [batch, 3, H, W] in [0, 1], on the CPU; None where the network makes them.
        masks: of each image's objects, [objects, H, W], where objects are asked for.
    """

    rows: list[int]
    names: list[str]
    prompts: list[str]
    seeds: list[int]
    images: Tensor | None = None
    masks: list[Tensor] | None = None


class ImageData(lightning.LightningDataModule):
    """Batches of this process's share of the images.

    Images are shared by whole shards, the k-th to process k, k + processes, ..., whatever is done already, so that
    processes need not agree on the rest. A batch holds images of one shard.

    Args:
        load: makes a batch of row numbers (`Source.batch`); called when the batch is wanted, so one batch is held.
        shards: rows of images that belong together.
        batch_size: images at once, at most.
        unfinished: the first row of each shard that is to be done; None means all of them.
        masks: of a row's objects, [objects, H, W], for batches with objects.
    """

    def __init__(
        self,
        load: Callable[[list[int]], ImageBatch],
        shards: Sequence[Sequence[int]],
        batch_size: int,
        *,
        unfinished: Collection[int] | None = None,
        masks: Callable[[int], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a process may find nothing left to do
        self.load, self.shards, self.batch_size, self.masks = load, shards, batch_size, masks
        self.unfinished = unfinished
        self.batches: list[list[int]] = []

    @property
    def images(self) -> int:
        """How many images are this process's to do; known after `setup`."""
        return sum(map(len, self.batches))

    def share(self, rank: int, processes: int) -> list[Sequence[int]]:
        """The shards that process `rank` of several has to do."""
        own = self.shards[rank::processes]
        return [rows for rows in own if len(rows) and (self.unfinished is None or rows[0] in self.unfinished)]

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        self.batches = [
            list(rows[start : start + self.batch_size])
            for rows in self.share(self.trainer.global_rank, self.trainer.world_size)
            for start in range(0, len(rows), self.batch_size)
        ]

    def predict_dataloader(self) -> Batches:
        return Batches(self)

    def transfer_batch_to_device(self, batch: ImageBatch, device: Any, dataloader_idx: int) -> ImageBatch:
        """Leaves images and masks on the CPU: images go to the device one at a time, as the VAE takes them."""
        return batch


class Batches:
    """The batches of an `ImageData`, loaded one by one. No DataLoader, so that Lightning does not distribute what is
    distributed already."""

    def __init__(self, data: ImageData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.batches)

    def __iter__(self) -> Iterator[ImageBatch]:
        for rows in self.data.batches:
            batch = self.data.load(rows)
            masks = self.data.masks
            yield batch if masks is None else batch._replace(masks=[masks(row) for row in rows])
