"""The learning curve that `report.learning_curve` asks for: scores over the number of training images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.probes.controls import position_scores
from diffprobe.probes.score_table import concatenate, score_table
from diffprobe.probes.scoring import choose_thresholds, score_bank
from diffprobe.probes.splits import Split
from diffprobe.probes.summaries import SUMMARY_COLUMNS, summarise

if TYPE_CHECKING:
    from diffprobe.activations.activations import ReadableActivations
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.probes.study.study import ProbingConfig, ProbingResults

COLUMNS = SUMMARY_COLUMNS | {"images": pa.int64()}  # of learning_curve.csv


def check_sizes(sizes: Sequence[int], store: str, split: Split) -> None:
    """Raises UserError for numbers of training images that there are not, or where no activations are kept."""
    if sizes and store == "none":
        raise UserError(
            "report.learning_curve trains again, which features=none cannot: choose features=memory or disk"
        )
    available = len(split.train)
    if not all(1 <= size <= available for size in sizes):
        raise UserError(
            f"learning curve over {list(sizes)} training images: there are {available}, so give numbers from 1 to "
            f"{available}, or take more images"
        )


def learning_points(
    probing_config: ProbingConfig, results: ProbingResults, best: Collection[str], sizes: Sequence[int]
) -> pd.DataFrame | None:
    """The curve of the `best` layers' probes at the last step; None where no curve is asked for."""
    from diffprobe.probes.study.study import fit_bank

    if not sizes or results.extraction is None or results.targets is None:
        return None
    narrow = replace(
        probing_config,
        layers=[layer for layer in probing_config.layers if layer.name in best],
        groups=[group for group in probing_config.groups if group.name in best],
    )
    needed = [layer.name for layer in narrow.recorded]
    return learning_curve(
        narrow.read(results.extraction.activations.select(needed, probing_config.steps[-1:])),
        results.targets,
        results.split,
        narrow,
        sizes,
        model=results.summaries["model"].iloc[0],
        fit=partial(fit_bank, images=results.extraction.extras["image"]),
    )


def learning_curve(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    probing_config: ProbingConfig,
    sizes: Sequence[int],
    *,
    model: str,
    fit: Callable[..., ProbeBank],
) -> pd.DataFrame:
    """Trains the bank on `sizes` training images each, and pixel position alone too, and scores them all alike.

    The intervals are over test images: they do not hold how much another draw of training images would change.

    Args:
        targets: label maps [images, H, W] by property.
        fit: trains a bank, called as `train_bank`.

    Returns:
        The columns of `summarise`, and `images`, the number of training images.
    """
    properties, probe_config, seed = probing_config.properties, probing_config.probe_config, probing_config.seed
    options = {"model": model, "probe": probe_config.name}
    threshold, points = probing_config.threshold, []
    for size, part in nested_splits(split, sizes, seed).items():
        bank = fit(activations, targets, part, properties, probe_config, seed=seed)
        bank.thresholds = choose_thresholds(bank, activations, targets, part, threshold)
        blocks = score_bank(bank, activations, targets, part, **options)
        blocks += position_scores(targets, part, properties, names=activations.names, threshold=threshold, **options)
        points.append(summarise(score_table(blocks)).assign(images=size))
    return concatenate(points, COLUMNS)


def nested_splits(split: Split, sizes: Sequence[int], seed: int = 0) -> dict[int, Split]:
    """The split with fewer training images, by their number: drawn at random, each subset within the next larger."""
    order = torch.randperm(len(split.train), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [split.train[place] for place in order]
    return {size: Split(sorted(rows[:size]), split.validation, split.test) for size in sorted(sizes)}
