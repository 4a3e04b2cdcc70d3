"""Trackers: where a run is followed from. Both leave the run folder as the record and add to it.

A tracker is a context manager: however its block ends (well, by an exception, by Ctrl-C), the run is finished in it.

Rows and pictures as what Weights & Biases shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
from pandas import DataFrame

from diffprobe.errors import UserError
from diffprobe.files import replacing
from diffprobe.ranges import Choice, Name
from diffprobe.report.report import STEP, Example, Report

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


def import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError("wandb is not installed: 'pip install wandb', or run with logger=csv") from error
    return wandb


def table_of(data: DataFrame) -> Any:
    """A table whose missing values are None."""
    rows = data.astype(object).where(data.notna(), None).to_numpy().tolist()
    return import_wandb().Table(columns=list(data.columns), data=rows)


def wandb_figure(path: Path) -> Any:
    """A PNG file as a picture, a GIF as a film."""
    wandb = import_wandb()
    return wandb.Video(str(path), format="gif") if path.suffix == ".gif" else wandb.Image(str(path))


def overlaid(example: Example, name: str, step: int) -> Any:
    """The picture of one step with the predicted and the labelled region as masks."""
    row = list(example.steps).index(step)
    picture, overlay = next(iter(example.frames.values())).values[row], example.overlays[name]
    height, width = picture.shape[:2]

    def mask(values: np.ndarray) -> dict[str, Any]:
        lines = np.arange(height) * values.shape[0] // height  # nearest neighbour
        columns = np.arange(width) * values.shape[1] // width
        inside = (values[lines][:, columns] > 0.5).astype(np.uint8)
        return {"mask_data": inside, "class_labels": {0: "background", 1: name}}

    return import_wandb().Image(
        (picture.clip(0, 1) * 255).round().astype(np.uint8),
        caption=f"{example.title}, step {step + 1}",
        masks={"prediction": mask(overlay.predicted[row]), "label": mask(overlay.labelled)},
    )


MODES = ("offline", "online", "disabled")
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class RunName:
    """What a run is called where many are listed.

    Attributes:
        kind: what it studies: 'probing', or the kind of an analysis.
        name: the last two parts of its folder, 'probing/2026-05-04_12-00-00' or 'seeds/0'.
        group: the folder of the sweep that it is a job of, 'seeds'; None of no sweep.
    """

    kind: str
    name: str
    group: str | None = None


class Tracker(Protocol):
    """What a job needs of a tracker."""

    def __enter__(self) -> Tracker: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def lightning_logger(self, name: str) -> Logger:
        """For a Trainer; the name tells its metrics from those of another (the control's, say)."""
        ...

    def log_report(
        self, report: Report, figures: Mapping[str, Path] = NOTHING, files: Mapping[str, Sequence[Path]] = NOTHING
    ) -> None:
        """The end of a run.

        Args:
            figures: name -> PNG file, or GIF of one that moves.
            files: artifact name -> files, such as {'tables': [...], 'prototypes': [...]}.
        """
        ...

    def describe(self) -> str:
        """One line: where to look."""
        ...


class CsvTracker:
    """No service at all: training metrics and score curves as CSV files in the run folder."""

    def __init__(
        self, folder: str | Path, config: Mapping[str, Any] | None = None, called: RunName | None = None
    ) -> None:
        self.folder = Path(folder)

    def __enter__(self) -> CsvTracker:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to finish: every file is complete as soon as it is there."""

    def lightning_logger(self, name: str) -> Logger:
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(self.folder, name="training", version=name)

    def log_report(
        self, report: Report, figures: Mapping[str, Path] = NOTHING, files: Mapping[str, Sequence[Path]] = NOTHING
    ) -> None:
        """Writes curves.csv, where there are curves; all else is in the run folder already."""
        if report.scalars is not None:
            with replacing(self.folder / "curves.csv") as temporary:
                report.scalars.to_csv(temporary, index=False, lineterminator="\n")

    def describe(self) -> str:
        places = {"curves": self.folder / "curves.csv", "training metrics": self.folder / "training"}
        found = [f"{what}: {place}" for what, place in places.items() if place.exists()]
        return "; ".join(found) or f"everything is in {self.folder}"


class WandbTracker:
    """A Weights & Biases run inside the run folder: offline unless asked, so that no login or network is needed.

    Args:
        folder: the run folder; W&B's own files go to its `wandb/` folder, none to the home directory.
        config: the resolved configuration, plain values.
        called: name, group and job type of the run; W&B finds a name without it.
        mode: 'offline', 'online' or 'disabled'.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any] | None = None,
        called: RunName | None = None,
        mode: Annotated[str, Choice(*MODES)] = "offline",
        project: Annotated[str, Name()] = "diffprobe",
    ) -> None:
        if mode not in MODES:
            raise UserError(f"W&B mode '{mode}' is not one of {', '.join(MODES)}")
        self.folder = Path(folder)
        self.config = dict(config or {})
        self.mode, self.project, self.called = mode, project, called
        self._run: Any = None
        self._environment: dict[str, str | None] = {}

    def __enter__(self) -> WandbTracker:
        wandb = import_wandb()
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
                name=self.called.name if self.called else None,
                group=self.called.group if self.called else None,
                job_type=self.called.kind if self.called else None,
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

    def log_report(
        self, report: Report, figures: Mapping[str, Path] = NOTHING, files: Mapping[str, Sequence[Path]] = NOTHING
    ) -> None:
        """Curves over the denoising step, tables that have rows, figures, examples with overlays, and files as
        artifacts '<name>-<run id>'. docs/tracking.md lists the keys."""
        wandb = import_wandb()
        if report.scalars is not None:
            rows = report.scalars.to_dict("records")
            self._log_curves([{str(key): value for key, value in row.items() if value == value} for row in rows])
        tables = {name: table.data for name, table in report.tables.items() if "tracker" in table.show}
        self._run.log({f"tables/{name}": table_of(data) for name, data in tables.items() if len(data)})
        self._run.log({f"figures/{name}": wandb_figure(path) for name, path in figures.items()})
        self._log_overlays(report.examples)
        for name, paths in files.items():
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

    def _log_curves(self, rows: Sequence[Mapping[str, float]]) -> None:
        self._run.define_metric(STEP, hidden=True)
        for key in dict.fromkeys(key for row in rows for key in row if key != STEP):
            self._run.define_metric(key, step_metric=STEP)
        for row in rows:
            self._run.log(dict(row))

    def _log_overlays(self, examples: Sequence[Example]) -> None:
        """Of each example its picture with predicted and labelled regions, step by step; maps are in the figures."""
        for name in dict.fromkeys(name for example in examples for name in example.overlays):
            self._run.define_metric(f"predictions/{name}", step_metric=STEP)
            own = [example for example in examples if name in example.overlays]
            for step in sorted({step for example in own for step in example.steps}):
                images = [overlaid(example, name, step) for example in own if step in example.steps]
                self._run.log({STEP: step + 1, f"predictions/{name}": images})

    def _set_environment(self, values: Mapping[str, str]) -> None:
        self._environment = {name: os.environ.get(name) for name in values}
        os.environ.update(values)

    def _restore_environment(self) -> None:
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _exit_code(error: BaseException | None) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130  # what a shell reports for a program ended by Ctrl-C
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code  # of a signal: 128 and its number
    return 0 if error is None else 1
