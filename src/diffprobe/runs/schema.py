"""The types and ranges of everything a user can set, so that a wrong value is named before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffprobe.errors import UserError
from diffprobe.parts import Part, Parts
from diffprobe.ranges import Choice, Items, Keys, Name, Number, OneOrMore, Place, Text, WordOr, checked_value, shown

Settings = TypeVar("Settings")

STEP_WORDS = ("all", "first", "last", "first_third")

PROPERTIES = ("saliency", "depth", "shading")
CONTROLS = ("permuted", "fresh", "latent", "pixels", "decoder", "labels", "position")
DTYPES = ("float32", "float16", "bfloat16")
METRICS = ("dice", "dice_background", "spearman", "pearson", "rmse")

Count = Annotated[int, Number(1, 100_000)]
Batch = Annotated[int, Number(1, 100_000)]
Numbers = Annotated[dict[str, float], Keys(*METRICS, "step", called="score")]
Rate = Annotated[float, Number(above=0, high=10)]
Folder = Annotated[str, Place()]
LayerItems = OneOrMore(Annotated[str, Text()])
Steps = OneOrMore(Annotated[Any, WordOr(STEP_WORDS, Annotated[int, Number(0, 999)])])
Groups = dict[str, Annotated[Any, LayerItems]]  # name: what layers.select may be


LOGGER = Part(given=dict.fromkeys(("folder", "config", "called"), "by the folder of the run"))
# Lightning's arguments that are decided elsewhere, and those of which less is supported than Lightning takes.
TRAINER = Part(
    given={
        "logger": "by the group logger",
        "callbacks": "by the group callbacks",
        "enable_progress_bar": "by the group callbacks",
        "max_epochs": "by probe.epochs",
        "check_val_every_n_epoch": "by probe.validate_every",
        "num_sanity_val_steps": "to none",
        "enable_checkpointing": "to false, since probes and activations are written by the run",
        "enable_model_summary": "to false",
        "limit_predict_batches": "to all, since every image is taken once; say how many with data.count",
        "fast_dev_run": "to false; a short run is debug=default",
        "use_distributed_sampler": "to false where processes share images",
    },
    limits={
        "accelerator": Annotated[str, Choice("auto", "cpu", "gpu", "cuda", "mps")],
        "strategy": Annotated[str, Choice("auto", "ddp")],
        "devices": Annotated[int, Number(1, 1024)],
        "num_nodes": Annotated[int, Number(1, 1024)],
    },
)


@dataclass
class ModelSettings:
    path: Folder = MISSING  # or 'pocket', or a hub id
    device: Annotated[str, Text()] = MISSING
    dtype: Annotated[str, Choice(*DTYPES)] = MISSING
    guidance: Annotated[float, Number(0, 100)] = MISSING
    scheduler: Annotated[str, Choice("lms", "ddim", "euler", "dpm++", "own")] = MISSING
    revision: Annotated[str, Text()] | None = MISSING
    size: Annotated[int, Number(8, 8192)] | None = None
    tokenizer: Folder | None = None
    autocast: Annotated[str, Choice("bfloat16", "float16")] | None = None
    channels_last: bool = False
    compile: bool = False


@dataclass
class DataSettings:
    prompts: Folder | None = None
    test_prompts: Folder | None = None
    images: Folder | None = None
    root: Folder | None = None
    fit: Annotated[str, Choice("stretch", "crop")] = "stretch"
    on_error: Annotated[str, Choice("error", "skip")] = "error"
    count: Count | None = MISSING
    fractions: Annotated[list[Annotated[float, Number(above=0, below=1)]], Items(3, 3, distinct=False)] = MISSING


@dataclass
class TrajectorySettings:
    """`kind`, and what that kind needs."""

    kind: Annotated[str, Choice("generation", "noised", "inversion", "image_to_image")] = MISSING
    timesteps: Annotated[list[Annotated[float, Number(0, 1000)]], Items(1)] = field(default_factory=lambda: [0.0])
    noise: Annotated[str, Choice("seeded", "off")] = "seeded"
    draws: Annotated[int, Number(1, 1000)] = 1
    strength: Annotated[float, Number(above=0, high=1)] = 0.5


@dataclass
class LayerSettings:
    select: Annotated[Any, LayerItems] | None = MISSING  # one item or a list of them; None: groups alone
    groups: Groups | None = None  # {name: items whose layers are one input}


@dataclass
class StepSettings:
    sampling: Annotated[int, Number(1, 1000)] = MISSING
    select: Annotated[Any, Steps] = MISSING  # see chosen_steps


@dataclass
class PropertySettings:
    names: Annotated[list[Annotated[str, Choice(*PROPERTIES)]], Items(1)] = MISSING
    threshold: Annotated[Any, WordOr(("validation",), Annotated[float, Number(above=0, below=1)])] = MISSING


@dataclass
class ProbeSettings:
    """See `diffprobe.probes.config.ProbeConfig`."""

    name: Annotated[str, Name()] = MISSING
    solver: Annotated[str, Choice("adam", "ridge", "exact")] = MISSING
    head: Annotated[str, Choice("linear", "mlp")] = MISSING
    bias: bool = MISSING
    l1: Annotated[float, Number(0, 1000)] = MISSING
    smoothness: Annotated[float, Number(0, 1000)] = MISSING
    epochs: Batch = MISSING
    batch_size: Batch = MISSING
    validate_every: Batch = MISSING
    learning_rates: Annotated[dict[str, Rate], Keys(*PROPERTIES, called="property")] = MISSING
    strengths: Annotated[list[Annotated[float, Number(1e-12, 1_000_000)]], Items(1)] = MISSING


@dataclass
class ControlSettings:
    names: Annotated[list[Annotated[str, Choice(*CONTROLS)]], Items()] = MISSING


@dataclass
class FeatureSettings:
    store: Annotated[str, Choice("memory", "disk", "none")] = MISSING
    folder: Folder = "stores"
    layers: Annotated[Any, LayerItems] | None = None  # kept on disk, as layers.select; None: those that are probed
    steps: Annotated[Any, Steps] | None = None  # kept on disk, as steps.select; None: those that are probed
    images_per_shard: Batch = 16
    dtype: Annotated[str, Choice(*DTYPES)] = MISSING
    half: Annotated[str, Choice("conditional", "unconditional")] = MISSING
    batch_size: Batch = MISSING


@dataclass
class ReportSettings:
    examples: Annotated[int, Number(0, 1000)] = MISSING
    # numbers of training images; none: no curve
    learning_curve: Annotated[list[Count], Items()] = field(default_factory=list)
    # by property; see doors.published
    published: Annotated[dict[str, Numbers], Keys(*PROPERTIES, called="property")] = field(default_factory=dict)


@dataclass
class ProbingSettings:
    """Everything `train.py` takes. `labeler` and `logger` name a class and its arguments."""

    model: ModelSettings
    data: DataSettings
    trajectory: TrajectorySettings
    labeler: Annotated[Any, Part()]
    layers: LayerSettings
    steps: StepSettings
    property: PropertySettings
    probe: ProbeSettings
    control: ControlSettings
    features: FeatureSettings
    trainer: Annotated[Any, TRAINER]
    callbacks: Annotated[Any, Parts()]
    logger: Annotated[Any, LOGGER]
    report: ReportSettings
    seed: Annotated[int, Number(0, 2**32 - 1)]
    job: Annotated[str, Name(folders=True)]
    dry_run: bool


def checked(config: DictConfig, kind: type[Settings] = ProbingSettings) -> Settings:
    """The configuration as typed settings of a kind, each of its type and in its range, with ~ in paths replaced.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of its range, or one that must be given and is not.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True)
        settings: Any = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(_section(plain, kind, "")))
    except OmegaConfBaseException as error:
        where = error.full_key or error.key
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    # What a choice leaves open, even where the settings have a default that a merge would keep
    missing = sorted(OmegaConf.missing_keys(settings) | OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set; give it as {missing[0]}=VALUE")
    return settings


def _section(given: Any, kind: type, key: str) -> dict[str, Any]:
    """What is given of the settings of a kind, checked; `key` is what the section is called, empty at the top."""
    if not isinstance(given, Mapping):
        raise UserError(f"{key}: must be a section of settings ({key}.NAME=VALUE), not {shown(given)}")
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for name, value in given.items():
        place = f"{key}.{name}" if key else str(name)
        if name not in hints:
            raise UserError(f"unknown key {place!r}; {key or 'a run'} has {', '.join(hints)}")
        found[name] = _value(value, hints[name], place)
    return found


def _value(value: Any, hint: Any, key: str) -> Any:
    if is_dataclass(hint):
        return _section(value, hint, key)  # type: ignore[arg-type]
    return value if value == "???" else checked_value(value, hint, key)
