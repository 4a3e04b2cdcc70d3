"""Jackknife intervals of the four sets over images, and permutation tests that keep images together.

Pairs share objects, and objects share images. So whole images are left out, and labels permuted by image. Weights of
images weigh pairs: a pair within image i weighs w_i, a pair of images i and j w_i w_j; leaving an image out is weight 0
(Arvesen 1969, Ann. Math. Stat. 40:2076; Snijders and Borgatti 1999, Connections 22(2), for pairs).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from diffprobe.prototypes.sets import PAIRS, SETS, DistanceMatrix
from diffprobe.ranges import Number
from diffprobe.statistics.intervals import Interval, jackknife_interval, jackknife_p, left_out_weights

BINS = 1024
_SAMPLED_ROWS = 512
_WEIGHTINGS_AT_ONCE = 256  # the weights of all partners then stay in the processor's cache
_IMAGES_AT_ONCE = 64
_COLUMNS_AT_ONCE = 1024  # permutations times classes in one matrix product
_ROWS_AT_ONCE = 1024
_PAIRS_AT_ONCE = 2**24
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
    found = weighted_sets(matrix, left_out_weights(matrix.image_count, parts, seed))
    means = dict(zip(SETS, found.means.T, strict=True))
    aucs = dict(zip(PAIRS, found.aucs.T, strict=True))
    differences = {(a, b): means[b] - means[a] for a, b in PAIRS}
    with_pairs = (found.weights[1:] < found.weights[0]).sum(0)  # parts with pairs of each set
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
class WeightedSets:
    """The sets by each weighting of the images: `weights` (of all pairs) and `means` [weightings, 4], as SETS.

    `aucs` [weightings, 6], as PAIRS: P(first < second) + P(equal) / 2. NaN where a set is empty. They come from
    histograms and are off by no more than `binning`, which is 0 where distances have few distinct values.
    """

    weights: np.ndarray
    means: np.ndarray
    aucs: np.ndarray
    binning: float


def weighted_sets(matrix: DistanceMatrix, weights: np.ndarray, *, bins: int = BINS) -> WeightedSets:
    """The sets for `weights` [weightings, images], images in the order of their numbers."""
    edges, exact = _edges(matrix, bins)
    by_weight = torch.from_numpy(np.ascontiguousarray(weights.T, dtype=np.float32))  # [images, weightings]
    both = torch.stack([_within(matrix, edges, by_weight), _between(matrix, edges, by_weight)], 1)
    histograms = both.flatten(0, 1).double().numpy()  # [sets, bins, weightings], same before different class
    sums = np.stack([_sums_within(matrix, weights), _sums_between(matrix, weights)], 1).reshape(len(SETS), -1)
    totals = histograms.sum(1)
    with np.errstate(invalid="ignore"):
        means = sums / totals
        shares = histograms / totals[:, None]
        below = shares.cumsum(1) - shares / 2  # P(smaller) + P(equal) / 2
    pairs = [(SETS.index(a), SETS.index(b)) for a, b in PAIRS]
    aucs = np.stack([(below[a] * shares[b]).sum(0) for a, b in pairs], 1)
    # Pairs of one bin count as equal, one half each, and cannot be off by more than that
    one_bin = np.stack([(shares[a] * shares[b]).sum(0) for a, b in pairs], 1)
    binning = 0.0 if exact or np.isnan(one_bin).all() else float(np.nanmax(one_bin)) / 2
    return WeightedSets(totals.T, means.T, aucs, binning)


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


def _within(matrix: DistanceMatrix, edges: Tensor, weights: Tensor) -> Tensor:
    """Histograms [same or different class, bins, weightings] of pairs of one image; weights [images, weightings]."""
    first, second = matrix.pairs_within()
    same = matrix.classes[first] == matrix.classes[second]
    images, starts = _sorted_by_bin(matrix.distances[first, second], same, matrix.images[first], edges)
    return embedding_bag(images, weights, starts, mode="sum").view(2, -1, weights.shape[1])


def _between(matrix: DistanceMatrix, edges: Tensor, weights: Tensor) -> Tensor:
    """Histograms as `_within` of the pairs of different images, each pair visited once for all weightings.

    For each image, the pairs with later images are sorted by bin, the weights of their partners are added up by bin,
    and the sums are multiplied by the weights of the image.
    """
    parts = [part.contiguous() for part in weights.split(_WEIGHTINGS_AT_ONCE, 1)]
    # Weights are whole numbers: float32 adds them exactly up to 2^24 in a bin, and nearly so beyond
    totals = [torch.zeros(2 * len(edges) + 2, part.shape[1]) for part in parts]
    for image in range(matrix.image_count - 1):
        start, end = matrix.starts[image : image + 2]
        same = matrix.classes[start:end, None] == matrix.classes[end:]
        partners = np.tile(matrix.images[end:], end - start)
        images, starts = _sorted_by_bin(matrix.distances[start:end, end:].reshape(-1), same.ravel(), partners, edges)
        for total, part in zip(totals, parts, strict=True):
            total.addcmul_(embedding_bag(images, part, starts, mode="sum"), part[image])
    return torch.cat(totals, 1).view(2, -1, weights.shape[1])


def _sorted_by_bin(values: Tensor, same: np.ndarray, images: np.ndarray, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The images [pairs] in the order of their pairs' bins, and where each bin starts [2 bins].

    The pairs of different class have bins of their own, after those of the pairs of the same.
    """
    bins = len(edges) + 1
    codes = torch.bucketize(values.contiguous(), edges, out_int32=True).numpy()
    codes = np.where(same, codes, codes + bins).astype(np.uint16)  # sixteen bits are sorted by radix
    order = np.argsort(codes, kind="stable")
    starts = np.cumsum(np.bincount(codes, minlength=2 * bins))[:-1]
    return torch.from_numpy(images[order]), torch.from_numpy(np.concatenate([[0], starts]))


def _sums_within(matrix: DistanceMatrix, weights: np.ndarray) -> np.ndarray:
    """Sums [same or different class, weightings] of the distances within images."""
    first, second = matrix.pairs_within()
    values = matrix.distances[first, second].double().numpy()
    same = matrix.classes[first] == matrix.classes[second]
    per_image = [np.bincount(matrix.images[first], values * counted, matrix.image_count) for counted in (same, ~same)]
    return np.stack(per_image) @ weights.T


def _sums_between(matrix: DistanceMatrix, weights: np.ndarray) -> np.ndarray:
    """Sums as `_sums_within` of the distances of different images: w' S w for the sums S of pairs of images."""
    total = np.zeros((2, len(weights)))
    for first in range(0, matrix.image_count, _IMAGES_AT_ONCE):
        last = min(first + _IMAGES_AT_ONCE, matrix.image_count)
        rows = slice(matrix.starts[first], matrix.starts[last])
        values = matrix.distances[rows, rows.start :].double().numpy()
        later = matrix.images[rows, None] < matrix.images[rows.start :]
        same = matrix.classes[rows, None] == matrix.classes[rows.start :]
        own, others = matrix.starts[first:last] - rows.start, matrix.starts[first:-1] - rows.start
        for at, counted in enumerate((same & later, ~same & later)):
            sums = np.add.reduceat(np.add.reduceat(values * counted, own, 0), others, 1)  # [some images, images after]
            total[at] += ((weights[:, first:] @ sums.T) * weights[:, first:last]).sum(1)
    return total


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
    labelings = np.tile(matrix.classes, (1 + permutations, 1))  # the true labels first
    for objects in matrix.groups():
        order = random.permuted(np.tile(np.arange(len(objects)), (permutations, 1)), axis=1)
        labelings[1:, objects.ravel()] = matrix.classes[objects][order].reshape(permutations, -1)
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
    ranks = _centred_ranks(matrix.distances[first, second]).numpy().astype(float)
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
    ranks = _centred_ranks(torch.cat([matrix.distances[start:end, end:].reshape(-1) for start, end in rows]))
    result = torch.zeros(matrix.distances.shape)
    at = 0
    for start, end in rows:
        block = result[start:end, end:]
        block.copy_(ranks[at : at + block.numel()].view(block.shape))
        at += block.numel()
    return result


def _centred_ranks(values: Tensor) -> Tensor:
    """Mid-ranks of values [n] as float32 in (-1/2, 1/2), ties sharing theirs."""
    ordered, order = values.sort()
    twice = torch.searchsorted(ordered, ordered, out_int32=True)
    twice += torch.searchsorted(ordered, ordered, right=True, out_int32=True)
    return torch.empty(len(values)).scatter_(0, order, twice.to(torch.float32) / (2 * len(values)) - 0.5)


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
