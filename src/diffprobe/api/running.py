"""Runs an analysis from Python: with the settings that a command would compose, checked by the same rules."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from diffprobe.api.models import Model, as_prompts, load
from diffprobe.api.settings import compose_settings, typed
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.analyses.analysis import Analysis, RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.prototypes.collecting import Prototypes
    from diffprobe.report.report import Report

Maps = Mapping[str, "Tensor"]


@dataclass(frozen=True, eq=False)
class Finished:
    """An analysis that has run.

    Attributes:
        script: 'train' or 'analyze', whose settings these are.
        kind: 'probing', or the name of an analysis.
        details: what the analysis itself returned.
        prompts: those that were given in Python; None where the settings name them.
        labels: the name of the function that labelled images; None where the settings name a labeler.
    """

    script: str
    kind: str
    config: DictConfig
    hydra: DictConfig
    settings: Any
    report: Report
    details: Any
    seconds: float
    prompts: list[Prompt] | None = None
    labels: str | None = None


@dataclass(frozen=True)
class Given:
    """What a study is given in Python.

    Attributes:
        settings: by key, as a command takes them; None leaves one at its default.
        overrides: more of them, as they are typed.
        prompts: texts or prompts, a CSV file of them, or None for what the settings say.
        labels: a folder of maps, a labeler, a function of images, or None for what the settings say.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    prompts: str | Path | Sequence[str | Prompt] | None = None
    labels: Any = None


class FunctionLabeler:
    """Labels images by a function of Python.

    Args:
        function: images [images, 3, H, W] in [0, 1] -> {property: maps [images, H, W]}, of vectors [images, channels,
            H, W]; of one property alone it may return the maps.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function

    @property
    def name(self) -> str:
        """Of the function, with its module."""
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', type(self.function).__name__)}"

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Nothing can be said before there are images."""

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """The function's maps. Raises UserError for what are none of these images and properties."""
        import torch

        found = self.function(images)
        if not isinstance(found, Mapping):
            if len(properties) > 1:
                raise UserError(
                    f"{self.name} must return a map for each of {', '.join(properties)}: {{property: maps}}"
                )
            found = {properties[0]: found}
        missing = [name for name in properties if name not in found]
        if missing:
            raise UserError(f"{self.name} returned maps of {', '.join(found) or 'nothing'}, and none of {missing[0]}")
        maps = {name: torch.as_tensor(found[name]).detach().float().cpu() for name in properties}
        for name, values in maps.items():
            if len(values) != len(images) or values.shape[-2:] != images.shape[-2:] or values.ndim not in (3, 4):
                raise UserError(
                    f"{self.name} returned {name} of shape {list(values.shape)} for images of {list(images.shape)}; "
                    "it must be [images, height, width], of vectors [images, channels, height, width]"
                )
        return maps

    def fingerprint(self, name: str) -> str:
        """The function's name: what it computes cannot be known, so nothing is kept under it."""
        return self.name


def run_analysis(script: str, model: str | Path | Model | None, given: Given, *, verbose: bool) -> Finished:
    """Runs `train.py` or `analyze.py` with what is given, in this process, and writes nothing but stores.

    Args:
        model: as of `load`; None of an analysis that needs none.
        verbose: prints the plan, and shows progress.

    Raises:
        UserError: of what the user got wrong, before any work is done.
    """
    started = time.perf_counter()
    with _prepared(script, model, given, verbose) as ready:
        analysis, task, context = ready.analysis, ready.task, ready.context
        details = analysis.run(task, context)
        report = analysis.report(task, details, context)
        seconds = time.perf_counter() - started
        return Finished(
            script, ready.kind, *ready.composed, ready.settings, report, details, seconds, ready.prompts, ready.labels
        )


def collect_prototypes(model: str | Path | Model, given: Given, *, verbose: bool) -> Prototypes:
    """The prototypes that `analyze.py` would compare. Raises UserError as `run_analysis`."""
    with _prepared("analyze", model, given, verbose) as ready:
        return ready.analysis.run(ready.task, ready.context).unchanged


@dataclass(frozen=True, eq=False)
class _Ready:
    """An analysis whose inputs are checked."""

    kind: str
    composed: tuple[DictConfig, DictConfig]
    settings: Any
    analysis: Analysis
    task: Any
    context: RunContext
    prompts: list[Prompt] | None
    labels: str | None


@contextmanager
def _prepared(script: str, model: str | Path | Model | None, given: Given, verbose: bool) -> Iterator[_Ready]:
    """Composes and checks what is given; the files that stand for Python objects are there inside."""
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.cli.running import chosen_analysis
    from diffprobe.runs.folder import read_settings
    from diffprobe.runs.trainers import check_trainer, quiet_libraries

    chosen = load(model) if isinstance(model, str | Path) else model
    log = print if verbose else _nothing
    with TemporaryDirectory() as folder, quiet_libraries(), _interruptible():
        settings, prompts = dict(given.settings), None
        if isinstance(given.prompts, Path) or _names_a_file(given.prompts):
            settings["data.prompts"] = given.prompts
        elif given.prompts is not None:
            prompts = as_prompts(given.prompts)
            settings["data.prompts"] = write_prompts(Path(folder) / "prompts.csv", prompts)
        labeler = None
        if isinstance(given.labels, str | Path):
            settings |= {"labeler": "files", "labeler.path": given.labels}
        elif given.labels is not None:
            labeler = given.labels if hasattr(given.labels, "check") else FunctionLabeler(given.labels)
        overrides = [*(chosen.overrides if chosen else ()), "callbacks=tqdm", *typed(settings), *given.overrides]
        composed, checked = compose_settings(script, overrides)
        if checked.trainer.devices * checked.trainer.num_nodes > 1:
            raise UserError("several processes are started by commands; in Python use trainer.devices=1")
        check_trainer(checked)
        kind, analysis = chosen_analysis(checked)
        inputs = Inputs(checked, log, read_settings)
        if chosen is not None:
            _give(inputs, "backbone", chosen.backbone)
        if labeler is not None:
            _give(inputs, "labeler", labeler)
        task = analysis.check(inputs)
        for line in analysis.plan(task).summary:
            log(line)
        context = _context(checked, log, verbose)
        yield _Ready(kind, composed, checked, analysis, task, context, prompts, labeler and _name_of(labeler))


def _name_of(labeler: Any) -> str:
    kind = type(labeler)
    return labeler.name if isinstance(labeler, FunctionLabeler) else f"{kind.__module__}.{kind.__qualname__}"


def _names_a_file(prompts: Any) -> bool:
    return isinstance(prompts, str) and prompts.lower().endswith((".csv", ".tsv", ".txt"))


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> Path:
    """A CSV file as `data.prompts` takes it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompts", "seeds", "prompt_inds"])
        for place, prompt in enumerate(prompts):
            parts = prompt.name.split("_")
            known = len(parts) == 4 and parts[0] == "prompt" and parts[1].isdigit()
            writer.writerow([prompt.text, prompt.seed, parts[1] if known else place])
    return path


def _give(inputs: Inputs, part: str, value: Any) -> None:
    """Has a part of the inputs be a given object; it would be made of the settings otherwise."""
    vars(inputs)[part] = value


def _context(settings: Any, log: Callable[[str], None], verbose: bool) -> RunContext:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.runs.trainers import make_trainer

    shown = settings.copy()
    if not verbose:
        shown.callbacks = {}

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        from diffprobe.activations.progress import quiet_tqdm

        with quiet_tqdm(total=total, desc=what, leave=False, disable=not verbose) as bar:
            yield lambda done: bar.update(done - bar.n) and None

    return RunContext(settings.seed, partial(make_trainer, shown, tracker=None), log, progress)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning ends the process at Ctrl-C; a notebook's own has to go on."""
    try:
        yield
    except SystemExit as end:
        raise KeyboardInterrupt from end


def _nothing(line: str) -> None:
    """Takes a line that is not wanted."""
