"""How many training images a probe needs: the same bank trained on more and more of them, judged on the same test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.probes.position import position_scores
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.scoring import Threshold, choose_thresholds, score_bank
from diffprobe.probes.splits import Split
from diffprobe.probes.summaries import summarise
from diffprobe.probes.tables import Score, Summary
from diffprobe.probes.training import train_bank
from diffprobe.tables import read_rows, write_rows

if TYPE_CHECKING:
    from diffprobe.features.reading import ReadableActivations
    from diffprobe.probes.bank import ProbeBank


@dataclass(frozen=True, slots=True)
class LearningPoint(Summary):
    """A row of learning_curve.csv: a summary, and how many training `images` its probe had."""

    images: int


@dataclass(frozen=True)
class LearningCurve:
    """Scores of every image by number of training images, and what they come to."""

    scores: dict[int, list[Score]]
    points: list[LearningPoint]


class Fit(Protocol):
    """What trains a bank on the training images of a split, such as `train_bank`."""

    def __call__(
        self,
        activations: ReadableActivations,
        targets: Mapping[str, Tensor],
        split: Split,
        properties: Sequence[str],
        recipe: Recipe,
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
    recipe: Recipe | None = None,
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
    recipe = recipe or Recipe()
    scores: dict[int, list[Score]] = {}
    points: list[LearningPoint] = []
    for size, part in nested_splits(split, sizes, seed).items():
        bank = fit(activations, targets, part, properties, recipe, seed=seed)
        bank.thresholds = choose_thresholds(bank, activations, targets, part, threshold)
        found = score_bank(bank, activations, targets, part, model=model, probe=recipe.name)
        found += position_scores(
            targets,
            part,
            properties,
            names=activations.names,
            model=model,
            threshold=threshold,
            probe=recipe.name,
        )
        scores[size] = found
        points += [LearningPoint(**asdict(row), images=size) for row in summarise(found)]
    return LearningCurve(scores, points)


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


def write_learning_curve(path: str | Path, points: Sequence[LearningPoint]) -> None:
    """Write learning_curve.csv: the columns of summary.csv, and `images`."""
    write_rows(path, LearningPoint, points)


def read_learning_curve(path: str | Path) -> list[LearningPoint]:
    """Read learning_curve.csv. Raises UserError as `tables.read_rows`."""
    return read_rows(path, LearningPoint)
