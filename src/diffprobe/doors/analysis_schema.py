"""The types of everything a user can set of an analysis."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from omegaconf import MISSING

from diffprobe.doors.schema import POSITIVE as PROBING_POSITIVE
from diffprobe.doors.schema import ProbingSettings, checked


@dataclass
class ObjectSettings:
    """`kind`, and what that kind needs; see `diffprobe.data.object_selection.load_objects`."""

    kind: str = MISSING
    root: str | None = None
    split: str | None = None
    list: str | None = None  # annotate no field after this one as list[...]: the name is taken
    count: int | None = None
    on_error: str = "error"
    largest_over: float = 0.01
    min_area: float = 0.0
    label: str = "shape"
    size: int = 64
    every: int = 1
    frames: int | None = None


@dataclass
class MaskSettings:
    """See `diffprobe.prototypes.masks.MaskResizing`."""

    hard: bool = MISSING
    antialias: bool = MISSING


@dataclass
class MeasureSettings:
    names: list[str] = MISSING
    precision: str = MISSING
    budget_mb: int = MISSING


@dataclass
class KeepingSettings:
    """Where prototypes are kept, and which inputs are pooled beside those of this job, for the others of a sweep."""

    folder: str = MISSING
    layers: Any = None
    groups: Any = None
    batch_size: int = MISSING
    images_per_shard: int = MISSING


@dataclass
class AnalysisSettings:
    """`kind`, and what that kind needs."""

    kind: str = MISSING
    changes: dict[str, Any] = field(default_factory=dict)  # lists of numbers, whole or not
    strengths: list[float] = field(default_factory=list)
    strength: float = 0.2
    sampling_steps: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    probes: str | None = None  # run folder of train.py; None: probes are trained here first
    fractions: list[float] = field(default_factory=list)  # of the score at the last step
    classes: dict[str, str] | None = None  # of classification: regular expression -> class
    photos: str | None = None  # of classification: 'auto', a folder, a list, or none
    runs: list[str] = field(default_factory=list)  # of compare: folders of finished runs
    prompts: str | None = None  # of intervention, this and the following; see conf/analysis/intervention.yaml
    count: int = 50
    trials: int = 1
    target: str = "translation"
    range: list[float] = field(default_factory=list)
    mask: str | None = None
    methods: list[str] = field(default_factory=list)
    half: str = "conditional"
    margin: float = 2.0
    learning_rate: float = 5e-3
    iterations: int = 128
    frames: int = 0


@dataclass
class StatisticsSettings:
    resamples: int = MISSING
    permutations: int = MISSING


@dataclass
class AnalysisJobSettings(ProbingSettings):
    """Everything `analyze.py` takes: what `train.py` takes, and what is asked of objects."""

    objects: ObjectSettings
    masks: MaskSettings
    measure: MeasureSettings
    prototypes: KeepingSettings
    analysis: AnalysisSettings
    statistics: StatisticsSettings
    run: str | None
    gather: str | None
    classifier: Any = None  # names a class and its arguments, as `labeler` does


POSITIVE = (
    *PROBING_POSITIVE,
    "prototypes.batch_size",
    "prototypes.images_per_shard",
    "measure.budget_mb",
    "statistics.resamples",
    "statistics.permutations",
)

check_analysis = partial(checked, kind=AnalysisJobSettings, positive=POSITIVE)
