"""Distances of objects to themselves after a change of their image, or frames later, beside those of other pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import DistanceKey, Prototypes
from diffprobe.prototypes.distances import DistanceConfig, paired_distances
from diffprobe.prototypes.resampling import Resampling, set_intervals
from diffprobe.prototypes.sets import set_statistics, split_pairs
from diffprobe.statistics.intervals import Interval, cluster_mean

if TYPE_CHECKING:
    from diffprobe.analyses.objects import Change

SELF, OTHER, REIDENTIFICATION = "self", "other", "reidentification"  # sets of drift.csv beside the four
FRAME_GAP = "frame_gap"  # the change of a video


@dataclass(frozen=True, slots=True)
class DriftRow(DistanceKey):
    """drift.csv: distances of objects to themselves after a change ('self'), beside other sets of pairs.

    `auc` is the chance that an object is nearer to its changed self than a pair of the set is to each other.
    """

    change: str
    strength: float
    set: str
    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    auc: float | None


@dataclass(frozen=True, slots=True)
class PairDistances:
    """The distances of a set of pairs, ascending, their mean with its interval over images, and standard deviation."""

    values: np.ndarray
    mean: Interval
    std: float | None


def drift_rows(
    key: DistanceKey,
    change: str,
    strength: float,
    own: np.ndarray,
    images: np.ndarray,
    others: Mapping[str, PairDistances],
) -> list[DriftRow]:
    """The row of 'self' and one for every other set.

    Args:
        own: [objects], distance of each to its changed self.
        images: [objects], the image or video of each, integers.
    """
    start = {**asdict(key), "change": change, "strength": strength}
    rows = [_row(start, SELF, len(own), cluster_mean(own, images), _std(own))]
    for name, pairs in others.items():
        rows.append(_row(start, name, len(pairs.values), pairs.mean, pairs.std, _chance_nearer(own, pairs.values)))
    return rows


def _row(
    start: dict[str, Any], name: str, n: int, mean: Interval, std: float | None, auc: float | None = None
) -> DriftRow:
    return DriftRow(**start, set=name, n=n, mean=mean.value, std=std, low=mean.low, high=mean.high, auc=auc)


def _std(values: np.ndarray) -> float | None:
    return float(values.std()) if len(values) else None


def _chance_nearer(first: np.ndarray, second: np.ndarray) -> float | None:
    """P(a < b) + P(a = b) / 2 for a of `first` [n] and b of `second` [m], ascending; None where one is empty."""
    if not len(first) or not len(second):
        return None
    first = first.astype(second.dtype)
    beyond = 2 * len(second) - np.searchsorted(second, first) - np.searchsorted(second, first, "right")
    return float(beyond.mean() / (2 * len(second)))


def study_drift(
    unchanged: Prototypes,
    changed: Sequence[tuple[Change, Prototypes]],
    model: str,
    distance_config: DistanceConfig,
    resampling: Resampling,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> list[DriftRow]:
    """For every layer group, measure and change: objects against their changed selves, beside the four sets of pairs of
    unchanged objects. Objects that a change pushes out of their picture do not count there.

    Args:
        unchanged, changed: of the same objects, at one step.

    Raises:
        UserError: as `Prototypes.distances`.
    """
    rows = []
    for found in unchanged.distances(model, distance_config):
        matrix, key = found.matrix, found.key
        means = set_intervals(matrix, parts=resampling.resamples, seed=resampling.seed).means
        sets = {
            name: PairDistances(values, means[name], set_statistics(values).std)
            for name, values in split_pairs(matrix).items()
        }
        for change, prototypes in changed:
            after = prototypes.matrix(found.group, next(iter(prototypes.timesteps)))[found.rows]
            there = after.isfinite().all(1)
            options = {"precision": distance_config.dtype, "budget": distance_config.budget}
            own = paired_distances(found.prototypes[there], after[there], key.measure, **options).numpy()
            rows += drift_rows(key, change.name, change.strength, own, matrix.images[there.numpy()], sets)
        log(f"{key.layer}, {key.measure}: {len(found.rows)} objects, {len(changed)} changes")
    return rows


@dataclass(frozen=True)
class Frames:
    """Objects in frames: their video [n], identity [n] and frame [n], integers, and distances [n, n]."""

    videos: np.ndarray
    identities: np.ndarray
    numbers: np.ndarray
    distances: np.ndarray


def study_video(
    prototypes: Prototypes,
    gaps: Sequence[int],
    model: str,
    distance_config: DistanceConfig,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> list[DriftRow]:
    """For every layer group, step, measure and gap between frames: an object against itself ('self') and against the
    other objects of its video ('other') so many frames on, and how often it is the nearest ('reidentification').

    Intervals are over videos, since the frames of one are much alike.

    Raises:
        UserError: no object is in two frames at any of the gaps.
    """
    objects = prototypes.objects
    videos = np.unique([row.sequence for row in objects], return_inverse=True)[1]
    identities = np.unique([f"{row.sequence}/{row.instance}" for row in objects], return_inverse=True)[1]
    numbers = np.array([row.frame for row in objects])
    rows: list[DriftRow] = []
    for found in prototypes.distances(model, distance_config):
        key, at = found.key, found.rows
        frames = Frames(videos[at], identities[at], numbers[at], found.matrix.distances.numpy())
        for gap in gaps:
            rows += _gap_rows(key, gap, frames)
        log(f"{key.layer}, {key.measure}: {len(at)} sightings of {identities.max() + 1} objects")
    if not rows:
        raise UserError(
            f"analysis.gaps={list(gaps)}: no object is seen in two frames so far apart; choose smaller gaps"
        )
    return rows


def _gap_rows(key: DistanceKey, gap: int, frames: Frames) -> Iterator[DriftRow]:
    """Nothing where no object is in two frames at this gap."""
    videos, identities, numbers = frames.videos, frames.identities, frames.numbers
    first, second = np.nonzero((videos[:, None] == videos) & (numbers[None, :] - numbers[:, None] == gap))
    same = identities[first] == identities[second]
    if not same.any():
        return
    values = frames.distances[first, second]
    others = values[~same]
    pairs = PairDistances(np.sort(others), cluster_mean(others, videos[first[~same]]), _std(others))
    strength = float(gap)
    yield from drift_rows(key, FRAME_GAP, strength, values[same], videos[first[same]], {OTHER: pairs})
    hits = reidentified(frames, gap)
    found = hits[~np.isnan(hits)]
    start = {**asdict(key), "change": FRAME_GAP, "strength": strength}
    yield _row(start, REIDENTIFICATION, len(found), cluster_mean(hits, videos), _std(found))


def reidentified(frames: Frames, gap: int) -> np.ndarray:
    """1 where an object, so many frames on, is the nearest of all in that frame of any video, else 0.

    Returns:
        [n]; NaN for objects that are in no frame so many frames on.
    """
    hits = np.full(len(frames.numbers), np.nan)
    for number in np.unique(frames.numbers):
        queries, gallery = np.flatnonzero(frames.numbers == number), np.flatnonzero(frames.numbers == number + gap)
        if len(gallery):
            nearest = gallery[frames.distances[np.ix_(queries, gallery)].argmin(1)]
            known = np.isin(frames.identities[queries], frames.identities[gallery])
            hits[queries[known]] = frames.identities[nearest[known]] == frames.identities[queries[known]]
    return hits
