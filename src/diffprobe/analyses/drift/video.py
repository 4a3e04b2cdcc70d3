"""Does an object of a video stay itself from frame to frame? Beside the other objects of its video and of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from diffprobe.analyses.drift.drift import PairDistances, drift_rows
from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.matrices import DistanceConfig, all_distances
from diffprobe.prototypes.separation import DistanceKey
from diffprobe.prototypes.tables import DriftRow
from diffprobe.statistics import cluster_mean

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
