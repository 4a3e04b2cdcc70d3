"""Runs as jobs of a sweep: which folder holds a finished one, of what configuration, and what a search maximises."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.doors.recorded import CONFIGURATION, looked_up, read_recorded
from diffprobe.doors.schema import Settings, TrainerSettings, checked
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary

FINISHED = "environment.json"  # the last file of a run
# What says where and how fast a run is made, and changes no number of it.
IMMATERIAL = (
    "job",
    "dry_run",
    "features.folder",
    "model.device",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
)


def read_settings(folder: Path, check: Callable[[DictConfig], Settings] = checked) -> Settings:
    """The settings that a run folder was made with.

    Raises:
        UserError: they are missing, or not (any more) what `check` takes.
    """
    config = read_recorded(folder)
    try:
        return check(config)
    except UserError as error:
        raise UserError(f"{folder / CONFIGURATION} is no configuration of this version: {error}") from error


def is_finished(folder: Path, settings: Any, check: Callable[[DictConfig], Any] = checked) -> bool:
    """Whether the folder holds the finished run of these settings, which need not be made again.

    Raises:
        UserError: it holds a finished run of other settings, which would be overwritten.
    """
    if not (folder / FINISHED).exists():
        return False
    there, here = flattened(read_settings(folder, check)), flattened(settings)
    differing = [key for key in {**there, **here} if key not in IMMATERIAL and there.get(key) != here.get(key)]
    if differing:
        shown = "; ".join(f"{key} is {there.get(key)} there, {here.get(key)} here" for key in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"{folder} holds a finished run of another configuration ({shown}{more}); nothing was overwritten. Give "
            "another folder (hydra.run.dir=FOLDER, in a sweep hydra.sweep.dir=FOLDER), or move that one away"
        )
    return True


def record_configuration(folder: Path, config: DictConfig, hydra: Any) -> None:
    """Writes `.hydra/` from the configuration and Hydra's own, as Hydra would before anything could be checked."""
    place = folder / ".hydra"
    place.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(hydra, place / "hydra.yaml")
    OmegaConf.save(hydra.overrides.task, place / "overrides.yaml")
    OmegaConf.save(looked_up(config), place / "config.yaml")


def flattened(settings: Any) -> dict[str, Any]:
    """Every setting by its dotted key; lists are values."""
    return dict(_leaves(OmegaConf.to_container(settings, resolve=True), ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def objective(summaries: Sequence[Summary]) -> float:
    """What a search maximises: the mean headline score on *validation* images over all probes of the network itself.

    Test images have no part in it. NaN if no such score is defined.
    """
    from diffprobe.probes.properties import property_named

    scores = [
        row.mean
        for row in summaries
        if (row.control, row.split) == ("none", "validation")
        and row.metric == property_named(row.property).headline
        and row.mean is not None
    ]
    return fmean(scores) if scores else math.nan


def objective_of(folder: Path) -> float:
    """The objective of a finished run, from its tables."""
    from diffprobe.probes.tables import read_summary

    return objective(read_summary(folder / "summary.csv"))


def check_processes(trainer: TrainerSettings, hydra: Any) -> None:
    """Raises UserError for a sweep whose jobs would start processes of their own, which would each run the sweep."""
    several = trainer.devices * trainer.num_nodes > 1
    if several and hydra.mode.name == "MULTIRUN" and "SLURM_NTASKS" not in os.environ:
        raise UserError(
            f"trainer.devices={trainer.devices} in a sweep: a job of a sweep has one process, unless SLURM "
            "starts several (docs/sweeps.md); use trainer.devices=1"
        )
