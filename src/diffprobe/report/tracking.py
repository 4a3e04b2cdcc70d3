"""The logger of a run: a logger of Lightning that `conf/logger` names, and what a run logs beside training metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame

from diffprobe.errors import UserError, one_line
from diffprobe.files import replacing
from diffprobe.parts import make
from diffprobe.report.report import STEP, Example, Report
from diffprobe.signals import Stopped
from diffprobe.signatures import signature_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch.loggers import Logger

ENDS = ("_low", "_high")  # of the names of curves: ends of intervals
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class RunName:
    """The name of a run where many are listed.

    Attributes:
        kind: what it studies: 'probing', or the name of an analysis.
        name: the last two parts of its folder, 'probing/2026-05-04_12-00-00' or 'seeds/0'.
        group: the folder of its sweep, 'seeds'; None outside a sweep.
    """

    kind: str
    name: str
    group: str | None = None


class Tracker:
    """Logs one run, within a `with` block; however the block ends (Ctrl-C too), the run ends in its logger.

    A `WandbLogger` gets curves, tables, figures, examples and files, an `MLFlowLogger` settings, curves and files, a
    `TensorBoardLogger` settings, curves and figures. With a `CSVLogger` the run folder has them, and the curves as
    curves.csv. The logger's arguments win over those that the run would give.

    Args:
        chosen: `_target_` and arguments of one of these, or of a logger that takes `save_dir`, `name` and `version`.
        folder: the run folder. Nothing is written elsewhere.
        config: the resolved configuration, plain values.
    """

    def __init__(
        self, chosen: Mapping[str, Any], folder: Path, config: Mapping[str, Any] = NOTHING, name: RunName | None = None
    ) -> None:
        self._chosen, self._folder, self._config, self._name = chosen, folder, dict(config), name
        self._run: Any = None  # of W&B
        self._mlflow_run: str | None = None
        self._environment: dict[str, str | None] = {}

    def __enter__(self) -> Tracker:
        if self._chosen["_target_"].endswith(".WandbLogger"):
            self._start_wandb()
        else:
            self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._run is not None:
                self._finish(error)
            if self._mlflow_run is not None:
                client: Any = self._mlflow_logger("").experiment
                client.set_terminated(self._mlflow_run, "FINISHED" if error is None else "FAILED")
        finally:
            self._restore_environment()

    def _finish(self, error: BaseException | None) -> None:
        """Ends the run. SLURM sends SIGTERM to all processes of a job, and W&B's own ends before it can note that."""
        try:
            self._run.finish(exit_code=_exit_code(error))
        except Exception:
            if not isinstance(error, Stopped):
                raise
            with suppress(Exception):  # that process is gone; without this W&B would tell so again at the very end
                import_wandb().teardown()

    def training_logger(self, stage: str) -> Logger:
        """For a Trainer. The stage, 'train' or 'train_control', tells its metrics from those of another."""
        if self._is("MLFlowLogger"):
            return self._mlflow_logger(stage)
        if self._run is None:
            return make({"save_dir": str(self._folder), "name": "training", "version": stage, **self._chosen})
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(experiment=self._run, save_dir=self._folder, prefix=stage)

    def log_report(
        self, report: Report, figures: Mapping[str, Path] = NOTHING, files: Mapping[str, Sequence[Path]] = NOTHING
    ) -> None:
        """Logs the end of a run; docs/tracking.md lists the keys.

        Args:
            figures: name -> PNG file, or GIF of one that moves.
            files: artifact name -> files, such as {'tables': [...], 'prototypes': [...]}.
        """
        if self._run is not None:
            self._log_to_wandb(report, figures, files)
        elif report.scalars is not None:
            with replacing(self._folder / "curves.csv") as temporary:
                report.scalars.to_csv(temporary, index=False, lineterminator="\n")
        if self._is("MLFlowLogger", "TensorBoardLogger"):
            self._log_to_another(report.scalars, figures, files)

    def describe(self) -> str:
        """One line: where to look."""
        if self._mlflow_run is not None:
            return f"MLflow, run {self._mlflow_run} of {self._chosen.get('tracking_uri') or 'the default server'}"
        if self._run is None:
            places = {"curves": self._folder / "curves.csv", "training metrics": self._folder / "training"}
            there = [f"{what}: {place}" for what, place in places.items() if place.exists()]
            return "; ".join(there) or f"everything is in {self._folder}"
        if self._run.settings.mode == "disabled":
            return "W&B: disabled"
        if self._run.settings.mode == "online":
            return f"W&B: {self._run.url}"
        return f"W&B, offline; to upload it: wandb sync {Path(self._run.dir).parent}"

    def _check(self) -> None:
        """Raises UserError, before any work, for a logger that cannot be made."""
        target = self._chosen["_target_"]
        takes = signature_of(target)
        writes = takes is not None and {"save_dir", "name", "version"} <= takes.arguments.keys()
        if not writes and not self._is("MLFlowLogger"):
            raise UserError(
                f"logger._target_={target}: is no logger that writes into a folder; choose CSVLogger, "
                "TensorBoardLogger, MLFlowLogger or WandbLogger of lightning.pytorch.loggers"
            )
        try:
            self.training_logger("train")
        except Exception as error:  # a missing package, an argument, or whatever a server makes its client raise
            raise UserError(f"logger._target_={target}: {one_line(error)}") from error

    def _is(self, *names: str) -> bool:
        """Whether the logger is one of these classes of Lightning."""
        return self._chosen["_target_"].rpartition(".")[2] in names

    def _mlflow_logger(self, stage: str) -> Any:
        """A logger of the same MLflow run for every stage; the first one begins it, with the settings."""
        of_run = {"save_dir": str(self._folder), "run_name": self._name.name if self._name else None}
        logger: Any = make({**of_run, **self._chosen, "run_id": self._mlflow_run, "prefix": stage})
        if self._mlflow_run is None:
            self._mlflow_run = logger.run_id
            logger.log_hyperparams(self._config)
        return logger

    def _log_to_another(
        self, scalars: DataFrame | None, figures: Mapping[str, Path], files: Mapping[str, Sequence[Path]]
    ) -> None:
        """Curves by the denoising step; to MLflow files, to TensorBoard settings and figures."""
        logger: Any = self.training_logger("" if self._is("MLFlowLogger") else "curves")
        for row in [] if scalars is None else scalars.to_dict("records"):
            values = {str(key): value for key, value in row.items() if key != STEP and value == value}
            if values and row[STEP] == row[STEP]:
                logger.log_metrics(values, step=int(row[STEP]))
        if self._is("MLFlowLogger"):
            for name, paths in {**files, "figures": figures.values()}.items():
                for path in paths:
                    logger.experiment.log_artifact(self._mlflow_run, str(path), name)
            return
        logger.log_hyperparams(self._config)
        for name, path in figures.items():
            if path.suffix == ".png":
                logger.experiment.add_image(f"figures/{name}", _pixels(path), dataformats="HWC")
        logger.finalize("success")

    def _start_wandb(self) -> None:
        home = self._folder.resolve() / "wandb"
        home.mkdir(parents=True, exist_ok=True)
        # `dir` alone is not enough: artifacts are staged under the data directory, logs and copies under the cache.
        # WANDB_MODE is what the logger sets for `offline: true`.
        self._environment = {name: os.environ.get(name) for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_MODE")}
        os.environ.update({"WANDB_DATA_DIR": str(home), "WANDB_CACHE_DIR": str(home / "cache")})
        try:
            wandb = import_wandb()
            of_run = (
                {"name": self._name.name, "group": self._name.group, "job_type": self._name.kind} if self._name else {}
            )
            settings = wandb.Settings(silent=True, console="off")
            run = {
                "save_dir": str(self._folder.resolve()),
                "resume": None,
                "config": self._config,
                "settings": settings,
            }
            with _finished_if_interrupted(wandb):
                self._run = make({**of_run, **self._chosen}, **run).experiment
        except BaseException:
            self._restore_environment()
            raise

    def _log_to_wandb(self, report: Report, figures: Mapping[str, Path], files: Mapping[str, Sequence[Path]]) -> None:
        wandb = import_wandb()
        if report.scalars is not None:
            self._log_curves(report.scalars)
        tables = {name: table.data for name, table in report.tables.items() if "tracker" in table.show}
        self._run.log({f"tables/{name}": _table(data) for name, data in tables.items() if len(data)})
        self._run.log({f"figures/{name}": _figure(path) for name, path in figures.items()})
        self._log_overlays(report.examples)
        for name, paths in files.items():
            artifact = wandb.Artifact(name=f"{name}-{self._run.id}", type=name)
            for path in paths:
                artifact.add_file(str(path), policy="immutable")  # read where it lies, not copied
            self._run.log_artifact(artifact)

    def _log_curves(self, scalars: DataFrame) -> None:
        self._run.define_metric(STEP, hidden=True)
        for key in scalars.columns.drop(STEP):
            # The summary of a run is read as a list, in a terminal too: the ends of intervals are in the curves alone
            self._run.define_metric(key, step_metric=STEP, summary="none" if key.endswith(ENDS) else "last")
        for row in scalars.to_dict("records"):
            self._run.log({str(key): value for key, value in row.items() if value == value})

    def _log_overlays(self, examples: Sequence[Example]) -> None:
        """Of each example its picture with predicted and labelled regions, step by step; maps are in the figures."""
        for name in dict.fromkeys(name for example in examples for name in example.overlays):
            self._run.define_metric(f"predictions/{name}", step_metric=STEP)
            own = [example for example in examples if name in example.overlays]
            for step in sorted({step for example in own for step in example.steps}):
                images = [_overlaid(example, name, step) for example in own if step in example.steps]
                self._run.log({STEP: step + 1, f"predictions/{name}": images})

    def _restore_environment(self) -> None:
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def import_wandb() -> Any:
    """The package. Raises UserError where it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise UserError("wandb is not installed: 'pip install wandb', or run with logger=csv") from error
    return wandb


@contextmanager
def _finished_if_interrupted(wandb: Any) -> Iterator[None]:
    """Inside, a run of W&B starts. Raises UserError where it cannot; a run that Ctrl-C interrupts is finished."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            raise UserError(
                f"W&B could not start: {one_line(error)} "
                "Run 'wandb login' once, or use logger.mode=offline or logger=csv."
            ) from error
        if wandb.run is not None:
            wandb.run.finish(exit_code=_exit_code(error))
        raise


def _table(data: DataFrame) -> Any:
    """A table whose missing values are None."""
    rows = data.astype(object).where(data.notna(), None).to_numpy().tolist()
    return import_wandb().Table(columns=list(data.columns), data=rows)


def _figure(path: Path) -> Any:
    """A PNG file as a picture, a GIF as a film."""
    wandb = import_wandb()
    return wandb.Video(str(path), format="gif") if path.suffix == ".gif" else wandb.Image(str(path))


def _pixels(path: Path) -> np.ndarray:
    """A picture file as [height, width, 3] uint8."""
    from PIL import Image

    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def _overlaid(example: Example, name: str, step: int) -> Any:
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


def _exit_code(error: BaseException | None) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130  # what a shell reports for a program ended by Ctrl-C
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code  # of a signal: 128 and its number
    return 0 if error is None else 1
