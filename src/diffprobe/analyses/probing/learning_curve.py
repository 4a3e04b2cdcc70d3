"""How many training images a probe needs: the same bank trained on more and more of them, judged on the same test.

The learning curve that `report.learning_curve` asks for: scores over the number of training images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.controls import position_scores
from diffprobe.probes.score_table import concatenate, read_csv, score_table
from diffprobe.probes.scoring import Threshold, choose_thresholds, score_bank
from diffprobe.probes.splits import Split
from diffprobe.probes.summaries import SUMMARY_COLUMNS, summarise

if TYPE_CHECKING:
    from diffprobe.activations.activations import ReadableActivations
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.probes.splits import Split
    from diffprobe.probes.study.question import ProbingConfig, ProbingResults

COLUMNS = SUMMARY_COLUMNS | {"images": pa.int64()}


@dataclass(frozen=True)
class LearningCurve:
    """Scores of every image by number of training images; as `points` their means, with that number as `images`."""

    scores: dict[int, pd.DataFrame]
    points: pd.DataFrame


class Fit(Protocol):
    """What trains a bank on the training images of a split, such as `train_bank`."""

    def __call__(
        self,
        activations: ReadableActivations,
        targets: Mapping[str, Tensor],
        split: Split,
        properties: Sequence[str],
        probe_config: ProbeConfig,
        *,
        seed: int,
    ) -> ProbeBank: ...


def learning_curve(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    sizes: Sequence[int],
    *,
    model: str,
    probe_config: ProbeConfig | None = None,
    fit: Fit = train_bank,
    threshold: Threshold = "validation",
    seed: int = 0,
) -> LearningCurve:
    """Trains the bank on `sizes` training images each, and pixel position alone too, and scores them all alike.

    A smaller subset is part of every larger one, all are drawn by `seed`, and validation and test images stay the
    same. The intervals are over test images: they do not hold how much another draw of training images would change.

    Args:
        activations: of the layers and steps that matter; all are trained at every size.
        targets: label maps [images, H, W] by property.
        sizes: numbers of training images, of the split's.

    Raises:
        UserError: a size that the split has not (see `check_sizes`), or what `fit` and `score_bank` raise.
    """
    probe_config = probe_config or ProbeConfig()
    scores: dict[int, pd.DataFrame] = {}
    points: list[pd.DataFrame] = []
    for size, part in nested_splits(split, sizes, seed).items():
        bank = fit(activations, targets, part, properties, probe_config, seed=seed)
        bank.thresholds = choose_thresholds(bank, activations, targets, part, threshold)
        found = score_bank(bank, activations, targets, part, model=model, probe=probe_config.name)
        found += position_scores(
            targets,
            part,
            properties,
            names=activations.names,
            model=model,
            threshold=threshold,
            probe=probe_config.name,
        )
        scores[size] = score_table(found)
        points.append(summarise(scores[size]).assign(images=size))
    return LearningCurve(scores, concatenate(points, COLUMNS))


def check_sizes(sizes: Sequence[int], available: int) -> list[int]:
    """The sizes, smallest first. Raises UserError for one that is not between 1 and the `available` training images."""
    wrong = [
        size for size in sizes if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= available
    ]
    if wrong or not sizes:
        raise UserError(
            f"learning curve over {list(sizes)} training images: there are {available}, so give numbers from 1 to "
            f"{available}, or take more images"
        )
    return sorted(set(sizes))


def nested_splits(split: Split, sizes: Sequence[int], seed: int = 0) -> dict[int, Split]:
    """The split with fewer training images, by their number: drawn at random, each subset within the next larger.

    Raises UserError as `check_sizes`.
    """
    order = torch.randperm(len(split.train), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [split.train[place] for place in order]
    return {
        size: Split(sorted(rows[:size]), split.validation, split.test) for size in check_sizes(sizes, len(split.train))
    }


def read_learning_curve(path: Path) -> pd.DataFrame:
    """Reads learning_curve.csv. Raises UserError as `read_csv`."""
    return read_csv(path, COLUMNS)


def check_curve(sizes: Sequence[int], store: str, split: Split) -> None:
    """Raises UserError for numbers of training images that there are not, or where no activations are kept."""
    if sizes and store == "none":
        raise UserError(
            "report.learning_curve trains again, which features=none cannot: choose features=memory or disk"
        )
    if sizes:
        check_sizes(sizes, len(split.train))


def learning_points(
    probing_config: ProbingConfig, findings: ProbingResults, best: Collection[str], sizes: Sequence[int]
) -> pd.DataFrame | None:
    """Trains the `best` layers' probes of the last step on ever more images; None where no curve is asked for."""
    from diffprobe.probes.study.question import fit_bank

    if not sizes or findings.extraction is None or findings.targets is None:
        return None
    narrow = replace(
        probing_config,
        layers=[layer for layer in probing_config.layers if layer.name in best],
        groups=[group for group in probing_config.groups if group.name in best],
    )
    needed = [layer.name for layer in narrow.recorded]
    curve = learning_curve(
        narrow.read(findings.extraction.activations.select(needed, probing_config.steps[-1:])),
        findings.targets,
        findings.split,
        probing_config.properties,
        sizes,
        model=findings.summaries["model"].iloc[0],
        probe_config=probing_config.probe_config,
        fit=partial(fit_bank, images=findings.extraction.extras["image"]),
        threshold=probing_config.threshold,
        seed=probing_config.seed,
    )
    return curve.points
