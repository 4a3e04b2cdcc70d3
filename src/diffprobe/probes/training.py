"""Train a probe bank on activations, in memory or stored: the plain function behind the Lightning classes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffprobe.errors import UserError
from diffprobe.features.reading import ReadableActivations
from diffprobe.features.store.reader import StoredRows
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.functional import Grid
from diffprobe.probes.module import Batch, ProbeBankModule
from diffprobe.probes.preparation import prepare_bank
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.smoothness import Edges, edge_weights
from diffprobe.probes.splits import Split

IMAGES_AT_ONCE = 16


class Collate:
    """Row numbers -> `Batch`. Slices the activations, which stay in the precision they are stored in."""

    def __init__(
        self,
        values: Mapping[str, Any],
        targets: Mapping[str, Mapping[Grid, Tensor]],
        edges: Mapping[Grid, Edges] | None = None,
    ) -> None:
        self.values = values
        self.targets = targets
        self.edges = edges or {}

    def __call__(self, rows: Sequence[int]) -> Batch:
        index = torch.tensor(rows)
        return Batch(
            index,
            {layer: values[:, index] for layer, values in self.values.items()},
            {name: {grid: maps[index] for grid, maps in grids.items()} for name, grids in self.targets.items()},
            {grid: Edges(*(weights[index] for weights in edges)) for grid, edges in self.edges.items()},
        )


class SharedBatches:
    """This process's share of every batch that `rows`, a loader of row numbers, yields.

    No DataLoader, so that Lightning does not distribute what is distributed already. All processes are given equally
    many batches; one that there is no image for looks at the batch's first, which then weighs nothing.
    """

    def __init__(self, rows: DataLoader, collate: Collate, trainer: lightning.Trainer) -> None:
        self.rows, self.collate, self.trainer = rows, collate, trainer

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        for rows in self.rows:
            own = rows[rank::processes]
            yield self.collate(own or rows[:1])._replace(share=processes * len(own) / len(rows))


def train_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    trainer: lightning.Trainer | None = None,
    images: Tensor | StoredRows | None = None,
) -> ProbeBank:
    """Train all probes (layer x step x property) together on the split's training images.

    targets: label maps [images, H, W] by property, in the row order of `activations.names`. The probes and their
    training are those of `recipe`, without one the papers'. images: [images, 3, H, W] in [0, 1], in the same order;
    only the smoothness penalty looks at them.

    A `trainer` brings its own number of epochs and validation interval; without one, a silent single-device trainer
    that writes nothing is made. Several devices share each batch of `batch_size` images, so the probes are the same
    however many there are. With more devices than images in a batch, the others idle; sharing pays off where
    layers are large.

    Raises UserError for unknown properties, label maps that do not fit the activations, and a smoothness penalty
    without images or with images that do not fit.
    """
    recipe = recipe or Recipe()
    bank, tokens = prepare_bank(activations, targets, split, properties, recipe, seed)
    edges = _edges(images, activations) if recipe.smoothness else {}
    values = {layer: activations.values[layer] for layer in bank.layers}
    fitter = trainer or _silent_trainer(recipe)
    training, validation = _loaders(split, recipe, seed, fitter.world_size)
    with _quiet(trainer is None):
        fitter.fit(
            ProbeBankModule(bank, len(activations.names), recipe),
            SharedBatches(training, Collate(values, tokens, edges), fitter),
            SharedBatches(validation, Collate(values, tokens), fitter),
        )
    return bank.cpu().eval().requires_grad_(False)


def _loaders(split: Split, recipe: Recipe, seed: int, processes: int) -> tuple[DataLoader, DataLoader]:
    """Row numbers: batches of training images in an order of their own every epoch, and of validation images in order,
    `batch_size` for each process."""
    shuffle = torch.Generator().manual_seed(seed)
    return (
        DataLoader(split.train, recipe.batch_size, shuffle=True, generator=shuffle, collate_fn=list),  # type: ignore[arg-type]
        DataLoader(split.validation, processes * recipe.batch_size, collate_fn=list),  # type: ignore[arg-type]
    )


def _edges(images: Tensor | StoredRows | None, activations: ReadableActivations) -> dict[Grid, Edges]:
    """Of all images, for every resolution; few images at a time, since they may be large and on disk."""
    count = len(activations.names)
    if images is None:
        raise UserError("probe.smoothness needs the images: give train_bank its `images`, or set probe.smoothness=0.")
    if len(images) != count or len(images.shape) != 4:
        raise UserError(f"images of shape {list(images.shape)}, expected [{count}, channels, height, width].")
    found: dict[Grid, list[Edges]] = {grid: [] for grid in activations.grids}
    for start in range(0, count, IMAGES_AT_ONCE):
        part = images[start : start + IMAGES_AT_ONCE]
        for grid, edges in found.items():
            edges.append(edge_weights(part, grid))
    return {grid: Edges(*map(torch.cat, zip(*edges, strict=True))) for grid, edges in found.items()}


def _silent_trainer(recipe: Recipe) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        check_val_every_n_epoch=min(recipe.validate_every, recipe.epochs),
        devices=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _quiet(everything: bool) -> Iterator[None]:
    """No warnings that nobody can act on; with `everything`, no notices either."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.13
        if everything:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
