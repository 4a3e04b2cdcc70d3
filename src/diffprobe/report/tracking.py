"""Trackers: where a run is followed from. Both leave the run folder as the record and add to it.

A tracker is a context manager: however its block ends (well, by an exception, by Ctrl-C), the run is finished in it.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from diffprobe.errors import UserError
from diffprobe.report.choices import Choice, control_curve, controls, curve, number
from diffprobe.report.example import PredictionExample
from diffprobe.report.files import replacing
from diffprobe.tables import NO_STEP

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from diffprobe.probes.tables import Summary

STEP = "denoising_step"
MODES = ("offline", "online", "disabled")
CLASSES = {0: "background", 1: "salient"}


@dataclass(frozen=True)
class Results:
    """What a finished study hands to its tracker.

    Attributes:
        summaries, choices: the score rows and what the report speaks of.
        figures: name -> PNG file.
        examples: images with predictions, for overlays.
        files: artifact name -> files, such as {'tables': [scores.csv, summary.csv], 'probes': [...]}.
    """

    summaries: Sequence[Summary]
    choices: Sequence[Choice]
    figures: Mapping[str, Path] = field(default_factory=dict)
    examples: Sequence[PredictionExample] = ()
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)


class Tracker(Protocol):
    """What the main job needs of a tracker."""

    def __enter__(self) -> Tracker: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def lightning_logger(self, name: str) -> Logger:
        """For a Trainer; the name tells its metrics from those of another (the control's, say)."""
        ...

    def log(self, results: Results) -> None: ...

    def describe(self) -> str:
        """One line: where to look."""
        ...


def curve_scalars(
    summaries: Sequence[Summary], choices: Sequence[Choice], split: str = "test"
) -> list[dict[str, float]]:
    """One row a step: 'denoising_step' (from 1) and '<property>/<metric>/<curve>' with its '_low' and '_high'.

    The curves are best, headline and every control by its name (one without steps is the same at every step); a
    missing score has no key. The choices are of one model and probe.
    """
    rows: dict[int, dict[str, float]] = {}
    for choice in choices:
        best = curve(summaries, choice, choice.best, split=split)
        curves = {"best": best, "headline": curve(summaries, choice, choice.headline, split=split)}
        curves |= {name: control_curve(summaries, choice, name, split) for name in controls(summaries, choice)}
        points = [(row.step, name, row) for name, line in curves.items() for row in line if row.step != NO_STEP]
        steady = [(name, row) for name, line in curves.items() for row in line if row.step == NO_STEP]
        points += [(at.step, name, row) for at in best for name, row in steady]
        for step, name, row in points:
            key = f"{choice.property}/{choice.metric}/{name}"
            values = {key: number(row.mean), f"{key}_low": number(row.low), f"{key}_high": number(row.high)}
            rows.setdefault(step, {STEP: step + 1}).update({k: v for k, v in values.items() if math.isfinite(v)})
    return [rows[step] for step in sorted(rows)]


class CsvTracker:
    """No service at all: training metrics and score curves as CSV files in the run folder."""

    def __init__(self, folder: str | Path, config: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)

    def __enter__(self) -> CsvTracker:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to finish: every file is complete as soon as it is there."""

    def lightning_logger(self, name: str) -> Logger:
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(self.folder, name="training", version=name)

    def log(self, results: Results) -> None:
        """Writes curves.csv; all else is in the run folder already."""
        rows = curve_scalars(results.summaries, results.choices)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(self.folder / "curves.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def describe(self) -> str:
        return f"score curves: {self.folder / 'curves.csv'}; training metrics: {self.folder / 'training'}"


class WandbTracker:
    """A Weights & Biases run inside the run folder: offline unless asked, so that no login or network is needed.

    Args:
        folder: the run folder; W&B's own files go to its `wandb/` folder, none to the home directory.
        config: the resolved configuration, plain values.
        mode: 'offline', 'online' or 'disabled'.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any] | None = None,
        mode: str = "offline",
        project: str = "diffprobe",
        name: str | None = None,
    ) -> None:
        if mode not in MODES:
            raise UserError(f"W&B mode '{mode}' is not one of {', '.join(MODES)}")
        self.folder = Path(folder)
        self.config = dict(config or {})
        self.mode, self.project, self.name = mode, project, name
        self._run: Any = None
        self._environment: dict[str, str | None] = {}

    def __enter__(self) -> WandbTracker:
        wandb = _wandb()
        from lightning.pytorch.utilities import rank_zero_only

        home = self.folder.resolve() / "wandb"
        home.mkdir(parents=True, exist_ok=True)
        # `dir` alone is not enough: artifacts are staged under the data directory, logs and copies under the cache.
        self._set_environment({"WANDB_DATA_DIR": str(home), "WANDB_CACHE_DIR": str(home / "cache")})
        try:
            self._run = wandb.init(
                dir=str(self.folder.resolve()),
                mode="disabled" if rank_zero_only.rank else self.mode,  # one process of a distributed run tracks
                project=self.project,
                name=self.name,
                config=self.config,
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            self._restore_environment()
            raise UserError(
                f"W&B could not start in mode '{self.mode}': {error} "
                "Run 'wandb login' once, or use logger.mode=offline or logger=csv."
            ) from error
        except BaseException as error:
            if wandb.run is not None:  # Ctrl-C while it started
                wandb.run.finish(exit_code=_exit_code(error))
            self._restore_environment()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run.finish(exit_code=_exit_code(error))
        finally:
            self._restore_environment()

    def lightning_logger(self, name: str) -> Logger:
        from lightning.pytorch.loggers import WandbLogger

        # As Lightning does for a run of its own; curves over the denoising step are defined by name, which wins.
        self._run.define_metric("trainer/global_step", hidden=True)
        self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return WandbLogger(experiment=self._run, save_dir=self.folder, prefix=name)

    def log(self, results: Results) -> None:
        """Curves over the denoising step, the summary as a table, figures, overlays, files as artifacts."""
        self._log_curves(results)
        self._log_summary(results.summaries)
        self._log_examples(results.examples)
        wandb = _wandb()
        self._run.log({f"figures/{name}": wandb.Image(str(path)) for name, path in results.figures.items()})
        for name, paths in results.files.items():
            artifact = wandb.Artifact(name=f"{name}-{self._run.id}", type=name)
            for path in paths:
                artifact.add_file(str(path), policy="immutable")  # read where it lies, not copied
            self._run.log_artifact(artifact)

    def describe(self) -> str:
        if self.mode == "online":
            return f"W&B: {self._run.url}"
        if self.mode == "disabled":
            return "W&B: disabled"
        return f"W&B, offline; to upload it: wandb sync {Path(self._run.dir).parent}"

    def _log_curves(self, results: Results) -> None:
        rows = curve_scalars(results.summaries, results.choices)
        self._run.define_metric(STEP, hidden=True)
        for key in dict.fromkeys(key for row in rows for key in row if key != STEP):
            self._run.define_metric(key, step_metric=STEP)
        for row in rows:
            self._run.log(row)

    def _log_summary(self, summaries: Sequence[Summary]) -> None:
        if summaries:
            columns = [column.name for column in fields(summaries[0])]
            data = [list(asdict(row).values()) for row in summaries]
            self._run.log({"summary": _wandb().Table(columns=columns, data=data)})

    def _log_examples(self, examples: Sequence[PredictionExample]) -> None:
        """The saliency of each example over its image, step by step; dense maps are in the figures."""
        salient = [example for example in examples if "saliency" in example.predictions]
        for step in sorted({step for example in salient for step in example.steps}):
            images = [_overlay(example, step) for example in salient if step in example.steps]
            self._run.define_metric("predictions/saliency", step_metric=STEP)
            self._run.log({STEP: step + 1, "predictions/saliency": images})

    def _set_environment(self, values: Mapping[str, str]) -> None:
        self._environment = {name: os.environ.get(name) for name in values}
        os.environ.update(values)

    def _restore_environment(self) -> None:
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError("wandb is not installed: 'pip install wandb', or run with logger=csv") from error
    return wandb


def _exit_code(error: BaseException | None) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130  # what a shell reports for a program ended by Ctrl-C
    return 0 if error is None else 1


def _overlay(example: PredictionExample, step: int) -> Any:
    """The decoded image of one step with predicted and labelled salient regions as masks."""
    row = example.steps.index(step)
    height, width = example.images.shape[1:3]

    def mask(values: np.ndarray) -> dict[str, Any]:
        lines = np.arange(height) * values.shape[0] // height  # nearest neighbour
        columns = np.arange(width) * values.shape[1] // width
        return {"mask_data": (values[lines][:, columns] > 0.5).astype(np.uint8), "class_labels": CLASSES}

    return _wandb().Image(
        (example.images[row].clip(0, 1) * 255).round().astype(np.uint8),
        caption=f"{example.title}, step {step + 1}",
        masks={"prediction": mask(example.predictions["saliency"][row]), "label": mask(example.labels["saliency"])},
    )
