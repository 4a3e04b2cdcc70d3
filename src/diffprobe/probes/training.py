"""Train a probe bank on activations, in memory or stored: the plain function behind the Lightning classes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffprobe.features.activations import Activations
from diffprobe.features.store.reader import StoredActivations, StoredSteps
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.functional import Grid
from diffprobe.probes.module import Batch, ProbeBankModule
from diffprobe.probes.properties import property_named
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.splits import Split
from diffprobe.probes.targets import target_maps, token_targets


class Collate:
    """Row numbers -> `Batch`. Slices the activations, which stay in the precision they are stored in."""

    def __init__(
        self, values: Mapping[str, Tensor | StoredSteps], targets: Mapping[str, Mapping[Grid, Tensor]]
    ) -> None:
        self.values = values
        self.targets = targets

    def __call__(self, rows: Sequence[int]) -> Batch:
        index = torch.tensor(rows)
        return Batch(
            index,
            {layer: values[:, index] for layer, values in self.values.items()},
            {name: {grid: maps[index] for grid, maps in grids.items()} for name, grids in self.targets.items()},
        )


def train_bank(
    activations: Activations | StoredActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    trainer: lightning.Trainer | None = None,
) -> ProbeBank:
    """Train all probes (layer x step x property) together on the split's training images.

    targets: label maps [images, H, W] by property, in the row order of `activations.names`. The probes and their
    training are those of `recipe`, without one the papers'.

    A `trainer` brings its own number of epochs and validation interval; without one, a silent single-device trainer
    that writes nothing is made. Under DDP a batch holds `batch_size` images per device.

    Raises UserError for unknown properties and for label maps that do not fit the activations.
    """
    recipe = recipe or Recipe()
    maps = {name: target_maps(targets, name, activations.names) for name in properties}
    statistics = {name: property_named(name).standardisation(maps[name][split.train]) for name in properties}
    bank = ProbeBank(
        {layer.name: layer.channels for layer in activations.layers},
        activations.steps,
        properties,
        bias=recipe.bias,
        seed=seed,
        standardisations=statistics,
    )
    pooled = {name: token_targets(statistics[name].apply(values), activations.grids) for name, values in maps.items()}
    collate = Collate({layer: activations.values[layer] for layer in bank.layers}, pooled)
    shuffle = torch.Generator().manual_seed(seed)
    train: DataLoader = DataLoader(split.train, recipe.batch_size, shuffle=True, generator=shuffle, collate_fn=collate)  # type: ignore[arg-type]
    validation: DataLoader = DataLoader(split.validation, recipe.batch_size, collate_fn=collate)  # type: ignore[arg-type]
    with _quiet(trainer is None):
        fitter = trainer or _silent_trainer(recipe)
        fitter.fit(ProbeBankModule(bank, len(activations.names), recipe.learning_rates), train, validation)
    return bank.cpu().eval().requires_grad_(False)


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
    """No advice about data workers, which data in memory does not need; with `everything`, no notices either."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.13
        if everything:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
