"""The types and ranges of everything a user can set of an analysis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from omegaconf import MISSING

from diffprobe.parts import Part
from diffprobe.ranges import Choice, Items, Number, Text
from diffprobe.runs.schema import Batch, Count, Folder, Groups, LayerItems, ProbingSettings, checked

MEASURES = ("euclidean", "manhattan", "cosine", "pearson", "distance_correlation", "distance_correlation_u")
FEWEST = 19  # resamples; of permutations the fewest with which p can be 0.05


@dataclass
class ObjectSettings:
    """`kind`, and what that kind needs; see `diffprobe.data.object_selection.load_objects`."""

    kind: Annotated[str, Choice("scenes", "moving_scenes", "voc", "coco", "davis")] = MISSING
    root: Folder | None = None
    split: Annotated[str, Text()] | None = None
    list: Folder | None = None  # annotate no field after this one as list[...]: the name is taken
    count: Count | None = None
    on_error: Annotated[str, Choice("error", "skip")] = "error"
    largest_over: Annotated[float, Number(0, below=1)] = 0.01
    min_area: Annotated[float, Number(0, below=1)] = 0.0
    label: Annotated[str, Choice("shape", "colour", "both")] = "shape"
    size: Annotated[int, Number(8, 2048)] = 64
    every: Count = 1
    frames: Count | None = None


@dataclass
class MaskSettings:
    """See `diffprobe.prototypes.collecting.MaskResizing`."""

    hard: bool = MISSING
    antialias: bool = MISSING


@dataclass
class MeasureSettings:
    names: Annotated[list[Annotated[str, Choice(*MEASURES)]], Items(1)] = MISSING
    precision: Annotated[str, Choice("float32", "float64")] = MISSING
    budget_mb: Annotated[int, Number(1, 1_000_000)] = MISSING


@dataclass
class PrototypeSettings:
    """Where prototypes are kept, and which inputs are pooled beside those of this job, for the others of a sweep."""

    folder: Folder = MISSING
    layers: Annotated[Any, LayerItems] | None = None
    groups: Groups | None = None
    batch_size: Batch = MISSING
    images_per_shard: Batch = MISSING


@dataclass
class StatisticsSettings:
    resamples: Annotated[int, Number(FEWEST, 100_000)] = MISSING
    permutations: Annotated[int, Number(FEWEST, 100_000)] = MISSING


@dataclass
class AnalysisJobSettings(ProbingSettings):
    """Everything `analyze.py` takes: what `train.py` takes, and what is asked of objects."""

    objects: ObjectSettings
    masks: MaskSettings
    measure: MeasureSettings
    prototypes: PrototypeSettings
    analysis: Annotated[Any, Part()]
    statistics: StatisticsSettings
    run: Folder | None
    gather: Folder | None
    classifier: Annotated[Any, Part()] | None = None  # names a class and its arguments, as `labeler` does


check_analysis = partial(checked, kind=AnalysisJobSettings)
