"""Writes what a study in Python found as a run folder, as the commands do."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffprobe.errors import UserError
from diffprobe.files import write_text

if TYPE_CHECKING:
    from diffprobe.api.running import Finished


def save(finished: Finished, folder: Path, *, track: bool) -> Path:
    """The folder, finished. Raises UserError where it holds something else, or a finished run."""
    from diffprobe.api.running import write_prompts
    from diffprobe.report.publish import publish
    from diffprobe.report.tracking import RunName, Tracker
    from diffprobe.runs.environment import environment, reproduce
    from diffprobe.runs.folder import FINISHED, record_configuration, remove_results, run_lock
    from diffprobe.runs.trainers import quiet_libraries
    from diffprobe.terminal import plain_console

    folder = folder.expanduser()
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if (folder / FINISHED).exists() or (there and ".hydra" not in there):
        raise UserError(f"{folder} is not empty ({there[0]}); nothing was written. Give a new folder")
    config, hydra = finished.config.copy(), finished.hydra.copy()
    if finished.prompts is not None:
        config.data.prompts = str(folder / "prompts.csv")
    if finished.labels is not None:
        config.labeler = {"_target_": finished.labels}
    overrides = [item for item in hydra.overrides.task if not item.startswith("callbacks=")]
    if finished.prompts is not None:
        overrides = [
            f"data.prompts={folder / 'prompts.csv'}" if item.startswith("data.prompts=") else item for item in overrides
        ]
    hydra.overrides.task = overrides
    seeds, evaluations = {"seed": finished.settings.seed}, finished.report.evaluations
    with run_lock(folder, print), quiet_libraries():
        remove_results(folder)
        if finished.prompts is not None:
            write_prompts(folder / "prompts.csv", finished.prompts)
        record_configuration(folder, config, hydra)
        plain: Any = OmegaConf.to_container(config, resolve=True)
        place = folder.resolve()
        name = RunName(finished.kind, f"{place.parent.name}/{place.name}")
        again = reproduce(folder, overrides, seeds, finished.script)
        if finished.labels is not None:
            again[0] = ("made by", f"Python, with labels of {finished.labels}")
        with Tracker(finished.settings.logger, folder, plain, name) if track else nullcontext() as tracker:
            publish(
                finished.report,
                folder=folder,
                console=plain_console(quiet=True),
                tracker=tracker,
                config=plain,
                reproduce=again,
            )
        record = environment(seeds=seeds, wall_seconds=finished.seconds, network_evaluations=evaluations)
        write_text(folder / FINISHED, json.dumps({**record, "command": sys.argv[:1]}, indent=2) + "\n")
    return folder
