"""An analysis of one's own, in one file: k-means of one layer's tokens, held against the masks of objects.

    PYTHONPATH=THIS_FOLDER python analyze.py "hydra.searchpath=[file://THIS_FOLDER/conf]" analysis=kmeans \
        "layers.select=[up_blocks.1.resnets.0]" steps=last
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment

from diffprobe.activations.extraction import extract
from diffprobe.analyses.analysis import Plan, RunContext
from diffprobe.analyses.inputs import Inputs
from diffprobe.analyses.objects import ObjectAnalysis, ObjectTask, check_objects
from diffprobe.errors import UserError
from diffprobe.prototypes.pooling import resize_masks
from diffprobe.ranges import Number
from diffprobe.report.report import Plot, Report, Table
from diffprobe.report.style import SINGLE_COLUMN, style
from diffprobe.report.wording import interval
from diffprobe.statistics.intervals import mean_intervals


@dataclass(frozen=True)
class KMeans:
    """Whether clusters of an image's tokens are its objects.

    Attributes:
        clusters: of each image, the background's among them.
    """

    clusters: Annotated[int, Number(2, 64)] = 4
    distributed: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> ObjectTask:
        task = check_objects(inputs)
        if len(task.inputs) != 1 or len(task.inputs[0].layers) != 1 or len(task.steps) != 1:
            raise UserError("analysis=kmeans takes one layer at one step: give layers.select=[LAYER] steps=last")
        return task

    def plan(self, task: ObjectTask) -> Plan:
        return ObjectAnalysis().plan(task)

    def run(self, task: ObjectTask, context: RunContext) -> tuple[np.ndarray, int]:
        """The tokens of all images, [images, height, width, channels], and network evaluations."""
        layer = task.inputs[0].layers[0]
        found = extract(
            task.backbone,
            task.source,
            [layer],
            task.steps,
            batch_size=task.cache.batch_size,
            dtype="float32",
            trainer=context.trainer("generate"),
            log=context.log,
        )
        tokens = found.activations.values[layer.name][0].permute(0, 2, 3, 1).float().numpy()
        return tokens, found.computed * task.source.evaluations(task.backbone, task.steps)

    def report(self, task: ObjectTask, result: tuple[np.ndarray, int], context: RunContext) -> Report:
        tokens, evaluations = result
        rows = [row for image in range(len(tokens)) for row in self._image_rows(task, image, tokens[image])]
        scores = DataFrame(rows, columns=["image", "object", "control", "iou"])
        by_image = scores.groupby(["control", "image"], sort=False)["iou"].mean().unstack("image")
        means = mean_intervals(by_image.to_numpy())
        summary = DataFrame(
            {"control": by_image.index, "mean": means.mean, "low": means.low, "high": means.high, "n": means.n}
        )
        lines = [
            f"k-means of {row.control}: mean IoU with objects {interval(row.mean, row.low, row.high)}."
            for row in summary.itertuples()
        ]
        return Report(
            title=f"Objects as clusters of tokens in {task.backbone.name}",
            findings=lines,
            topics=("analysis", "model", "objects", "layers", "steps", "seed"),
            tables={"iou": Table(scores), "summary": Table(summary)},
            figures={"iou": Plot(partial(draw, summary), "IoU of objects with the cluster that is matched to each.")},
            evaluations=evaluations,
        )

    def _image_rows(self, task: ObjectTask, image: int, tokens: np.ndarray):
        grid = tokens.shape[:2]
        masks = resize_masks(task.images.masks(image), grid, task.resizing).numpy() >= 0.5
        places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).astype(float)
        for name, values in (("tokens", tokens), ("positions", places)):
            labels = cluster(values.reshape(-1, values.shape[-1]), self.clusters, task.seed).reshape(grid)
            overlaps = matched_iou(labels, masks, self.clusters)
            for item, iou in zip(task.images.objects(image), overlaps, strict=True):
                yield task.images.names[image], item.name, name, iou


def cluster(values: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The cluster of each row of values [tokens, channels]: [tokens]."""
    return kmeans2(values, clusters, minit="++", seed=seed, missing="warn")[1]


def matched_iou(labels: np.ndarray, masks: np.ndarray, clusters: int) -> np.ndarray:
    """IoU of masks [objects, h, w] with the clusters of labels [h, w]: each cluster stands for one object at most."""
    regions = labels == np.arange(clusters)[:, None, None]
    both = (masks[:, None] & regions).sum((-2, -1))
    either = (masks[:, None] | regions).sum((-2, -1))
    table = both / np.maximum(either, 1)
    found = np.zeros(len(masks))
    objects, matched = linear_sum_assignment(table, maximize=True)
    found[objects] = table[objects, matched]
    return found


@style()
def draw(summary: DataFrame) -> Figure:
    figure = Figure(figsize=(SINGLE_COLUMN, 2), layout="constrained")
    axes = figure.subplots()
    spread = np.abs(summary[["low", "high"]].to_numpy(float).T - summary["mean"].to_numpy())
    axes.bar(summary["control"], summary["mean"], yerr=None if np.isnan(spread).any() else spread)
    axes.set_ylabel("mean IoU")
    return figure
