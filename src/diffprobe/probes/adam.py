"""Training a probe bank by gradient descent: one Adam for all probes, the best epoch of each kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from diffprobe.activations.activations import ReadableActivations, StepValues
from diffprobe.activations.module import quiet_lightning
from diffprobe.activations.store.reader import StoredRows
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.scoring import prepare_bank
from diffprobe.probes.splits import Split
from diffprobe.properties import Property
from diffprobe.properties.tokens import Grid, grid_of

IMAGES_AT_ONCE = 16


class Edges(NamedTuple):
    """What a unit step of a map costs from each token to the one on its `right` [images, h, w - 1] and to the one
    `down` from it [images, h - 1, w]: little where the image has an edge."""

    right: Tensor
    down: Tensor


def edge_weights(images: Tensor, grid: Grid) -> Edges:
    """Edges of images [images, 3, H, W] in [0, 1], for maps on `grid` (h, w).

    The penalty of an image is mean |d_x p| exp(-|d_x I|) + mean |d_y p| exp(-|d_y I|) over its pixels, with |d I| the
    mean over colour channels (Godard, Mac Aodha and Brostow 2017, "Unsupervised Monocular Depth Estimation with
    Left-Right Consistency"), and p the prediction after nearest-neighbour upsampling. p changes only at borders of
    tokens, so the sum of the weights over each border is all that is needed of the image.

    Raises UserError for images that have fewer pixels than the grid has tokens.
    """
    size = grid_of(images)
    if size[0] < grid[0] or size[1] < grid[1]:
        raise UserError(
            f"probe.smoothness: maps of {grid[0]}x{grid[1]} tokens need images at least that large, these are "
            f"{size[0]}x{size[1]}"
        )
    # Which token each pixel along an axis takes its value from
    rows, columns = (torch.arange(pixels) * tokens // pixels for pixels, tokens in zip(size, grid, strict=True))
    right = _border_weights(images, rows, columns)
    down = _border_weights(images.transpose(-1, -2), columns, rows)
    return Edges(right, down.transpose(-1, -2))


def smoothness(maps: Tensor, edges: Edges) -> Tensor:
    """The penalty of maps [..., images, h, w]: [..., images]. It is that of the upsampled maps, where H and W are
    multiples of h and w."""
    across = maps.diff(dim=-1).abs() * edges.right
    along = maps.diff(dim=-2).abs() * edges.down
    return across.sum((-2, -1)) + along.sum((-2, -1))


def _border_weights(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[images, 3, H, W] and the token of each pixel along both axes -> the `right` of `Edges`."""
    weights = (-images.float().diff(dim=-1).abs().mean(1)).exp()  # [images, H, W - 1]
    borders = columns.diff().nonzero()[:, 0]
    summed = weights.new_zeros(len(images), int(rows[-1]) + 1, len(borders))
    return summed.index_add_(1, rows, weights[..., borders]) / max(1, weights[0].numel())


class ProbeBatch(NamedTuple):
    """Images at all layers and steps."""

    rows: Tensor  # [batch], row numbers of the images
    activations: dict[tuple[str, ...], Tensor]  # by layers of one shape, [layers, steps, channels, batch, h, w]
    targets: dict[str, dict[Grid, Tensor]]  # by property and grid (h, w), standardised planes [batch, planes, h, w]
    edges: Mapping[Grid, Edges] = {}  # by grid, for the smoothness penalty
    share: float = 1.0  # weight of the mean loss: among several processes, processes x images here / images of all


class ProbeBankModule(lightning.LightningModule):
    """Trains every probe of `bank` on batches of `ProbeBatch`; in the end each has the weights of its best epoch.

    The loss is the sum over probes of the batch's mean loss and penalties, so each probe sees exactly the gradient it
    would see alone, and Adam, which works element by element, takes the steps it would take alone. DDP averages the
    gradients of several processes to that of the whole batch, by `ProbeBatch.share`. The best epoch is that with the
    lowest validation loss, without penalties (`best_loss[property]`, [layers, steps]).

    images: number of rows that `ProbeBatch.rows` can name. probe_config: learning rates and penalties.
    """

    def __init__(self, bank: ProbeBank, images: int, probe_config: ProbeConfig | None = None) -> None:
        super().__init__()
        self.bank = bank
        self.probe_config = probe_config or ProbeConfig()
        self.images = images
        self.best_loss = {name: torch.full((len(bank.layers), len(bank.steps)), torch.inf) for name in bank.properties}
        self._best = {
            key: parameter.detach().cpu().clone()
            for name in bank.properties
            for layer in bank.layers
            for key, parameter in self._named(name, layer)
        }
        self.training_losses: Any = nn.ModuleDict({name: MeanMetric() for name in bank.properties})
        self._loss_sums: dict[str, Tensor] = {}
        self._counts = torch.zeros(0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = []
        for name, item in self.bank.properties.items():
            parameters = [each for layer in self.bank.layers for each in self.bank.head_of(name, layer).parameters()]
            groups.append({"params": parameters, "lr": self.probe_config.learning_rates.get(name, item.learning_rate)})
        return torch.optim.Adam(groups, fused=True)

    def outputs(self, batch: ProbeBatch) -> Iterator[tuple[str, Grid, Sequence[str], Tensor]]:
        """Layers of one shape together: (property, resolution, layers, [layers, steps, batch, outputs, h, w]) each."""
        for layers, values in batch.activations.items():
            for name, part in self.bank.separate(self.bank.outputs_of_layers(layers, values)).items():
                yield name, grid_of(values), layers, part

    def training_step(self, batch: ProbeBatch, *_: Any) -> Tensor:
        terms, losses = [], {name: [] for name in self.bank.properties}
        for name, grid, _layers, outputs in self.outputs(batch):
            item = self.bank.properties[name]
            loss = item.loss(outputs, batch.targets[name][grid])
            losses[name].append(loss.detach().flatten())
            if self.probe_config.smoothness:
                maps = item.differentiable(outputs).movedim(-3, 0)
                loss = loss + self.probe_config.smoothness * smoothness(maps, batch.edges[grid]).sum(0)
            terms.append(batch.share * loss.mean(-1).sum())
        if self.probe_config.l1:
            heads = (self.bank.head_of(name, layer) for name in self.bank.properties for layer in self.bank.layers)
            terms += [self.probe_config.l1 * weight.abs().sum() for head in heads for weight in head.maps]
        if batch.share:  # a process without images of a batch looks at one that does not count
            for name, values in losses.items():
                self.training_losses[name].update(torch.cat(values))
        return torch.stack(terms).sum()

    def on_train_epoch_end(self) -> None:
        """Logs the loss without penalties, averaged over probes and over the images of all processes."""
        for name, metric in self.training_losses.items():
            self.log(f"training_loss/{name}", metric)

    def on_validation_epoch_start(self) -> None:
        shape = (len(self.bank.layers), len(self.bank.steps), self.images)
        self._loss_sums = {name: torch.zeros(shape, device=self.device) for name in self.bank.properties}
        self._counts = torch.zeros(self.images, device=self.device)

    def validation_step(self, batch: ProbeBatch, *_: Any) -> None:
        self._counts.index_add_(0, batch.rows, torch.ones(len(batch.rows), device=self.device))
        for name, grid, layers, outputs in self.outputs(batch):
            loss = self.bank.properties[name].loss(outputs, batch.targets[name][grid])
            for layer, values in zip(layers, loss, strict=True):
                self._loss_sums[name][self.bank.layers.index(layer)].index_add_(1, batch.rows, values.float())

    @torch.no_grad()
    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        # Sums and counts per image: an image that several processes look at still weighs as one.
        counts = self._summed(self._counts)
        used = counts > 0
        means = {
            name: (self._summed(sums)[..., used] / counts[used]).mean(-1) for name, sums in self._loss_sums.items()
        }
        self.log("validation_loss", torch.stack([mean.mean() for mean in means.values()]).mean(), sync_dist=True)
        for name, mean in means.items():
            self.log(f"validation_loss/{name}", mean.mean(), sync_dist=True)
            better = mean.cpu() < self.best_loss[name]
            self.best_loss[name] = torch.where(better, mean.cpu(), self.best_loss[name])
            for number, layer in enumerate(self.bank.layers):
                for key, parameter in self._named(name, layer):
                    self._best[key][better[number]] = parameter.detach().cpu()[better[number]]

    @torch.no_grad()
    def on_train_end(self) -> None:
        """Puts each probe's best weights into the bank; a probe that was never validated keeps its last ones."""
        for name, losses in self.best_loss.items():
            for number, layer in enumerate(self.bank.layers):
                chosen = losses[number].isfinite()
                for key, parameter in self._named(name, layer):
                    parameter[chosen.to(parameter.device)] = self._best[key][chosen].to(parameter)

    def _named(self, name: str, layer: str) -> list[tuple[str, Tensor]]:
        parameters = self.bank.head_of(name, layer).named_parameters()
        return [(f"{name}/{layer}/{key}", parameter) for key, parameter in parameters]

    def _summed(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum")  # type: ignore[return-value]


@dataclass(eq=False)
class Collate:
    """Row numbers -> `ProbeBatch`.

    dtype: of a batch's activations; None means the one they are stored in.
    """

    values: Mapping[str, StepValues]
    targets: Mapping[str, Mapping[Grid, Tensor]]
    edges: Mapping[Grid, Edges] = field(default_factory=dict)
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        shapes = {layer: tuple(values.shape[2:]) for layer, values in self.values.items()}
        self.groups = [tuple(group) for _, group in groupby(sorted(shapes, key=shapes.__getitem__), shapes.__getitem__)]

    def __call__(self, rows: Sequence[int]) -> ProbeBatch:
        index = torch.tensor(rows)
        return ProbeBatch(
            index,
            {layers: self._gathered(layers, rows) for layers in self.groups},
            {name: {grid: maps[index] for grid, maps in grids.items()} for name, grids in self.targets.items()},
            {grid: Edges(*(weights[index] for weights in edges)) for grid, edges in self.edges.items()},
        )

    def _gathered(self, layers: Sequence[str], rows: Sequence[int]) -> Tensor:
        """Activations of some images, [layers, steps, channels, batch, h, w]."""
        first = self.values[layers[0]]
        steps, _, channels, height, width = first.shape
        gathered = torch.empty(len(layers), steps, channels, len(rows), height, width, dtype=self.dtype or first.dtype)
        for layer, own in zip(layers, gathered, strict=True):
            values = self.values[layer]
            # Of a tensor, image by image, without a copy in between
            parts = [values[:, row] for row in rows] if isinstance(values, Tensor) else values[:, rows].unbind(1)
            for place, part in enumerate(parts):
                own[:, :, place] = part
        return gathered


@dataclass(eq=False)
class SharedBatches:
    """This process's share of every batch of row numbers that `rows` yields.

    No DataLoader, so that Lightning does not distribute what is distributed already. All processes are given equally
    many batches; one that there is no image for looks at the batch's first, which then weighs nothing.
    """

    rows: DataLoader
    collate: Collate
    trainer: lightning.Trainer

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ProbeBatch]:
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        for rows in self.rows:
            own = rows[rank::processes]
            yield self.collate(own or rows[:1])._replace(share=processes * len(own) / len(rows))


def train_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str | Property],
    probe_config: ProbeConfig | None = None,
    *,
    seed: int = 0,
    trainer: lightning.Trainer | None = None,
    images: Tensor | StoredRows | None = None,
) -> ProbeBank:
    """Trains all probes (layer x step x property) together on the split's training images.

    Several devices share each batch of `batch_size` images, so the probes are the same however many there are.

    Args:
        targets: label maps [images, H, W] by property, in the row order of `activations.names`.
        probe_config: default: the papers'.
        trainer: brings its own number of epochs and validation interval; default: a silent one for one device, which
            writes nothing.
        images: [images, 3, H, W] in [0, 1], in the same order, for the smoothness penalty alone.

    Raises UserError for unknown properties, label maps that do not fit the activations, and a smoothness penalty
    without images or with images that do not fit.
    """
    config = probe_config or ProbeConfig()
    bank, tokens = prepare_bank(activations, targets, split, properties, config, seed)
    edges = _edges(images, activations) if config.smoothness else {}
    values = {layer: activations.values[layer] for layer in bank.layers}
    fitter = trainer or lightning.Trainer(
        max_epochs=config.epochs,
        check_val_every_n_epoch=min(config.validate_every, config.epochs),
        devices=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    order = torch.Generator().manual_seed(seed)
    training: Any = DataLoader(split.train, config.batch_size, shuffle=True, generator=order, collate_fn=list)  # type: ignore[arg-type]
    validation: Any = DataLoader(split.validation, fitter.world_size * config.batch_size, collate_fn=list)  # type: ignore[arg-type]
    # A CPU converts while it gathers; a GPU is sent the fewer bytes of what is stored
    dtype = torch.float32 if fitter.strategy.root_device.type == "cpu" else None
    with quiet_lightning(trainer is None):
        fitter.fit(
            ProbeBankModule(bank, len(activations.names), config),
            SharedBatches(training, Collate(values, tokens, edges, dtype), fitter),
            SharedBatches(validation, Collate(values, tokens, dtype=dtype), fitter),
        )
    return bank.cpu().eval().requires_grad_(False)


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
