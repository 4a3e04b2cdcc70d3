"""Probe transfer: every probe at every other step of its layer, which says whether one direction carries a property
over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffprobe.files import Step
from diffprobe.probes.one_pass import POSITION, LabeledBatch
from diffprobe.probes.score_table import over_steps, select
from diffprobe.properties.metrics import Metric, metric_named
from diffprobe.properties.tokens import grid_of
from diffprobe.statistics.differences import PairedDifferences, paired_differences
from diffprobe.statistics.intervals import mean_intervals, skewed_t

if TYPE_CHECKING:
    from diffprobe.probes.bank import ProbeBank


@dataclass(frozen=True, slots=True)
class Transfer:
    """transfer.csv: the probe that was trained at `step`, on the activations that its layer has at `tested_step`.

    `mean` is its score over `n` test images, and `native` that of the probe trained at the tested step itself, on the
    same activations. `share` is the one in shares of the other: of errors the native one in shares of this. It is empty
    where the native score is not shown to be above 0. `floor` is the score of the map that suits the training labels
    best without seeing an image (pixel position), and `above_floor` the mean difference to it on the same images.
    """

    model: str
    layer: str
    property: str
    probe: str
    metric: str
    step: Step
    tested_step: Step
    mean: float | None
    low: float | None
    high: float | None
    native: float | None
    share: float | None
    share_low: float | None
    share_high: float | None
    floor: float | None
    above_floor: float | None
    above_floor_low: float | None
    above_floor_high: float | None
    n: int


@dataclass(frozen=True)
class TransferScores:
    """The headline scores of the probes of one property on one layer.

    Attributes:
        values: [trained steps, tested steps, images]; NaN where the metric is undefined.
        floor: of pixel position, [images].
    """

    layer: str
    property: str
    metric: Metric
    steps: Sequence[int]
    values: np.ndarray
    floor: np.ndarray

    def against_floor(self, cells: Sequence[tuple[int, int]], seed: int = 0) -> PairedDifferences | None:
        """How far probes trained at one step and tested at another, by their places, are above pixel position on the
        images where both have a score; None where no image is."""
        rows, columns = np.array(cells).T
        found = self.values[rows, columns] - self.floor
        defined = ~np.isnan(found).any(0)
        return paired_differences(found[:, defined], seed=seed) if defined.any() else None


class TransferCollector:
    """Scores of every probe at every step of its layer, while test images pass by."""

    def __init__(self) -> None:
        self.images: list[str] = []
        self._values: dict[tuple[str, str], list[np.ndarray]] = {}  # by layer and property

    @torch.no_grad()
    def add(self, bank: ProbeBank, batch: LabeledBatch) -> None:
        self.images += batch.names
        items, grids = bank.properties, {grid_of(activation) for activation in batch.values.values()}
        targets = {name: batch.targets[name].cpu() for name in items}
        prepared = {name: item.prepared(targets[name], bank.standardisations[name], grids)
                    for name, item in items.items()}  # fmt: skip
        for layer, activation in batch.values.items():
            at = {name: every[grid_of(activation)] for name, every in prepared.items()}
            for name, scores in transferred(bank, layer, activation.cpu(), at).items():
                if items[name].binary:  # as `skip_flat` leaves them
                    scores[..., items[name].one_valued(targets[name]).numpy()] = np.nan
                self._values.setdefault((layer, name), []).append(scores)

    def scores(self, bank: ProbeBank, scores: pd.DataFrame) -> list[TransferScores]:
        """By property and layer; `scores`, of all probes and of the position control, give the floor."""
        found = []
        for name, item in bank.properties.items():
            metric = metric_named(item.headline)
            rows = select(scores, layer=POSITION, control=POSITION, split="test", property=name, metric=metric.name)
            _, images, values = over_steps(rows)
            floor = dict(zip(images, values[0], strict=True))
            found += [
                TransferScores(
                    layer,
                    name,
                    metric,
                    bank.steps,
                    np.concatenate(self._values[layer, name], -1),
                    np.array([floor[image] for image in self.images]),
                )
                for layer in bank.layers
            ]
        return found


def transferred(bank: ProbeBank, layer: str, activation: Tensor, prepared: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Headline scores of the probes of a layer on its activation [steps, images, C, h, w] at every step, by property:
    [trained steps, tested steps, images].

    prepared: of `Property.prepared`, on the grid of the activation. Thresholds are those of the probe, as trained.
    """
    steps = np.arange(len(bank.steps))
    shape = (len(steps), *activation.shape[:2])
    found = {name: np.empty(shape) for name in bank.properties}
    for shift in steps.tolist():
        for name, outputs in bank(layer, activation.roll(-shift, 0)).items():  # each probe gets the step `shift` later
            item = bank.properties[name]
            maps = item.decode(outputs, bank.standardisations[name])
            thresholds = bank.thresholds[name][layer] if item.binary else []
            scores = item.scores(maps, prepared[name], thresholds)[item.headline]
            found[name][steps, (steps + shift) % len(steps)] = scores.double().numpy()
    return found


def transfer_rows(model: str, probe: str, scores: Sequence[TransferScores]) -> list[Transfer]:
    """Every probe at every step, with intervals over images."""
    return [row for one in scores for row in _rows(model, probe, one)]


def _rows(model: str, probe: str, one: TransferScores) -> list[Transfer]:
    count, images = len(one.steps), one.values.shape[-1]
    values = one.values.reshape(-1, images)
    native = np.tile(np.diagonal(one.values).T, (count, 1))  # of the tested step of each row
    means, floor = mean_intervals(values), mean_intervals(one.floor[None])
    differences = values - one.floor
    with np.errstate(invalid="ignore"):
        above = np.nansum(differences, 1) / (~np.isnan(differences)).sum(1)
    share = shares(values, native, one.metric)
    low, high = np.maximum(means.low, one.metric.low), np.minimum(means.high, one.metric.high)
    columns = (
        *(means.mean, low, high, mean_intervals(native).mean, *share),
        *(np.repeat(floor.mean, len(values)), above, *skewed_t(above, differences - above[:, None])),
    )
    found = []
    for place, cells in enumerate(zip(*columns, strict=True)):
        trained, tested = (one.steps[at] for at in divmod(place, count))
        numbers = [None if np.isnan(cell) else float(cell) for cell in cells]
        keys = (model, one.layer, one.property, probe, one.metric.name, trained, tested)
        row: tuple = (*keys, *numbers, int(means.n[place]))
        found.append(Transfer(*row))
    return found


def shares(values: np.ndarray, native: np.ndarray, metric: Metric) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean scores in shares of the native ones on the same images, with 95 % intervals: [keys] each, of [keys, images].

    The ratio of means, each image left out in turn. NaN where the native score is not shown to be above 0.
    """
    there = ~np.isnan(values) & ~np.isnan(native)
    counted, others = (np.where(there, each, 0.0) for each in (values, native))
    top, bottom = (counted, others) if metric.higher_is_better else (others, counted)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = top.sum(1) / bottom.sum(1)
        without = (top.sum(1)[:, None] - top) / (bottom.sum(1)[:, None] - bottom)
        without = np.where(there, without, np.nan)
        n = there.sum(1)
        influences = (n - 1)[:, None] * ((np.nansum(without, 1) / n)[:, None] - without)
        low, high = skewed_t(share, influences)
    known = mean_intervals(np.where(there, native, np.nan))
    shown = np.where(np.isnan(known.low), known.mean, known.low) > 0
    return tuple(np.where(shown, each, np.nan) for each in (share, low, high))  # type: ignore[return-value]
