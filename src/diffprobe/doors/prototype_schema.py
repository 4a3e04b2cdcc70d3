"""The types of everything a user can set of an analysis of prototypes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from diffprobe.doors.schema import LayerSettings, ModelSettings, StepSettings, TrainerSettings, TrajectorySettings


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
    changes: dict[str, list[float]] = field(default_factory=dict)
    strengths: list[float] = field(default_factory=list)
    strength: float = 0.2
    sampling_steps: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)


@dataclass
class StatisticsSettings:
    resamples: int = MISSING
    permutations: int = MISSING


@dataclass
class PrototypeReportSettings:
    examples: int = MISSING  # objects whose nearest ones are shown as pictures


@dataclass
class PrototypeSettings:
    """Everything `analyze.py` takes. `logger` names a class and its arguments, which check themselves."""

    model: ModelSettings
    objects: ObjectSettings
    trajectory: TrajectorySettings
    layers: LayerSettings
    steps: StepSettings
    masks: MaskSettings
    measure: MeasureSettings
    prototypes: KeepingSettings
    analysis: AnalysisSettings
    statistics: StatisticsSettings
    trainer: TrainerSettings
    logger: Any
    report: PrototypeReportSettings
    run: str | None
    gather: str | None
    seed: int
    job: str
    dry_run: bool


POSITIVE = (
    "steps.sampling",
    "prototypes.batch_size",
    "prototypes.images_per_shard",
    "trajectory.draws",
    "trainer.devices",
    "measure.budget_mb",
    "statistics.resamples",
    "statistics.permutations",
)
