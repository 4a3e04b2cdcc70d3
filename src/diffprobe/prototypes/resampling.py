"""Jackknife intervals of the four sets over images, and permutation tests that keep images together.

Pairs share objects, and objects share images. So whole images are left out, with all pairs that touch them (Arvesen
1969, Ann. Math. Stat. 40:2076; Snijders and Borgatti 1999, Connections 22(2), for pairs), and labels permuted by image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from diffprobe.prototypes.sets import PAIRS, SETS, DistanceMatrix
from diffprobe.ranges import Number
from diffprobe.statistics.intervals import Interval, jackknife_interval, jackknife_p, left_out_parts

BINS = 1024
_SAMPLED_ROWS = 512
_COLUMNS_AT_ONCE = 1024  # permutations times classes in one matrix product
_ROWS_AT_ONCE = 1024
_SAMPLED_VALUES = 2**14
_RANKED_AT_ONCE = 2**21
_PAIRS_AT_ONCE = 2**21
# Permutations whose AUC is this near count as equal to the observed one. It is more than float32 sums can be off, and
# it errs towards a larger p.
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Resampling:
    """At most so many parts in which images are left out for intervals, permutations of labels for p, and the seed."""

    resamples: Annotated[int, Number(19, 100_000)] = 1000  # the fewest permutations with which p can be 0.05
    permutations: Annotated[int, Number(19, 100_000)] = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SetIntervals:
    """Intervals over images: of the mean of each set, and of each pair of sets (first, second).

    Attributes:
        differences: of the means, second - first.
        aucs: P(first < second) + P(equal) / 2.
        order_holds: whether mean scsi < scdi < dcsi < dcdi; None where a set is empty.
        order_p: p of the hypothesis that it does not in truth, the largest of the one-sided p of the three steps
            (Berger 1982). None where a set is empty or has no interval.
    """

    means: dict[str, Interval]
    differences: dict[tuple[str, str], Interval]
    aucs: dict[tuple[str, str], Interval]
    order_holds: bool | None
    order_p: float | None


def set_intervals(matrix: DistanceMatrix, *, parts: int = 1000, seed: int = 0) -> SetIntervals:
    """95 % jackknife intervals of the four sets, over images (`statistics.intervals.jackknife_interval`).

    A statistic rests on as many images as have a pair of its set, or of the smaller of its two sets; with fewer than
    MINIMUM_IMAGES of these it has no interval.

    Args:
        parts: images are left out one by one up to so many, and in so many parts (drawn by `seed`) beyond.
    """
    found = left_out_sets(matrix, left_out_parts(matrix.image_count, parts, seed))
    means = dict(zip(SETS, found.means.T, strict=True))
    aucs = dict(zip(PAIRS, found.aucs.T, strict=True))
    differences = {(a, b): means[b] - means[a] for a, b in PAIRS}
    with_pairs = (found.sizes[1:] < found.sizes[0]).sum(0)  # parts with pairs of each set
    rests_on = dict(zip(SETS, with_pairs.tolist(), strict=True))
    both = {(a, b): min(rests_on[a], rests_on[b]) for a, b in PAIRS}
    defined = bool(np.isfinite(found.means[0]).all())
    steps = [jackknife_p(differences[pair], both[pair]) for pair in pairwise(SETS)] if defined else [np.nan]
    return SetIntervals(
        {name: jackknife_interval(values, rests_on[name]) for name, values in means.items()},
        {pair: jackknife_interval(values, both[pair]) for pair, values in differences.items()},
        {pair: jackknife_interval(values, both[pair], share=True) for pair, values in aucs.items()},
        order_holds=bool((np.diff(found.means[0]) > 0).all()) if defined else None,
        order_p=None if np.isnan(steps).any() else float(max(steps)),
    )


@dataclass(frozen=True, slots=True)
class LeftOutSets:
    """The sets of all images, and without each part of them: `sizes` and `means` [1 + parts, 4], as SETS.

    `aucs` [1 + parts, 6], as PAIRS: P(first < second) + P(equal) / 2. NaN where a set is empty. They come from
    histograms and are off by no more than `binning`, which is 0 where distances have few distinct values.
    """

    sizes: np.ndarray
    means: np.ndarray
    aucs: np.ndarray
    binning: float


def left_out_sets(matrix: DistanceMatrix, parts: np.ndarray, *, bins: int = BINS) -> LeftOutSets:
    """The sets without each part of the images; `parts` [images] numbers them from 0, images in their order."""
    edges, exact = _edges(matrix, bins)
    histograms, sums = _left_out(matrix, parts, edges)
    sizes = histograms.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(sizes > 0, sums / sizes, np.nan)
        shares = histograms / sizes[:, None]
    del histograms
    below = shares.cumsum(1)
    below -= shares / 2  # P(smaller) + P(equal) / 2
    pairs = [(SETS.index(a), SETS.index(b)) for a, b in PAIRS]
    aucs = np.stack([(below[a] * shares[b]).sum(0) for a, b in pairs], 1)
    # Pairs of one bin count as equal, one half each, and cannot be off by more than that
    one_bin = np.stack([(shares[a] * shares[b]).sum(0) for a, b in pairs], 1)
    binning = 0.0 if exact or np.isnan(one_bin).all() else float(np.nanmax(one_bin)) / 2
    return LeftOutSets(sizes.T, means.T, aucs, binning)


def _edges(matrix: DistanceMatrix, bins: int) -> tuple[Tensor, bool]:
    """Upper edges of the bins, ascending, and whether they are all distinct distances that occur.

    Else each set gives an eighth of `bins` as quantiles of its distances (between images, of those of at most
    _SAMPLED_ROWS objects), and each quantile a bin of its own: so a bin holds about 8 / bins of any set, and a small
    set, all of whose distances are quantiles, is compared without loss.
    """
    n = len(matrix.classes)
    rows = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_ROWS)).astype(int))
    sampled = matrix.distances[torch.from_numpy(rows)]
    if len(rows) == n:
        distinct = sampled[~torch.eye(n, dtype=torch.bool)].unique()
        if len(distinct) <= bins:
            return distinct, True
    same_class = torch.from_numpy(matrix.classes[rows, None] == matrix.classes)
    same_image = torch.from_numpy(matrix.images[rows, None] == matrix.images)
    first, second = matrix.pairs_within()
    inside, alike = matrix.distances[first, second], torch.from_numpy(matrix.classes[first] == matrix.classes[second])
    sets = [sampled[same_class & ~same_image], sampled[~same_class & ~same_image], inside[alike], inside[~alike]]
    quantiles = []
    for values in sets:
        if len(values):
            at = torch.linspace(0, len(values) - 1, min(bins // 8, len(values))).round().long()
            quantiles.append(values.sort().values[at])
    alone = torch.cat(quantiles)
    return torch.cat([alone, alone.nextafter(torch.tensor(-torch.inf, dtype=alone.dtype))]).unique(), False


def _left_out(matrix: DistanceMatrix, parts: np.ndarray, edges: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Histograms [4 sets, bins, 1 + parts] and sums [4 sets, 1 + parts] of all pairs, and of those without each part.

    Each pair is visited once: it counts for all images, and is taken from the one or two parts that it touches.
    """
    bins, width, of = len(edges) + 1, len(SETS) + 1, 1 + parts[matrix.images]
    numbers = np.zeros((2 + int(parts.max()), width * bins))  # the last set takes what is not above the diagonal
    sums = np.zeros((len(numbers), width))

    def add(times: float, part: np.ndarray, sets: np.ndarray, cell: np.ndarray, values: np.ndarray) -> None:
        # `times` is of the type of `numbers`, which is ten times faster than another
        np.add.at(numbers.reshape(-1), (part * numbers.shape[1] + cell).ravel(), times)
        added = np.bincount((part * width + sets).ravel(), values.ravel(), sums.size)
        sums[:] += times * added.reshape(sums.shape)

    n = len(of)
    step = max(1, _PAIRS_AT_ONCE // n)
    for start in range(0, n - 1, step):
        rows, columns = slice(start, min(start + step, n - 1)), slice(start + 1, n)
        values = matrix.distances[rows, columns].contiguous()
        sets = 2 * (matrix.classes[rows, None] != matrix.classes[columns])
        sets += matrix.images[rows, None] != matrix.images[columns]
        sets[np.tri(len(sets), sets.shape[1], k=-1, dtype=np.bool_)] = len(SETS)
        pairs = sets, sets * bins + torch.bucketize(values, edges, out_int32=True).numpy(), values.numpy()
        for part, *row in zip(of[rows], *pairs, strict=True):
            found = np.bincount(row[1], minlength=numbers.shape[1]), np.bincount(row[0], row[2], width)
            for total, each in zip((numbers, sums), found, strict=True):
                total[0] += each
                total[part] -= each
        add(-1.0, of[columns], *pairs)
        one_part = of[rows, None] == of[columns]
        add(1.0, of[columns][one_part.nonzero()[1]], *(each[one_part] for each in pairs))
    for each in (numbers, sums):
        each[1:] += each[0]
    return numbers.reshape(-1, width, bins)[:, : len(SETS)].transpose(1, 2, 0), sums[:, : len(SETS)].T


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """How often shuffled labels separate as well as the true ones. Both None where a set is empty.

    Attributes:
        statistic: AUC of the true labels, P(first set < second set) + P(equal) / 2.
        p: one-sided, (1 + #{permuted >= observed}) / (1 + permutations) (Phipson and Smyth 2010);
            1 where no labels can be exchanged.
    """

    statistic: float | None
    p: float | None


def between_images(matrix: DistanceMatrix, permutations: int = 999, seed: int = 0) -> PermutationTest:
    """Are objects of one class nearer than objects of two, in different images? AUC(scdi < dcdi).

    The label vectors of whole images are swapped among images with equally many objects. Distances, images, and which
    labels come together all stay, so the test is exact if the images with equally many objects are exchangeable
    (Winkler et al. 2015, NeuroImage 123:253).
    """
    random = np.random.default_rng(seed)
    labels = matrix.classes.astype(np.int32)
    labelings = np.tile(labels, (1 + permutations, 1))  # the true labels first
    for objects in matrix.groups():
        images = np.tile(np.arange(len(objects), dtype=np.int32), (permutations, 1))
        order = random.permuted(images, axis=1)
        labelings[1:, objects.ravel()] = labels[objects][order].reshape(permutations, -1)
    sizes = matrix.set_sizes()
    same, pairs = sizes["scdi"], sizes["scdi"] + sizes["dcdi"]
    if same in (0, pairs):
        return PermutationTest(None, None)
    return _test(_sums_of_ranks(_rank_matrix(matrix), labelings), same, pairs)


def within_images(matrix: DistanceMatrix, permutations: int = 999, seed: int = 0) -> PermutationTest:
    """Are objects of one class nearer than objects of two, in one image? AUC(scsi < dcsi).

    Labels are shuffled among the objects of each image.
    """
    first, second = matrix.pairs_within()
    labels = matrix.classes
    same = int((labels[first] == labels[second]).sum())
    if same in (0, len(first)):
        return PermutationTest(None, None)
    random = np.random.default_rng(seed)
    labelings = np.tile(matrix.classes, (1 + permutations, 1))  # the true labels first
    for objects in matrix.groups():
        own = np.broadcast_to(labels[objects], (permutations, *objects.shape))
        labelings[1:, objects.ravel()] = random.permuted(own, axis=2).reshape(permutations, -1)
    ranks = _centred_ranks(matrix.distances[first, second].numpy()).astype(float)
    step = max(1, _PAIRS_AT_ONCE // len(first))
    parts = (labelings[start : start + step] for start in range(0, len(labelings), step))
    sums = np.concatenate([(part[:, first] == part[:, second]) @ ranks for part in parts])
    return _test(sums, same, len(first))


def _test(sums: np.ndarray, same: int, pairs: int) -> PermutationTest:
    """From sums of centred ranks [1 + permutations] over `same` of all `pairs`; the observed one first.

    Ranks r are taken once, since a permutation moves only the labels. With r/pairs - 1/2 in place of r, the
    Mann-Whitney U of the same-class pairs gives AUC = 1/2 - pairs * sum / (n1 * n2), with n1 and n2 always the same.
    """
    aucs = 0.5 - pairs * sums / (same * (pairs - same))
    reached = int((aucs[1:] >= aucs[0] - _TIE).sum())
    return PermutationTest(float(aucs[0]), (1 + reached) / len(aucs))


def _rank_matrix(matrix: DistanceMatrix) -> Tensor:
    """Centred ranks [n, n] of the pairs of different images above the diagonal, 0 elsewhere."""
    ends = matrix.starts[1:]
    rows = list(zip(matrix.starts[:-1], ends, strict=True))
    ranks = _centred_ranks(torch.cat([matrix.distances[start:end, end:].reshape(-1) for start, end in rows]).numpy())
    result = np.zeros(matrix.distances.shape, np.float32)
    at = 0
    for start, end in rows:
        block = result[start:end, end:]
        block[:] = ranks[at : at + block.size].reshape(block.shape)
        at += block.size
    return torch.from_numpy(result)


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Mid-ranks of values [n] as float32 in (-1/2, 1/2), ties sharing theirs.

    Values are sorted in runs between quantiles, so that beyond the ranks memory holds little more than a run.
    """
    n = len(values)
    ranks = np.empty(n, np.float32)
    quantiles = np.sort(values[:: max(1, n // _SAMPLED_VALUES)])
    runs = 1 + n // _RANKED_AT_ONCE
    cuts = np.unique(quantiles[np.arange(1, runs) * len(quantiles) // runs])
    below = 0
    for low, high in pairwise([-np.inf, *cuts, np.inf]):
        where = np.flatnonzero((values >= low) & (values < high))
        run = values[where]
        order = run.argsort()
        run = run[order]
        first = np.flatnonzero(np.append(True, run[1:] != run[:-1]))  # of each distinct value
        counts = np.diff(first, append=len(run))
        twice = np.repeat(2 * (below + first) + counts, counts)
        ranks[where[order]] = twice.astype(np.float32) / (2 * n) - 0.5
        below += len(run)
    return ranks


def _sums_of_ranks(ranks: Tensor, labelings: np.ndarray) -> np.ndarray:
    """Sums [labelings] of ranks [n, n] (upper triangle) over the pairs of equal label in labelings [labelings, n].

    For one-hot labels C [n, classes] that is the sum of C * (ranks C): one product for many labelings.
    """
    n, classes = len(ranks), int(labelings.max()) + 1
    step = max(1, _COLUMNS_AT_ONCE // classes)
    sums = []
    for first in range(0, len(labelings), step):
        labels = torch.from_numpy(labelings[first : first + step].T.astype(np.int64))[..., None]  # [n, some, 1]
        one_hot = torch.zeros(n, labels.shape[1], classes).scatter_(2, labels, 1)
        total = torch.zeros(labels.shape[1], dtype=torch.float64)
        for start in range(0, n, _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            product = ranks[rows, start:] @ one_hot[start:].flatten(1)
            own = product.view(-1, *one_hot.shape[1:]).gather(2, labels[rows])
            total += own[..., 0].sum(0, dtype=torch.float64)
        sums.append(total.numpy())
    return np.concatenate(sums)
