"""Probes that are trained, selected and scored while images pass by, each of them once: training images first, then
validation images, then test images. Nothing is kept of an image but its scores; those of validation images by every
candidate wait in a temporary file until one is chosen."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffprobe.probes.ridge import Moments, PixelSums, Reduce
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.scoring import Threshold, candidate_thresholds
from diffprobe.properties import Property, Standardisation, as_properties
from diffprobe.properties.binary import areas_at_thresholds
from diffprobe.properties.tokens import Grid, grid_of

POSITION = "position"  # the layer and the control
Gather = Callable[[list], list]
Targets = dict[str, Tensor]


class LabeledBatch(NamedTuple):
    """Activations {layer: [steps, images, C, h, w]} and targets {property: [images, H, W]} of images."""

    values: dict[str, Tensor]
    targets: Targets
    names: Sequence[str]


class PositionLearner:
    """Sums the planes of the training labels at every pixel, while images pass by, for `OnePass` on the one layer
    'position'."""

    def __init__(self, properties: Sequence[str | Property]) -> None:
        self.pixels = PixelSums(properties)
        self.sums: dict[str, Tensor] = {}  # [planes, H, W]
        self.images = torch.zeros((), dtype=torch.float64)

    def add(self, values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        self.pixels.add(targets)
        for name, item in self.pixels.properties.items():
            planes = item.planes(targets[name], grid_of(targets[name])).double().sum(0)
            self.sums[name] = self.sums.get(name, 0) + planes
        maps = next(iter(targets.values()))
        self.images = self.images.to(maps.device) + len(maps)

    def merge(self, reduce: Reduce) -> None:
        self.pixels.merge(reduce)
        self.sums = {name: reduce(total) for name, total in self.sums.items()}
        self.images = reduce(self.images)

    def solve(self) -> PositionMap:
        standardisations = self.pixels.standardisations()
        maps = {
            name: item.constant(self.sums[name] / self.images, standardisations[name]).float()
            for name, item in self.pixels.properties.items()
        }
        return PositionMap(maps, standardisations)


class PositionMap:
    """What suits the training labels best at every pixel, without looking at an image: their mean, standardised, a
    probability, the most frequent class, or the direction of the mean vector. {property: [H, W] or [channels, H, W]}

    It minimises squared error and cross entropy on the training images among all functions of position, so a linear
    probe on the coordinates (x, y) could only be weaker.
    """

    def __init__(self, maps: dict[str, Tensor], standardisations: dict[str, Standardisation]) -> None:
        self.maps, self.standardisations = maps, standardisations

    def outputs(self, layer: str, activation: Tensor) -> int:
        """How many images an activation [1, batch, ...] is of."""
        return activation.shape[1]

    def errors(self, outputs: int, targets: Mapping[str, Tensor]) -> Tensor:
        """Zeros [1, properties, 1, batch]: there is one candidate, and nothing to choose."""
        return next(iter(self.maps.values())).new_zeros(1, len(self.maps), 1, outputs)

    def decode(self, name: str, outputs: int) -> Tensor:
        """[1, 1, batch, H, W], of vectors [1, 1, batch, channels, H, W]"""
        maps = self.maps[name]
        return maps.expand(1, 1, outputs, *maps.shape)

    def take(self, chosen: object) -> PositionMap:
        return self


class OnePass:
    """The probes of one input (the network, or a control) on all its layers and steps.

    For each part of the split in turn, `take` its batches, then `conclude` it. Among several processes each takes its
    own images; `reduce` sums a tensor and `gather` joins lists over all of them.

    Args:
        keys: model, probe and control, as in tables.
        steps: the timestep of each step that is probed.
    """

    def __init__(
        self,
        learner: Moments | PositionLearner,
        properties: Sequence[str | Property],
        threshold: Threshold,
        keys: tuple[str, str, str],
        steps: Mapping[int, float | None],
    ) -> None:
        self.learner, self.keys, self.steps = learner, keys, dict(steps)
        self.properties = as_properties(properties)
        self.cuts = candidate_thresholds(threshold)
        self.thresholds: dict[str, dict[str, list[float]]] = {}  # of binary properties, by layer, one per step
        self._images: dict[str, list[str]] = {"validation": [], "test": []}
        # Values [steps, images of a batch] by part, layer, property and metric
        self._values: dict[tuple[str, str, str, str], list[np.ndarray]] = {}
        self._errors: dict[str, Tensor] = {}  # [candidates, properties, steps], summed over validation images
        # Of binary properties by layer and property [thresholds, candidates, steps], summed over validation images
        self._headlines: dict[tuple[str, str], Tensor] = {}
        # Of each validation batch, float32 by layer, property and metric, see `_candidate_scores`: forty times as
        # much as the scores of the chosen candidates
        self._validated = TemporaryFile()  # noqa: SIM115 (closed when candidates are chosen)

    @torch.no_grad()
    def take(self, part: str, batch: LabeledBatch) -> dict[str, dict[str, Tensor]]:
        """Trains on images of a part, or scores them.

        Returns the predictions of the chosen probes for test images, as probabilities or in label units: {property:
        {layer: [steps, batch, h, w]}}.
        """
        if part == "test":
            return self._test(batch)
        if part == "validation":
            self._validate(batch)
        else:
            self.learner.add(batch.values, batch.targets)
        return {}

    def conclude(self, part: str, reduce: Reduce, gather: Gather) -> None:
        """After the last image of a part. Raises UserError for training labels that do not vary."""
        if part == "train":
            self.learner.merge(reduce)
            self.candidates: Any = self.learner.solve()  # a RidgePath or a PositionMap
            return
        if part == "validation":
            self._choose(reduce)
        own = {key: values for key, values in self._values.items() if key[0] == part}
        parts = gather([(self._images[part], own)])
        self._images[part] = [image for images, _ in parts for image in images]
        self._values |= {key: [batch for _, values in parts for batch in values[key]] for key in own}

    def blocks(self, names: Sequence[str]) -> list[ScoreBlock]:
        """The scores of validation and of test images, whatever order they came in, in the order of `names`."""
        model, probe, control = self.keys
        place = {name: number for number, name in enumerate(names)}
        order = {part: np.argsort([place[image] for image in images]) for part, images in self._images.items()}
        images = {part: [own[at] for at in order[part]] for part, own in self._images.items()}
        return [
            ScoreBlock(
                *(model, layer, name, probe, control, part, metric),
                list(self.steps.items()),
                images[part],
                np.concatenate(batches, 1)[:, order[part]],
            )
            for (part, layer, name, metric), batches in self._values.items()
        ]

    def _validate(self, batch: LabeledBatch) -> None:
        """Scores every candidate, cut at every threshold."""
        self._images["validation"] += batch.names
        prepared, found = self._prepared(batch), {}
        for layer, activation in batch.values.items():
            outputs = self.candidates.outputs(layer, activation)
            errors = self.candidates.errors(outputs, batch.targets).double().sum(-1)
            self._errors[layer] = self._errors.get(layer, 0) + errors
            for name, item in self.properties.items():
                maps = self.candidates.decode(name, outputs)
                scores = self._candidate_scores(item, maps, prepared[name][grid_of(activation)])
                if item.binary:
                    self._headlines[layer, name] = self._headlines.get((layer, name), 0) + scores[item.headline].sum(-1)
                found[layer, name] = {metric: values.float().cpu().numpy() for metric, values in scores.items()}
        pickle.dump(found, self._validated, protocol=pickle.HIGHEST_PROTOCOL)

    def _choose(self, reduce: Reduce) -> None:
        """Takes each probe's candidate with the lowest validation error, then the threshold with the best Dice."""
        chosen = {layer: reduce(errors).argmin(0) for layer, errors in self._errors.items()}
        self.candidates = self.candidates.take(chosen)
        steps = np.arange(len(self.steps))
        places: dict[tuple[str, str], tuple[np.ndarray, ...]] = {}  # of the chosen among all scores, one per step
        for layer, numbers in chosen.items():
            for at, (name, item) in zip(numbers.cpu().numpy(), self.properties.items(), strict=True):
                places[layer, name] = (at, steps)
                if item.binary:
                    best = reduce(self._headlines[layer, name]).cpu().numpy()[:, at, steps].argmax(0)
                    self.thresholds.setdefault(name, {})[layer] = [self.cuts[cut] for cut in best.tolist()]
                    places[layer, name] = (best, at, steps)
        size = self._validated.tell()
        self._validated.seek(0)
        while self._validated.tell() < size:
            for key, scores in pickle.load(self._validated).items():
                for metric, values in scores.items():
                    self._values.setdefault(("validation", *key, metric), []).append(values[places[key]].astype(float))
        self._validated.close()

    def _test(self, batch: LabeledBatch) -> dict[str, dict[str, Tensor]]:
        """Scores the chosen probes, and returns their predictions."""
        self._images["test"] += batch.names
        prepared = self._prepared(batch)
        predictions: dict[str, dict[str, Tensor]] = {name: {} for name in self.properties}
        for layer, activation in batch.values.items():
            outputs = self.candidates.outputs(layer, activation)
            for name, item in self.properties.items():
                maps = self.candidates.decode(name, outputs)[0]
                cuts = self.thresholds[name][layer] if item.binary else []
                self._add_scores("test", layer, name, item.scores(maps, prepared[name][grid_of(activation)], cuts))
                predictions[name][layer] = item.in_label_units(maps, self.candidates.standardisations[name])
        return predictions

    def _prepared(self, batch: LabeledBatch) -> dict[str, dict[Grid, Any]]:
        grids = {grid_of(activation) for activation in batch.values.values()}
        standardisations = self.candidates.standardisations
        return {
            name: item.prepared(batch.targets[name], standardisations[name], grids)
            for name, item in self.properties.items()
        }

    def _candidate_scores(self, item: Property, maps: Tensor, prepared: Any) -> Mapping[str, Tensor]:
        """Of predictions [candidates, steps, batch, ...]: [candidates, steps, batch]; of masks [thresholds, ...]."""
        if not item.binary:
            return item.scores(maps, prepared)
        return areas_at_thresholds(maps, prepared, self.cuts).scores()

    def _add_scores(self, part: str, layer: str, name: str, scores: Mapping[str, Tensor]) -> None:
        for metric, values in scores.items():
            self._values.setdefault((part, layer, name, metric), []).append(values.double().cpu().numpy())
