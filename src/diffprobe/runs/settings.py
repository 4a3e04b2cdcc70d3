"""The settings of a run: its composed configuration, each part checked against the signature of its class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Annotated, Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffprobe.errors import UserError
from diffprobe.parts import Part, Parts
from diffprobe.ranges import Choice, Folder, Name, Number, checked_value

# Arguments that the run itself gives, and what decides on them.
_TRAJECTORY = {
    **{"prompts": "by the group data", "images": "by the group data", "partial_denoising": "by the analysis"},
    **{"sampling_steps": "by steps.sampling", "half": "by features.half"},
}
_TRAINER = {
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
}
# Where less is supported than Lightning takes.
_TRAINER_LIMITS = {
    "accelerator": Annotated[str, Choice("auto", "cpu", "gpu", "cuda", "mps")],
    "strategy": Annotated[str, Choice("auto", "ddp")],
    "devices": Annotated[int, Number(1, 1024)],
    "num_nodes": Annotated[int, Number(1, 1024)],
}
_LOGGER = {
    **dict.fromkeys(("save_dir", "dir", "config", "settings"), "from its folder and configuration"),
    **dict.fromkeys(("experiment", "version", "id", "resume", "prefix"), "since a run is logged once"),
}
_LOGGER_LIMITS = {"mode": Annotated[str, Choice("offline", "online", "disabled")], "project": Annotated[str, Name()]}

Group = Annotated[Any, Part()]


@dataclass
class ProbingSettings:
    """Everything `train.py` takes: groups, whose settings are the arguments of their classes, and single keys."""

    model: Group
    data: Group
    trajectory: Annotated[Any, Part(given=_TRAJECTORY)]
    labeler: Group
    layers: Group
    steps: Group
    property: Group
    probe: Group
    control: Group
    features: Group
    trainer: Annotated[Any, Part(given=_TRAINER, limits=_TRAINER_LIMITS)]
    callbacks: Annotated[Any, Parts()]
    logger: Annotated[Any, Part(given=_LOGGER, limits=_LOGGER_LIMITS)]
    report: Group
    seed: Annotated[int, Number(0, 2**32 - 1)]
    job: Annotated[str, Name(folders=True)]
    dry_run: bool


@dataclass
class AnalysisJobSettings(ProbingSettings):
    """Everything `analyze.py` takes."""

    objects: Annotated[Any, Part(given={"seed": "by seed", "log": "to the console"})]
    masks: Group
    measure: Group
    prototypes: Group
    analysis: Group
    statistics: Annotated[Any, Part(given={"seed": "by seed"})]
    run: Folder | None
    gather: Folder | None
    classifier: Group | None = None


def checked(config: DictConfig, kind: type = ProbingSettings) -> Any:
    """The configuration as settings of a kind, with ~ in paths replaced.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of its range, or a missing value.
    """
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        where = error.full_key or error.key
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    hints = get_type_hints(kind, include_extras=True)
    settings: dict[str, Any] = {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    for name, value in plain.items():
        if name not in hints:
            raise UserError(f"unknown key {name!r}; a run has {', '.join(hints)}")
        settings[name] = value if value == "???" else checked_value(value, hints[name], str(name))
    missing = sorted({*OmegaConf.missing_keys(config), *(hints.keys() - settings.keys())})
    if missing:
        raise UserError(f"{missing[0]} is not set; give it as {missing[0]}=VALUE")
    return OmegaConf.create(settings)


check_analysis = partial(checked, kind=AnalysisJobSettings)


def leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of nested mappings and their values; lists and empty mappings are values."""
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, content


def flattened(settings: Any) -> dict[str, Any]:
    """Every setting by its dotted key, but for empty mappings."""
    return {key: value for key, value in leaves(OmegaConf.to_container(settings, resolve=True)) if value != {}}
