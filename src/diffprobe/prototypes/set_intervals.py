"""Intervals of the four distance sets over images: jackknife, each image left out with all its pairs.

Weights of images weigh pairs: a pair within image i weighs w_i, a pair of images i and j w_i w_j; leaving an image out
is weight 0 (Arvesen 1969, Ann. Math. Stat. 40:2076; Snijders and Borgatti 1999, Connections 22(2), for pairs). Each
pair is visited once for all weightings: for image i, the pairs with later images are sorted by bin of distance, the
weights of their partners are added up by bin, and the sums are multiplied by the weights of image i.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import embedding_bag

from diffprobe.errors import UserError
from diffprobe.prototypes.sets import PAIRS, SETS, check_shapes
from diffprobe.statistics.intervals import Interval, jackknife_interval, jackknife_p, left_out_weights

BINS = 1024
_SAMPLED_ROWS = 512
_WEIGHTINGS_AT_ONCE = 256  # the weights of all partners then stay in the processor's cache
_IMAGES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class ObjectsByImage:
    """Objects sorted by image. The objects of image i are `starts[i]` to `starts[i + 1]`.

    distances: [n, n], on the CPU; classes, image_of: [n], counted from 0; starts: [images + 1].
    """

    distances: Tensor
    classes: np.ndarray
    image_of: np.ndarray
    starts: np.ndarray

    @property
    def images(self) -> int:
        return len(self.starts) - 1

    def pairs_within(self) -> tuple[np.ndarray, np.ndarray]:
        """Both objects, a < b, of every pair within an image: [pairs], [pairs]."""
        first, second = [], []
        for slots in self.slots():
            upper, lower = np.triu_indices(slots.shape[1], 1)
            first.append(slots[:, upper].ravel())
            second.append(slots[:, lower].ravel())
        return np.concatenate(first), np.concatenate(second)

    def slots(self) -> list[np.ndarray]:
        """The objects of images with equally many: [images, objects of each], for every number of objects."""
        sizes = np.diff(self.starts)
        return [self.starts[:-1][sizes == size][:, None] + np.arange(size) for size in np.unique(sizes)]


def by_image(distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike) -> ObjectsByImage:
    """Sorts objects by image, keeping their order within it. Arguments and errors as `checked`."""
    matrix, labels, owners = checked(distances, classes, images)
    order = np.argsort(owners, kind="stable")
    if (np.diff(owners) < 0).any():
        matrix = matrix[torch.from_numpy(order)][:, torch.from_numpy(order)]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners))])
    return ObjectsByImage(matrix, labels[order], owners[order], starts)


def checked(
    distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Symmetric distances on the CPU [n, n], classes [n] and images [n] counted from 0 in the order of their values.

    Raises:
        UserError: there are no objects, the shapes do not fit each other, or distances are not finite.
    """
    matrix = torch.as_tensor(distances).detach().cpu()
    labels, owners = np.asarray(classes), np.asarray(images)
    check_shapes(matrix, labels, owners)
    if not len(labels):
        raise UserError("there are no objects to compare: give distances of at least one")
    undefined = matrix.numel() - int(matrix.isfinite().sum())
    if undefined:
        raise UserError(
            f"{undefined} of {matrix.numel()} distances are not finite numbers: leave out the objects whose prototypes "
            "have none"
        )
    return matrix, np.unique(labels, return_inverse=True)[1], np.unique(owners, return_inverse=True)[1]


@dataclass(frozen=True, slots=True)
class SetIntervals:
    """Intervals over images: of the mean of each set, and of each pair of sets (first, second).

    Attributes:
        differences: of the means, second - first.
        aucs: P(first < second) + P(equal) / 2, off by no more than `binning`.
        order_holds: whether mean scsi < scdi < dcsi < dcdi; None where a set is empty.
        order_p: p of the hypothesis that it does not in truth, the largest of the one-sided p of the three steps
            (Berger 1982). None where a set is empty or has no interval.
    """

    means: dict[str, Interval]
    differences: dict[tuple[str, str], Interval]
    aucs: dict[tuple[str, str], Interval]
    order_holds: bool | None
    order_p: float | None
    binning: float


def set_intervals(
    distances: Tensor | np.ndarray,
    classes: ArrayLike,
    images: ArrayLike,
    *,
    parts: int = 1000,
    seed: int = 0,
) -> SetIntervals:
    """Jackknife intervals of the four sets, over images (`statistics.jackknife_interval`).

    A statistic rests on as many images as have a pair of its set, or of the smaller of its two sets; with fewer than
    `statistics.MINIMUM_IMAGES` of these it has no interval.

    Args:
        distances: [n, n], symmetric.
        classes, images: [n], integers.
        parts: images are left out one by one up to so many, and in so many parts (drawn by `seed`) beyond.

    Raises:
        UserError: as `checked`.
    """
    weights = left_out_weights(len(np.unique(np.asarray(images))), parts, seed)
    found = weighted_sets(distances, classes, images, weights)
    effective = (found.weights[1:] < found.weights[0]).sum(0)  # parts with pairs of each set
    means = dict(zip(SETS, found.means.T, strict=True))
    differences = {(a, b): means[b] - means[a] for a, b in PAIRS}
    parts_with = dict(zip(SETS, effective.tolist(), strict=True))
    parts_with_both = {(a, b): min(parts_with[a], parts_with[b]) for a, b in PAIRS}

    defined = bool(np.isfinite(found.means[0]).all())
    steps = [jackknife_p(differences[pair], parts_with_both[pair]) for pair in pairwise(SETS)] if defined else [np.nan]
    return SetIntervals(
        means={name: jackknife_interval(means[name], parts_with[name]) for name in SETS},
        differences={pair: jackknife_interval(values, parts_with_both[pair]) for pair, values in differences.items()},
        aucs={
            pair: jackknife_interval(values, parts_with_both[pair], share=True)
            for pair, values in zip(PAIRS, found.aucs.T, strict=True)
        },
        order_holds=bool((np.diff(found.means[0]) > 0).all()) if defined else None,
        order_p=None if np.isnan(steps).any() else float(max(steps)),
        binning=found.binning,
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


def weighted_sets(
    distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike, weights: np.ndarray, *, bins: int = BINS
) -> WeightedSets:
    """The sets for `weights` [weightings, images], images in the order of their numbers. Errors as `checked`."""
    data = by_image(distances, classes, images)
    edges, exact = _edges(data, bins)
    by_weight = torch.from_numpy(np.ascontiguousarray(weights.T, dtype=np.float32))  # [images, weightings]
    both = torch.stack([_within(data, edges, by_weight), _between(data, edges, by_weight)], 1)
    histograms = both.flatten(0, 1).double().numpy()  # [sets, bins, weightings], same before different class
    sums = np.stack([_sums_within(data, weights), _sums_between(data, weights)], 1).reshape(len(SETS), -1)
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


def _edges(data: ObjectsByImage, bins: int) -> tuple[Tensor, bool]:
    """Upper edges of the bins, ascending, and whether they are all distinct distances that occur.

    Else each set gives an eighth of `bins` as quantiles of its distances (between images, of those of at most
    _SAMPLED_ROWS objects), and each quantile a bin of its own: so a bin holds about 8 / bins of any set, and a small
    set, all of whose distances are quantiles, is compared without loss.
    """
    n = len(data.classes)
    rows = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_ROWS)).astype(int))
    sampled = data.distances[torch.from_numpy(rows)]
    if len(rows) == n:
        distinct = sampled[~torch.eye(n, dtype=torch.bool)].unique()
        if len(distinct) <= bins:
            return distinct, True
    same_class = torch.from_numpy(data.classes[rows, None] == data.classes)
    same_image = torch.from_numpy(data.image_of[rows, None] == data.image_of)
    first, second = data.pairs_within()
    inside, alike = data.distances[first, second], torch.from_numpy(data.classes[first] == data.classes[second])
    sets = [sampled[same_class & ~same_image], sampled[~same_class & ~same_image], inside[alike], inside[~alike]]
    quantiles = []
    for values in sets:
        if len(values):
            at = torch.linspace(0, len(values) - 1, min(bins // 8, len(values))).round().long()
            quantiles.append(values.sort().values[at])
    alone = torch.cat(quantiles)
    return torch.cat([alone, alone.nextafter(torch.tensor(-torch.inf, dtype=alone.dtype))]).unique(), False


def _within(data: ObjectsByImage, edges: Tensor, weights: Tensor) -> Tensor:
    """Histograms [same or different class, bins, weightings] of pairs of one image; weights [images, weightings]."""
    first, second = data.pairs_within()
    same = data.classes[first] == data.classes[second]
    images, starts = _sorted_by_bin(data.distances[first, second], same, data.image_of[first], edges)
    return embedding_bag(images, weights, starts, mode="sum").view(2, -1, weights.shape[1])


def _between(data: ObjectsByImage, edges: Tensor, weights: Tensor) -> Tensor:
    """Histograms as `_within` of the pairs of different images, each pair once."""
    parts = [part.contiguous() for part in weights.split(_WEIGHTINGS_AT_ONCE, 1)]
    # Weights are whole numbers: float32 adds them exactly up to 2^24 in a bin, and nearly so beyond
    totals = [torch.zeros(2 * len(edges) + 2, part.shape[1]) for part in parts]
    for image in range(data.images - 1):
        start, end = data.starts[image : image + 2]
        same = data.classes[start:end, None] == data.classes[end:]
        partners = np.tile(data.image_of[end:], end - start)
        images, starts = _sorted_by_bin(data.distances[start:end, end:].reshape(-1), same.ravel(), partners, edges)
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


def _sums_within(data: ObjectsByImage, weights: np.ndarray) -> np.ndarray:
    """Sums [same or different class, weightings] of the distances within images."""
    first, second = data.pairs_within()
    values = data.distances[first, second].double().numpy()
    same = data.classes[first] == data.classes[second]
    per_image = [np.bincount(data.image_of[first], values * counted, data.images) for counted in (same, ~same)]
    return np.stack(per_image) @ weights.T


def _sums_between(data: ObjectsByImage, weights: np.ndarray) -> np.ndarray:
    """Sums as `_sums_within` of the distances of different images: w' S w for the sums S of pairs of images."""
    total = np.zeros((2, len(weights)))
    for first in range(0, data.images, _IMAGES_AT_ONCE):
        last = min(first + _IMAGES_AT_ONCE, data.images)
        rows = slice(data.starts[first], data.starts[last])
        values = data.distances[rows, rows.start :].double().numpy()
        later = data.image_of[rows, None] < data.image_of[rows.start :]
        same = data.classes[rows, None] == data.classes[rows.start :]
        own, others = data.starts[first:last] - rows.start, data.starts[first:-1] - rows.start
        for at, counted in enumerate((same & later, ~same & later)):
            sums = np.add.reduceat(np.add.reduceat(values * counted, own, 0), others, 1)  # [some images, images after]
            total[at] += ((weights[:, first:] @ sums.T) * weights[:, first:last]).sum(1)
    return total
