"""The LightningModule that trains a probe bank: one Adam for all probes, the best epoch of each kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor

from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.functional import Grid
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.smoothness import Edges, smoothness


class Batch(NamedTuple):
    """Images at all layers and steps. `rows` [batch] are row numbers of the images; `activations[layer]` is
    [steps, batch, channels, h, w]; `targets[property][(h, w)]` is [batch, h, w], the mean target of each token;
    `edges[(h, w)]` are the images' edges, needed by the smoothness penalty alone. `share` is what the mean loss of the
    images weighs: 1, or, among several processes, (processes x images here / images of the whole batch)."""

    rows: Tensor
    activations: dict[str, Tensor]
    targets: dict[str, dict[Grid, Tensor]]
    edges: Mapping[Grid, Edges] = {}
    share: float = 1.0


class ProbeBankModule(lightning.LightningModule):
    """Trains every probe of `bank` on batches of `Batch`, and leaves in it each probe's weights of its best epoch.

    The loss is the sum over probes of the mean loss of the batch and the recipe's penalties, so each probe sees exactly
    the gradient it would see alone, and Adam, which works element by element, takes the steps it would take alone.
    Among several processes, whose gradients DDP averages, `Batch.share` makes it the gradient of the whole batch.
    After every validation epoch the probes whose validation loss (without penalties) is their lowest so far are copied
    (`best_loss[property]` is [layers, steps]); at the end of training the copies become the bank. Test data is never
    seen here.

    images: number of rows that `Batch.rows` can name. recipe: learning rates and penalties; without one the papers'.
    """

    def __init__(self, bank: ProbeBank, images: int, recipe: Recipe | None = None) -> None:
        super().__init__()
        self.bank = bank
        self.recipe = recipe or Recipe()
        self.images = images
        self.best_loss = {name: torch.full((len(bank.layers), len(bank.steps)), torch.inf) for name in bank.properties}
        self._best = {
            key: parameter.detach().cpu().clone()
            for name in bank.properties
            for layer in bank.layers
            for key, parameter in self._named(name, layer)
        }
        self._loss_sums: dict[str, Tensor] = {}
        self._counts = torch.zeros(0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [
            {
                "params": [item for layer in self.bank.layers for item in self.bank.parameters_of(name, layer)],
                "lr": self.recipe.learning_rates.get(name, self.bank.properties[name].learning_rate),
            }
            for name in self.bank.properties
        ]
        return torch.optim.Adam(groups, fused=True)

    def outputs(self, batch: Batch) -> Iterator[tuple[str, Grid, list[int], Tensor]]:
        """Layers of one resolution together: (property, resolution, numbers of the layers,
        [layers, steps, batch, outputs, h, w]) each."""
        numbered = sorted(enumerate(self.bank.layers), key=lambda item: self._grid(batch, item[1]))
        for grid, group in groupby(numbered, key=lambda item: self._grid(batch, item[1])):
            numbers, layers = zip(*group, strict=True)
            outputs = torch.stack([self.bank.outputs(layer, batch.activations[layer]) for layer in layers])
            for name, part in self.bank.separate(outputs).items():
                yield name, grid, list(numbers), part

    def training_step(self, batch: Batch, *_: Any) -> Tensor:
        terms = []
        for name, grid, _numbers, outputs in self.outputs(batch):
            item = self.bank.properties[name]
            loss = item.loss(outputs, batch.targets[name][grid])
            if self.recipe.smoothness:
                loss = loss + self.recipe.smoothness * smoothness(item.decode(outputs), batch.edges[grid])
            terms.append(batch.share * loss.mean(-1).sum())
        if self.recipe.l1:
            heads = (self.bank.head_of(name, layer) for name in self.bank.properties for layer in self.bank.layers)
            terms += [self.recipe.l1 * weight.abs().sum() for head in heads for weight in head.maps]
        return torch.stack(terms).sum()

    def on_validation_epoch_start(self) -> None:
        shape = (len(self.bank.layers), len(self.bank.steps), self.images)
        self._loss_sums = {name: torch.zeros(shape, device=self.device) for name in self.bank.properties}
        self._counts = torch.zeros(self.images, device=self.device)

    def validation_step(self, batch: Batch, *_: Any) -> None:
        self._counts.index_add_(0, batch.rows, torch.ones(len(batch.rows), device=self.device))
        for name, grid, numbers, outputs in self.outputs(batch):
            loss = self.bank.properties[name].loss(outputs, batch.targets[name][grid])
            for number, values in zip(numbers, loss, strict=True):
                self._loss_sums[name][number].index_add_(1, batch.rows, values.float())

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        # Sums and counts per image: an image that several processes look at still weighs as one.
        counts = self._summed(self._counts)
        seen = counts > 0
        for name, sums in self._loss_sums.items():
            mean = (self._summed(sums)[..., seen] / counts[seen]).mean(-1)
            self.log(f"validation_loss/{name}", mean.mean(), sync_dist=True)
            self._keep_best(name, mean.cpu())

    @torch.no_grad()
    def on_train_end(self) -> None:
        """Put each probe's best weights into the bank; a probe that was never validated keeps its last ones."""
        for name, losses in self.best_loss.items():
            for number, layer in enumerate(self.bank.layers):
                chosen = losses[number].isfinite()
                for key, parameter in self._named(name, layer):
                    parameter[chosen.to(parameter.device)] = self._best[key][chosen].to(parameter)

    def _keep_best(self, name: str, losses: Tensor) -> None:
        """Copy the probes of property `name` whose validation loss [layers, steps] is lower than ever before."""
        better = losses < self.best_loss[name]
        self.best_loss[name] = torch.where(better, losses, self.best_loss[name])
        for number, layer in enumerate(self.bank.layers):
            for key, parameter in self._named(name, layer):
                self._best[key][better[number]] = parameter.detach().cpu()[better[number]]

    def _named(self, name: str, layer: str) -> list[tuple[str, Tensor]]:
        parameters = self.bank.head_of(name, layer).named_parameters()
        return [(f"{name}/{layer}/{key}", parameter) for key, parameter in parameters]

    def _summed(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum")  # type: ignore[return-value]

    @staticmethod
    def _grid(batch: Batch, layer: str) -> Grid:
        height, width = batch.activations[layer].shape[-2:]
        return height, width
