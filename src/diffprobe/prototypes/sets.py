"""The four sets of object pairs, same class or different, same image or different: their distances in few numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.files import Step

SETS = ("scsi", "scdi", "dcsi", "dcdi")  # s, d: same or different; c, i: class, image
PAIRS = tuple(combinations(SETS, 2))
SHAPIRO_LIMIT = 5000  # values; beyond it the approximation of Royston (1995) was never fitted
BINS = 60
_CHUNK = 1 << 18  # values in float64 at a time
_ROWS = 256  # of a matrix that are checked and sorted at a time


class DistanceMatrix:
    """Distances between objects of known class and image, sorted by image.

    Attributes:
        distances: [n, n], on the CPU.
        classes, images: [n], counted from 0 in the order of their values.
        starts: [images + 1]; the objects of image i are `starts[i]` to `starts[i + 1]`.
    """

    def __init__(self, distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike) -> None:
        """Of symmetric distances, any integer classes and images.

        Raises:
            UserError: there are no objects, the shapes do not fit each other, or distances are not finite.
        """
        matrix = torch.as_tensor(distances).detach().cpu()
        labels, owners = np.asarray(classes), np.asarray(images)
        n = labels.size
        if n == 0 or labels.shape != (n,) or matrix.shape != (n, n) or owners.shape != (n,):
            raise UserError(
                f"distances {list(matrix.shape)}, classes {list(labels.shape)} and images {list(owners.shape)} are not "
                "of the same objects: give [n, n], [n] and [n] of n > 0 objects"
            )
        if not all(bool(rows.isfinite().all()) for rows in matrix.split(_ROWS)):
            undefined = ~matrix.isfinite()
            first, second = divmod(int(undefined.flatten().byte().argmax()), n)
            raise UserError(
                f"{int(undefined.sum())} of {n * n} distances are not finite numbers, the first between objects "
                f"{first} and {second}: leave out the objects whose prototypes have none, or choose another measure"
            )
        labels, owners = (np.unique(keys, return_inverse=True)[1] for keys in (labels, owners))
        order = np.argsort(owners, kind="stable")
        if (order != np.arange(n)).any():
            by_image, places = matrix.new_empty(n, n), torch.from_numpy(order)
            for rows, from_rows in zip(by_image.split(_ROWS), places.split(_ROWS), strict=True):
                rows[:] = matrix[from_rows][:, places]
            matrix = by_image
        self.distances, self.classes, self.images = matrix, labels[order], owners[order]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(owners))])

    @property
    def image_count(self) -> int:
        return len(self.starts) - 1

    def groups(self) -> list[np.ndarray]:
        """For every number of objects an image can have, the objects of these images: [images, objects of each]."""
        sizes = np.diff(self.starts)
        return [self.starts[:-1][sizes == size][:, None] + np.arange(size) for size in np.unique(sizes)]

    def pairs_within(self) -> tuple[np.ndarray, np.ndarray]:
        """Both objects, a < b, of every pair within an image: [pairs], [pairs]."""
        first, second = [], []
        for objects in self.groups():
            upper, lower = np.triu_indices(objects.shape[1], 1)
            first.append(objects[:, upper].ravel())
            second.append(objects[:, lower].ravel())
        return np.concatenate(first), np.concatenate(second)

    def set_sizes(self) -> dict[str, int]:
        """How many unordered pairs of objects are in each set."""

        def pairs_within(keys: np.ndarray) -> int:
            counts = np.unique(keys, axis=0, return_counts=True)[1]
            return int((counts * (counts - 1) // 2).sum())

        n, both = len(self.classes), pairs_within(np.stack([self.classes, self.images], axis=1))
        same_class, same_image = pairs_within(self.classes), pairs_within(self.images)
        others = n * (n - 1) // 2 - same_class - same_image + both
        return dict(zip(SETS, (both, same_class - both, same_image - both, others), strict=True))


def split_pairs(matrix: DistanceMatrix) -> dict[str, np.ndarray]:
    """The distances of each set, ascending, in their own type.

    Only the part above the diagonal is read. Beyond the sets, memory is a few numbers per object.
    """
    distances, classes, images = matrix.distances.numpy(), matrix.classes, matrix.images
    sets = {name: np.empty(size, distances.dtype) for name, size in matrix.set_sizes().items()}
    filled = [0] * len(SETS)
    for row in range(len(classes) - 1):
        others = slice(row + 1, None)
        place_in_sets = 2 * (classes[others] != classes[row]) + (images[others] != images[row])
        for at, values in enumerate(sets.values()):
            found = distances[row, others][place_in_sets == at]
            values[filled[at] : filled[at] + len(found)] = found
            filled[at] += len(found)
    for values in sets.values():
        values.sort()
    return sets


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """Of `n` distances; all else None where there are none.

    `std` is of the population (ddof 0), `radius` the largest deviation from the mean, `shapiro_w` None below three
    values or when all are equal.
    """

    n: int
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    radius: float | None = None
    shapiro_w: float | None = None


def set_statistics(values: np.ndarray, *, seed: int = 0) -> SetStatistics:
    """Statistics of a set, summed up in float64. values: [n], ascending.

    Shapiro and Wilk's (1965) W is 1 for normal values; of more than 5000 values it is that of 5000 drawn with `seed`.
    Its p is left out: with thousands of values it rejects whatever the set is.
    """
    if not len(values):
        return SetStatistics(0)
    mean, low, high = mean_of(values), float(values[0]), float(values[-1])
    variance = sum(float(part @ part) for part in deviations(values, mean)) / len(values)
    radius = max(mean - low, high - mean)
    return SetStatistics(len(values), mean, variance**0.5, low, high, radius, _shapiro(values, seed))


def mean_of(values: np.ndarray) -> float:
    """Mean of ascending values [n > 0]; between the ends whatever rounding says, so equal values deviate by 0."""
    return float(np.clip(values.mean(dtype=np.float64), float(values[0]), float(values[-1])))


def deviations(values: np.ndarray, mean: float) -> Iterator[np.ndarray]:
    """The values minus their mean, in order, piece by piece in float64."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK].astype(np.float64) - mean


def _shapiro(values: np.ndarray, seed: int) -> float | None:
    from scipy.stats import shapiro

    if len(values) > SHAPIRO_LIMIT:
        drawn = np.random.default_rng(seed).choice(len(values), SHAPIRO_LIMIT, replace=False, shuffle=False)
        values = values[drawn]
    if len(values) < 3 or values.min() == values.max():
        return None
    return float(shapiro(values.astype(np.float64)).statistic)


@dataclass(frozen=True)
class SetHistogram:
    """How many distances of one set, at one layer and step with one measure, lie in each bin.

    Attributes:
        edges: [bins + 1], rising, the same for all sets that are compared.
        counts: [bins].
    """

    layer: str
    step: Step
    measure: str
    set: str
    edges: np.ndarray
    counts: np.ndarray

    @property
    def pairs(self) -> int:
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The distance below which this share of pairs lies, interpolated within its bin."""
        return float(np.interp(share * self.pairs, np.concatenate([[0], np.cumsum(self.counts)]), self.edges))


def set_histograms(sets: Mapping[str, np.ndarray], layer: str, step: Step, measure: str) -> list[SetHistogram]:
    """Counts the distances of every set, each ascending, in common bins."""
    filled = [values for values in sets.values() if len(values)]
    if not filled:
        return []
    low, high = min(float(values[0]) for values in filled), max(float(values[-1]) for values in filled)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    found = []
    for name, values in sets.items():
        below = np.searchsorted(values, edges[:-1].astype(values.dtype))  # of one type, or all values would be copied
        found.append(SetHistogram(layer, step, measure, name, edges, np.diff(below, append=len(values))))
    return found
