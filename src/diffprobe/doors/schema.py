"""The types of everything a user can set, so that a wrong value is named before any work is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffprobe.errors import UserError

Settings = TypeVar("Settings")


@dataclass
class ModelSettings:
    path: str = MISSING
    device: str = MISSING
    dtype: str = MISSING
    guidance: float = MISSING
    scheduler: str = MISSING
    revision: str | None = MISSING
    size: int | None = None
    tokenizer: str | None = None
    autocast: str | None = None
    channels_last: bool = False
    compile: bool = False


@dataclass
class DataSettings:
    prompts: str | None = None
    test_prompts: str | None = None
    images: str | None = None
    root: str | None = None
    fit: str = "stretch"
    on_error: str = "error"
    count: int | None = MISSING
    fractions: list[float] = MISSING


@dataclass
class TrajectorySettings:
    """`kind`, and what that kind needs."""

    kind: str = MISSING
    timesteps: list[float] = field(default_factory=lambda: [0.0])
    noise: str = "seeded"
    draws: int = 1
    strength: float = 0.5


@dataclass
class LayerSettings:
    select: Any = MISSING  # one item or a list of them
    groups: Any = None  # {name: items whose layers are one input}


@dataclass
class StepSettings:
    sampling: int = MISSING
    select: Any = MISSING  # 'all' or a list of steps


@dataclass
class PropertySettings:
    names: list[str] = MISSING
    threshold: Any = MISSING  # 'validation' or a number


@dataclass
class ProbeSettings:
    """See `diffprobe.probes.recipe.Recipe`."""

    name: str = MISSING
    solver: str = MISSING
    head: str = MISSING
    bias: bool = MISSING
    l1: float = MISSING
    smoothness: float = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    validate_every: int = MISSING
    learning_rates: dict[str, float] = MISSING
    strengths: list[float] = MISSING


@dataclass
class ControlSettings:
    names: list[str] = MISSING


@dataclass
class FeatureSettings:
    store: str = MISSING
    folder: str = "stores"
    layers: Any = None  # kept on disk, as layers.select; None: those that are probed
    steps: Any = None  # kept on disk, as steps.select; None: those that are probed
    images_per_shard: int = 16
    dtype: str = MISSING
    half: str = MISSING
    batch_size: int = MISSING


@dataclass
class TrainerSettings:
    accelerator: str = MISSING
    devices: int = MISSING
    precision: str = MISSING
    num_nodes: int = 1
    strategy: str = "auto"


@dataclass
class ReportSettings:
    examples: int = MISSING
    learning_curve: list[int] = field(default_factory=list)  # numbers of training images; none: no curve
    published: dict[str, dict[str, float]] = field(default_factory=dict)  # by property; see report.published


@dataclass
class ProbingSettings:
    """Everything `train.py` takes. `labeler` and `logger` name a class and its arguments, which check themselves."""

    model: ModelSettings
    data: DataSettings
    trajectory: TrajectorySettings
    labeler: Any
    layers: LayerSettings
    steps: StepSettings
    property: PropertySettings
    probe: ProbeSettings
    control: ControlSettings
    features: FeatureSettings
    trainer: TrainerSettings
    logger: Any
    report: ReportSettings
    seed: int
    job: str
    dry_run: bool


POSITIVE = (
    "steps.sampling",
    "probe.epochs",
    "probe.batch_size",
    "probe.validate_every",
    "features.batch_size",
    "features.images_per_shard",
    "trajectory.draws",
    "trainer.devices",
)


def checked(config: DictConfig, kind: type[Settings] = ProbingSettings, positive: Iterable[str] = POSITIVE) -> Settings:
    """The configuration as typed settings of a kind.

    Args:
        positive: keys of numbers that must be.

    Raises:
        UserError: an unknown key, a value of the wrong type, a value that must be given and is not, or one that
            must be positive and is not.
    """
    try:
        settings: Any = OmegaConf.merge(OmegaConf.structured(kind), config)
        missing = sorted(OmegaConf.missing_keys(settings))
        if missing:
            raise UserError(f"{missing[0]} is not set; give it as {missing[0]}=VALUE")
        for key in positive:
            if OmegaConf.select(settings, key) < 1:
                raise UserError(f"{key}={OmegaConf.select(settings, key)}: must be at least 1")
        return settings
    except OmegaConfBaseException as error:
        where = error.full_key or error.key
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error


def chosen_steps(select: Any, there: Iterable[int], key: str = "steps.select") -> list[int]:
    """The steps, of those that are there, that the setting `key` means: 'all', one number, or a list.

    Raises:
        UserError: anything else, or a step that is not there.
    """
    possible = sorted(there)
    if select == "all":
        return possible
    wanted = [select] if isinstance(select, int) else select
    try:
        steps = sorted({int(step) for step in wanted})
    except (TypeError, ValueError):
        raise UserError(f"{key}={select}: give 'all' or a list of steps such as [0,4,14]") from None
    bad = [step for step in steps if step not in possible]
    if bad or not steps:
        raise UserError(f"{key}={select}: choose from {possible[0]} to {possible[-1]}")
    return steps
