"""Permutation tests of separation that keep images together: pairs share objects, and objects share images.

Ranks are taken once, since a permutation moves only the labels: the statistic is then a sum of ranks over the pairs of
equal label. Blocks of equal size are exchanged whole, or shuffled inside (Winkler et al. 2015, NeuroImage 123:253).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffprobe.prototypes.set_intervals import ObjectsByImage, by_image
from diffprobe.prototypes.sets import set_sizes

_COLUMNS_AT_ONCE = 1024  # permutations times classes in one matrix product
_ROWS_AT_ONCE = 1024
_PAIRS_AT_ONCE = 2**24
# Permutations whose AUC is this near count as equal to the observed one. It is more than float32 sums can be off, and
# it errs towards a larger p.
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """How often shuffled labels separate as well as the true ones. Without exchangeable images, p is 1.

    Attributes:
        statistic: AUC of the true labels, P(first set < second set) + P(equal) / 2; None where a set is empty.
        p: one-sided, (1 + #{permuted >= observed}) / (1 + permutations) (Phipson and Smyth 2010).
        exchangeable: images whose labels can change.
    """

    statistic: float | None
    p: float | None
    permutations: int
    exchangeable: int


def between_images(
    distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike, permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """Are objects of one class nearer than objects of two, in different images? AUC(scdi < dcdi).

    The label vectors of whole images are swapped among images with equally many objects. Distances, images, and which
    labels come together all stay, so the test is exact if the images with equally many objects are exchangeable.

    Args:
        distances: [n, n], symmetric.
        classes, images: [n], integers.

    Raises:
        UserError: as `set_intervals.checked`.
    """
    data = by_image(distances, classes, images)
    random = np.random.default_rng(seed)
    labelings = np.tile(data.classes, (1 + permutations, 1))  # the true labels first
    for slots in data.slots():
        order = random.permuted(np.tile(np.arange(len(slots)), (permutations, 1)), axis=1)
        labelings[1:, slots.ravel()] = data.classes[slots][order].reshape(permutations, -1)
    exchangeable = sum(len(slots) for slots in data.slots() if len(np.unique(data.classes[slots], axis=0)) > 1)
    sizes = set_sizes(data.classes, data.image_of)
    same, pairs = sizes["scdi"], sizes["scdi"] + sizes["dcdi"]
    if same in (0, pairs):
        return PermutationTest(None, None, permutations, exchangeable)
    return _test(_sums_between(_rank_matrix(data), labelings), same, pairs, exchangeable)


def within_images(
    distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike, permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """Are objects of one class nearer than objects of two, in one image? AUC(scsi < dcsi).

    Labels are shuffled among the objects of each image. Arguments and errors as `between_images`.
    """
    data = by_image(distances, classes, images)
    first, second = data.pairs_within()
    labels = data.classes
    same = int((labels[first] == labels[second]).sum())
    exchangeable = len(np.unique(data.image_of[first[labels[first] != labels[second]]]))
    if same in (0, len(first)):
        return PermutationTest(None, None, permutations, exchangeable)
    random = np.random.default_rng(seed)
    labelings = np.tile(data.classes, (1 + permutations, 1))  # the true labels first
    for slots in data.slots():
        own = np.broadcast_to(labels[slots], (permutations, *slots.shape))
        labelings[1:, slots.ravel()] = random.permuted(own, axis=2).reshape(permutations, -1)
    ranks = _centred_ranks(data.distances[first, second]).numpy().astype(float)
    step = max(1, _PAIRS_AT_ONCE // len(first))
    parts = (labelings[start : start + step] for start in range(0, len(labelings), step))
    sums = np.concatenate([(part[:, first] == part[:, second]) @ ranks for part in parts])
    return _test(sums, same, len(first), exchangeable)


def _test(sums: np.ndarray, same: int, pairs: int, exchangeable: int) -> PermutationTest:
    """From sums of centred ranks [1 + permutations] over `same` of all `pairs`; the observed one first.

    With ranks r/pairs - 1/2 in place of r, the Mann-Whitney U of the same-class pairs gives
    AUC = 1/2 - pairs * sum / (n1 * n2). A permutation changes neither n1 nor n2.
    """
    aucs = 0.5 - pairs * sums / (same * (pairs - same))
    reached = int((aucs[1:] >= aucs[0] - _TIE).sum())
    return PermutationTest(float(aucs[0]), (1 + reached) / len(aucs), len(aucs) - 1, exchangeable)


def _rank_matrix(data: ObjectsByImage) -> Tensor:
    """Centred ranks [n, n] of the pairs of different images above the diagonal, 0 elsewhere."""
    ends = data.starts[1:]
    rows = list(zip(data.starts[:-1], ends, strict=True))
    ranks = _centred_ranks(torch.cat([data.distances[start:end, end:].reshape(-1) for start, end in rows]))
    matrix = torch.zeros(data.distances.shape)
    at = 0
    for start, end in rows:
        block = matrix[start:end, end:]
        block.copy_(ranks[at : at + block.numel()].view(block.shape))
        at += block.numel()
    return matrix


def _centred_ranks(values: Tensor) -> Tensor:
    """Mid-ranks of values [n] as float32 in (-1/2, 1/2), ties sharing theirs."""
    ordered, order = values.sort()
    twice = torch.searchsorted(ordered, ordered, out_int32=True)
    twice += torch.searchsorted(ordered, ordered, right=True, out_int32=True)
    return torch.empty(len(values)).scatter_(0, order, twice.to(torch.float32) / (2 * len(values)) - 0.5)


def _sums_between(ranks: Tensor, labelings: np.ndarray) -> np.ndarray:
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
