"""Sums and histograms of the four distance sets for many weightings of the images at once.

A histogram of all pairs takes one visit of each pair, whatever the number of weightings: for image i, the pairs with
the images after it are sorted by bin, the rows of weights of their partners are added up bin by bin, and all is
multiplied by the weights of image i.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from diffprobe.prototypes.by_image import ByImage

BINS = 1024
_SAMPLED_ROWS = 512
_WEIGHTINGS_AT_ONCE = 256  # the weights of all partners then stay in the processor's cache
_IMAGES_AT_ONCE = 64


def weighted_pairs(data: ByImage, weights: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray, bool]:
    """Sums [4, weightings] and histograms [4, bins, weightings] of scsi, scdi, dcsi, dcdi.

    A pair within image i weighs w_i, a pair of images i and j w_i w_j, for `weights` w [weightings, images].

    The third result says whether every bin holds one distinct value, as it does where there are no more than `bins`
    of them.
    """
    edges, exact = _edges(data, bins)
    by_weight = torch.from_numpy(np.ascontiguousarray(weights.T, dtype=np.float32))  # [images, weightings]
    within = _within(data, edges, by_weight)
    between = _between(data, edges, by_weight)
    histograms = torch.stack([within, between], 1).flatten(0, 1).double().numpy()  # same before different class
    sums = np.stack([_sums_within(data, weights), _sums_between(data, weights)], 1).reshape(4, -1)
    return sums, histograms, exact


def _edges(data: ByImage, bins: int) -> tuple[Tensor, bool]:
    """Upper edges of the bins, ascending, and whether they are all distinct distances that occur.

    Else each set gives an eighth of `bins` as quantiles of its distances (between images, of those of at most
    _SAMPLED_ROWS objects), and each quantile a bin of its own: so a bin holds about 8 / bins of any set, and a small
    set, all of whose distances are quantiles, is compared without loss.
    """
    n = len(data.classes)
    rows = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_ROWS)).astype(int))
    sampled = data.distances[torch.from_numpy(rows)]
    same_class = torch.from_numpy(data.classes[rows, None] == data.classes)
    same_image = torch.from_numpy(data.image_of[rows, None] == data.image_of)
    other = torch.from_numpy(rows[:, None] != np.arange(n))
    first, second = data.pairs_within()
    inside, alike = data.distances[first, second], torch.from_numpy(data.classes[first] == data.classes[second])
    sets = [sampled[same_class & ~same_image], sampled[~same_class & ~same_image], inside[alike], inside[~alike]]
    if len(rows) == n:
        distinct = sampled[other].unique()
        if len(distinct) <= bins:
            return distinct, True
    quantiles = []
    for values in sets:
        if len(values):
            at = torch.linspace(0, len(values) - 1, min(bins // 8, len(values))).round().long()
            quantiles.append(values.sort().values[at])
    alone = torch.cat(quantiles)
    return torch.cat([alone, alone.nextafter(torch.tensor(-torch.inf, dtype=alone.dtype))]).unique(), False


def _within(data: ByImage, edges: Tensor, weights: Tensor) -> Tensor:
    """Histograms [same or different class, bins, weightings] of pairs of one image; weights [images, weightings]."""
    first, second = data.pairs_within()
    same = data.classes[first] == data.classes[second]
    images, starts = _sorted_by_bin(data.distances[first, second], same, data.image_of[first], edges)
    return embedding_bag(images, weights, starts, mode="sum").view(2, -1, weights.shape[1])


def _between(data: ByImage, edges: Tensor, weights: Tensor) -> Tensor:
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


def _sums_within(data: ByImage, weights: np.ndarray) -> np.ndarray:
    """Sums [same or different class, weightings] of the distances within images."""
    first, second = data.pairs_within()
    values = data.distances[first, second].double().numpy()
    same = data.classes[first] == data.classes[second]
    per_image = [np.bincount(data.image_of[first], values * kept, data.images) for kept in (same, ~same)]
    return np.stack(per_image) @ weights.T


def _sums_between(data: ByImage, weights: np.ndarray) -> np.ndarray:
    """Sums as `_sums_within` of the distances of different images: w' S w for the sums S of pairs of images."""
    total = np.zeros((2, len(weights)))
    for first in range(0, data.images, _IMAGES_AT_ONCE):
        last = min(first + _IMAGES_AT_ONCE, data.images)
        rows = slice(data.starts[first], data.starts[last])
        values = data.distances[rows, rows.start :].double().numpy()
        later = data.image_of[rows, None] < data.image_of[rows.start :]
        same = data.classes[rows, None] == data.classes[rows.start :]
        own, others = data.starts[first:last] - rows.start, data.starts[first:-1] - rows.start
        for at, kept in enumerate((same & later, ~same & later)):
            sums = np.add.reduceat(np.add.reduceat(values * kept, own, 0), others, 1)  # [some images, images after]
            total[at] += ((weights[:, first:] @ sums.T) * weights[:, first:last]).sum(1)
    return total
