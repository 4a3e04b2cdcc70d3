"""The types and ranges of everything a user can set of an analysis."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from omegaconf import MISSING

from diffprobe.cli.parts import Part
from diffprobe.cli.schema import Batch, Count, Folder, Groups, LayerItems, ProbingSettings, Rate, checked
from diffprobe.ranges import Choice, Items, Keys, Number, Text

KINDS = (
    *("separation", "transforms", "denoising", "video"),
    *("emergence", "intervention", "classification", "compare"),
)
CHANGES = ("rotation", "flip", "scale", "padding", "crop", "shift")
MEASURES = ("euclidean", "manhattan", "cosine", "pearson", "distance_correlation", "distance_correlation_u")
FEWEST = 19  # resamples; of permutations the fewest with which p can be 0.05
METHODS = ("pattern", "minimum_norm", "steering", "gradient")

Share = Annotated[float, Number(above=0, high=1)]
Strengths = Annotated[list[float], Items()]  # their ranges: diffprobe.data.image_changes
Shares = Annotated[list[Share], Items()]


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
class KeepingSettings:
    """Where prototypes are kept, and which inputs are pooled beside those of this job, for the others of a sweep."""

    folder: Folder = MISSING
    layers: Annotated[Any, LayerItems] | None = None
    groups: Groups | None = None
    batch_size: Batch = MISSING
    images_per_shard: Batch = MISSING


@dataclass
class AnalysisSettings:
    """`kind`, and what that kind needs."""

    kind: Annotated[str, Choice(*KINDS)] = MISSING
    changes: Annotated[dict[str, Strengths], Keys(*CHANGES, called="change")] = field(default_factory=dict)
    strengths: Shares = field(default_factory=list)
    strength: Annotated[float, Number(above=0, high=10)] = 0.2
    sampling_steps: Annotated[list[Annotated[int, Number(1, 1000)]], Items()] = field(default_factory=list)
    gaps: Annotated[list[Count], Items()] = field(default_factory=list)
    probes: Folder | None = None  # run folder of train.py; None: probes are trained here first
    fractions: Shares = field(default_factory=list)  # of the score at the last step
    classes: dict[str, str] | None = None  # of classification: regular expression -> class
    photos: Folder | None = None  # of classification: 'auto', a folder, a list, or none
    # of compare: folders of finished runs
    runs: Annotated[list[Folder], Items(distinct=False)] = field(default_factory=list)
    prompts: Folder | None = None  # of intervention, this and the following; see conf/analysis/intervention.yaml
    count: Count = 50
    trials: Annotated[int, Number(1, 1000)] = 1
    target: Annotated[str, Choice("translation", "rotation", "scale", "file")] = "translation"
    range: Annotated[list[float], Items(0, 2, distinct=False)] = field(default_factory=list)
    mask: Folder | None = None
    methods: Annotated[list[Annotated[str, Choice(*METHODS, called="method")]], Items()] = field(default_factory=list)
    half: Annotated[str, Choice("conditional", "both")] = "conditional"
    margin: Annotated[float, Number(0, 100)] = 2.0
    learning_rate: Rate = 5e-3
    iterations: Annotated[int, Number(1, 100_000)] = 128
    frames: Annotated[int, Number(0, 1000)] = 0


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
    prototypes: KeepingSettings
    analysis: AnalysisSettings
    statistics: StatisticsSettings
    run: Folder | None
    gather: Folder | None
    classifier: Annotated[Any, Part()] | None = None  # names a class and its arguments, as `labeler` does


check_analysis = partial(checked, kind=AnalysisJobSettings)
