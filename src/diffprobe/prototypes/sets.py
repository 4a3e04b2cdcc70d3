"""The four sets of object pairs: same class or different, same image or different.

One set of distances in a few numbers.

How the distances of the four sets are distributed: counts, however many pairs there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.files import Step

SETS = ("scsi", "scdi", "dcsi", "dcdi")  # s, d: same or different; c, i: class, image


def set_sizes(classes: np.ndarray, images: np.ndarray) -> dict[str, int]:
    """How many unordered pairs of objects are in each set. classes, images: integers [objects]."""
    both = _pairs_within(np.stack([classes, images], axis=1))
    same_class, same_image = _pairs_within(classes[:, None]), _pairs_within(images[:, None])
    pairs = len(classes) * (len(classes) - 1) // 2
    sizes = (both, same_class - both, same_image - both, pairs - same_class - same_image + both)
    return dict(zip(SETS, sizes, strict=True))


def split_pairs(distances: Tensor | np.ndarray, classes: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    """The distances of each set, ascending: the order is what most statistics of a set need.

    distances: [objects, objects], of which the part above the diagonal is read, so every pair counts once and no
    object is paired with itself; classes, images: integers [objects]. The values keep the type of `distances`; beyond
    them and `distances`, memory is a few numbers per object.

    Raises UserError when shapes do not fit, and when a distance is not a finite number.
    """
    if isinstance(distances, Tensor):
        distances = distances.detach().cpu().numpy()
    classes, images = np.asarray(classes), np.asarray(images)
    _check(distances, classes, images)
    sizes = set_sizes(classes, images)
    values = {name: np.empty(size, distances.dtype) for name, size in sizes.items()}
    filled = dict.fromkeys(SETS, 0)
    for row in range(len(classes) - 1):
        others = slice(row + 1, None)
        same_class, same_image = classes[others] == classes[row], images[others] == images[row]
        wanted = (same_class & same_image, same_class & ~same_image, ~same_class & same_image)
        for name, pairs in zip(SETS, (*wanted, ~(same_class | same_image)), strict=True):
            found = distances[row, others][pairs]
            values[name][filled[name] : filled[name] + len(found)] = found
            filled[name] += len(found)
    for of_set in values.values():
        of_set.sort()
    return values


def _pairs_within(keys: np.ndarray) -> int:
    """Pairs of objects whose keys [objects, columns] are equal."""
    counts = np.unique(keys, axis=0, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _check(distances: np.ndarray, classes: np.ndarray, images: np.ndarray) -> None:
    objects = len(classes)
    if distances.shape != (objects, objects) or images.shape != classes.shape or classes.ndim != 1:
        raise UserError(
            f"distances {list(distances.shape)}, classes {list(classes.shape)} and images {list(images.shape)} are not "
            "of the same objects: give [n, n], [n] and [n]"
        )
    wrong = [np.count_nonzero(~np.isfinite(distances[row, row + 1 :])) for row in range(objects)]
    if any(wrong):
        row = int(np.argmax(np.array(wrong) > 0))
        column = row + 1 + int(np.argmax(~np.isfinite(distances[row, row + 1 :])))
        raise UserError(
            f"{sum(wrong)} of {objects * (objects - 1) // 2} distances are not finite numbers, the first between "
            f"objects {row} and {column}: leave out the objects whose prototypes have none, or choose another measure"
        )


SHAPIRO_LIMIT = 5000  # values; beyond it the approximation of Royston (1995) was never fitted
_CHUNK = 1 << 18  # values in float64 at a time


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

    Shapiro and Wilk's (1965) W tells of normality: 1 is a perfect fit. Of more than 5000 values it is that of 5000
    drawn with `seed`. Their p is left out: with thousands of values it rejects whatever the set is.
    """
    if not len(values):
        return SetStatistics(0)
    mean, low, high = mean_of(values), float(values[0]), float(values[-1])
    variance = sum(float(part @ part) for part in deviations(values, mean)) / len(values)
    return SetStatistics(
        len(values), mean, variance**0.5, low, high, max(mean - low, high - mean), _shapiro(values, seed)
    )


def mean_of(values: np.ndarray) -> float:
    """Mean of ascending values [n > 0]; between the ends whatever rounding says, so equal values deviate by 0."""
    return float(np.clip(values.mean(dtype=np.float64), float(values[0]), float(values[-1])))


def deviations(values: np.ndarray, mean: float) -> Iterator[np.ndarray]:
    """The values minus their mean, in order, piece by piece in float64."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK].astype(np.float64) - mean


def _shapiro(values: np.ndarray, seed: int) -> float | None:
    if len(values) < 3 or values[0] == values[-1]:
        return None
    from scipy.stats import shapiro

    if len(values) > SHAPIRO_LIMIT:
        drawn = np.random.default_rng(seed).choice(len(values), SHAPIRO_LIMIT, replace=False, shuffle=False)
        values = values[drawn]
        if values.min() == values.max():
            return None
    return float(shapiro(values.astype(np.float64)).statistic)


BINS = 60


@dataclass(frozen=True)
class SetHistogram:
    """The distances of one set at one layer and step with one measure.

    Attributes:
        edges: [bins + 1], rising, the same for all sets that are compared.
        counts: [bins], distances in each bin.
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
        """The distance below which this share of pairs lies, to a fraction of a bin."""
        return float(np.interp(share * self.pairs, np.concatenate([[0], np.cumsum(self.counts)]), self.edges))


def set_histograms(
    distances: Mapping[str, np.ndarray], layer: str, step: Step, measure: str, bins: int = BINS
) -> list[SetHistogram]:
    """Counts the distances of every set in common bins.

    Args:
        distances: set -> its distances in rising order, as `split_pairs` gives them: they are looked up, not read.
    """
    filled = [values for values in distances.values() if len(values)]
    if not filled:
        return []
    low, high = min(float(values[0]) for values in filled), max(float(values[-1]) for values in filled)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    return [
        SetHistogram(layer, step, measure, name, edges, np.diff(_places(values, edges)))
        for name, values in distances.items()
    ]


def _places(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many sorted values lie before each edge; the last edge belongs to the last bin."""
    inner = np.searchsorted(values, edges[:-1].astype(values.dtype))  # of one type, or all values would be copied
    return np.concatenate([inner, [len(values)]])
