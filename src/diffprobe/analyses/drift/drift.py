"""Does an object stay itself when its image is changed, or noised and denoised again? Beside other objects.

How far objects are from their changed selves, beside how far pairs of objects are from each other.

Does an object of a video stay itself from frame to frame? Beside the other objects of its video and of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.distances import paired_distances
from diffprobe.prototypes.matrices import DistanceConfig, PrototypeMatrix, all_distances
from diffprobe.prototypes.separation import DistanceKey, DriftRow, Resampling
from diffprobe.prototypes.set_intervals import set_intervals
from diffprobe.prototypes.sets import set_statistics, split_pairs
from diffprobe.statistics.intervals import Interval, cluster_mean

SELF = "self"


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
        others: by name.
    """
    mean = cluster_mean(own, images)
    std = float(own.std()) if len(own) else None
    keys = {**asdict(key), "change": change, "strength": strength}
    rows = [DriftRow(**keys, set=SELF, n=len(own), mean=mean.value, std=std, low=mean.low, high=mean.high, auc=None)]
    for name, pairs in others.items():
        found: dict[str, Any] = {
            "mean": pairs.mean.value,
            "std": pairs.std,
            "low": pairs.mean.low,
            "high": pairs.mean.high,
        }
        auc = chance_nearer(own, pairs.values)
        rows.append(DriftRow(**keys, set=name, n=len(pairs.values), **found, auc=auc))
    return rows


def chance_nearer(first: np.ndarray, second: np.ndarray) -> float | None:
    """P(a < b) + P(a = b) / 2 for a of `first` [n] and b of `second` [m], ascending; None where one is empty."""
    if not len(first) or not len(second):
        return None
    first = first.astype(second.dtype)
    beyond = 2 * len(second) - np.searchsorted(second, first) - np.searchsorted(second, first, "right")
    return float(beyond.mean() / (2 * len(second)))


@dataclass(frozen=True)
class ChangedPrototypes:
    """The same objects and inputs after a change. `step` is the one that is held against the unchanged ones."""

    change: str
    strength: float
    prototypes: Prototypes
    step: int


def study_drift(
    unchanged: Prototypes,
    changed: Sequence[ChangedPrototypes],
    model: str,
    distance_config: DistanceConfig,
    resampling: Resampling,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> list[DriftRow]:
    """For every input, measure, change and strength: an object against its changed self, beside the four sets of pairs
    of unchanged objects. Objects that a change pushes out of their picture do not count there.

    Args:
        unchanged: at one step.

    Raises:
        UserError: fewer than two objects, or a measure that a prototype has no distance by.
    """
    rows = []
    for matrix, distances in all_distances(unchanged, model, distance_config):
        sets = _sets(matrix, distances, resampling)
        group = next(group for group in unchanged.inputs if group.name == matrix.key.layer)
        for each in changed:
            after = each.prototypes.matrix(group, each.step)[matrix.rows]
            there = after.isfinite().all(1)
            own = paired_distances(
                matrix.values[there],
                after[there],
                matrix.key.measure,
                precision=distance_config.dtype,
                budget=distance_config.budget,
            ).numpy()
            rows += drift_rows(matrix.key, each.change, each.strength, own, matrix.images[there.numpy()], sets)
        log(f"{matrix.key.layer}, {matrix.key.measure}: {len(matrix.rows)} objects, {len(changed)} changes")
    return rows


def _sets(matrix: PrototypeMatrix, distances: Tensor, resampling: Resampling) -> dict[str, PairDistances]:
    values = split_pairs(distances, matrix.classes, matrix.images)
    intervals = set_intervals(
        distances, matrix.classes, matrix.images, parts=resampling.resamples, seed=resampling.seed
    )
    return {
        name: PairDistances(of_set, intervals.means[name], set_statistics(of_set).std)
        for name, of_set in values.items()
    }


CHANGE, OTHER, REIDENTIFICATION = "frame_gap", "other", "reidentification"


@dataclass(frozen=True)
class Sightings:
    """Objects in frames: which video [n], which object [n] and which frame [n] of it, integers; distances [n, n]."""

    videos: np.ndarray
    identities: np.ndarray
    frames: np.ndarray
    distances: np.ndarray


def study_video(
    prototypes: Prototypes,
    gaps: Sequence[int],
    model: str,
    distance_config: DistanceConfig,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> list[DriftRow]:
    """For every input, step, measure and gap between frames: an object against itself ('self') and against the other
    objects of its video ('other') so many frames on, and how often it is the nearest ('reidentification').

    Intervals are over videos, since the frames of one are much alike: below `statistics.MINIMUM_IMAGES` of them there
    are none.

    Raises:
        UserError: the images are of no video, or no object is seen twice at any of the gaps.
    """
    videos = _numbers([row.sequence for row in prototypes.objects])
    identities = _numbers([(row.sequence, row.instance) for row in prototypes.objects])
    frames = np.array([row.frame for row in prototypes.objects])
    if not any(row.sequence for row in prototypes.objects):
        raise UserError("analysis=video needs videos: choose objects=davis or objects=moving_scenes")
    rows = []
    for matrix, distances in all_distances(prototypes, model, distance_config):
        at = matrix.rows
        sightings = Sightings(videos[at], identities[at], frames[at], distances.numpy())
        for gap in gaps:
            rows += list(_rows(matrix.key, gap, sightings))
        log(f"{matrix.key.layer}, {matrix.key.measure}: {len(at)} sightings of {identities.max() + 1} objects")
    if not rows:
        raise UserError(
            f"analysis.gaps={list(gaps)}: no object is seen in two frames so far apart; choose smaller gaps"
        )
    return rows


def _rows(key: DistanceKey, gap: int, seen: Sightings) -> Iterator[DriftRow]:
    """Nothing where no object is seen twice at this gap."""
    first, second = np.nonzero(
        (seen.videos[:, None] == seen.videos) & (seen.frames[None, :] - seen.frames[:, None] == gap)
    )
    same = seen.identities[first] == seen.identities[second]
    if not same.any():
        return
    values = seen.distances[first, second]
    mean = cluster_mean(values[~same], seen.videos[first[~same]])
    others = PairDistances(np.sort(values[~same]), mean, float(values[~same].std()) if (~same).any() else None)
    own = drift_rows(key, CHANGE, float(gap), values[same], seen.videos[first[same]], {OTHER: others})
    hits = reidentified(seen, gap)
    found = hits[~np.isnan(hits)]
    accuracy = cluster_mean(hits, seen.videos)
    own.append(
        DriftRow(
            **asdict(key),
            change=CHANGE,
            strength=float(gap),
            set=REIDENTIFICATION,
            n=len(found),
            mean=accuracy.value,
            std=float(found.std()),
            low=accuracy.low,
            high=accuracy.high,
            auc=None,
        )
    )
    yield from own


def reidentified(seen: Sightings, gap: int) -> np.ndarray:
    """1 where an object, so many frames on, is the nearest of all that are seen in that frame of any video, else 0.

    Returns:
        [n]; NaN for objects that are not seen so many frames on.
    """
    hits = np.full(len(seen.frames), np.nan)
    for frame in np.unique(seen.frames):
        queries, gallery = np.flatnonzero(seen.frames == frame), np.flatnonzero(seen.frames == frame + gap)
        if not len(gallery):
            continue
        nearest = gallery[seen.distances[np.ix_(queries, gallery)].argmin(1)]
        known = np.isin(seen.identities[queries], seen.identities[gallery])
        hits[queries[known]] = seen.identities[nearest[known]] == seen.identities[queries[known]]
    return hits


def _numbers(keys: Sequence[object]) -> np.ndarray:
    """Equal keys get equal integers, counted from 0 in order of appearance."""
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys])
