"""A run folder: its recorded configuration, whether its run is finished, its lock, and its results."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.errors import UserError, one_line
from diffprobe.files import remove_leftovers, replacing
from diffprobe.parts import check_recorded, targets
from diffprobe.runs.settings import checked, flattened, leaves

CONFIGURATION = ".hydra/config.yaml"
FINISHED = "environment.json"  # the last file of a run
# What a run writes beside its configuration, logs and tracked runs.
_RESULTS = (
    "*.csv",
    "scores.parquet",
    "report.txt",
    "report.html",
    "certificate.json",
    "tables/*",
    "figures/*",
    "probes/*",
    "prototypes/*",
    "training/*/*",
)
# Settings that change no number of a run, only where and how fast it is made.
RUN_ONLY_KEYS = (
    "job",
    "dry_run",
    "features.folder",
    "model.device",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
)
_LOGS = (".log", ".out", ".err")
_LARGEST = 2**20  # bytes of a recorded file; those of runs have some thousand
_DEEPEST = 32
# ${key} stands for another value of the same configuration; ${name:...} calls a resolver, such as oc.env.
_LOOKUP = re.compile(r"\$\{[^{}]*:")
_ANOTHER = "another folder (hydra.run.dir=FOLDER, in a sweep hydra.sweep.dir=FOLDER)"


# Classes that older runs name
_MOVED = {
    "diffprobe.probes.properties.PropertySelection": "diffprobe.properties.PropertySelection",
    "diffprobe.analyses.comparison.Comparison": "diffprobe.analyses.comparison.analysis.Comparison",
}


def read_recorded(folder: Path) -> DictConfig:
    """The recorded configuration of a run.

    A run folder may come from a stranger, so nothing outside of it is looked up (such as environment variables), no
    YAML tag makes an object, and aliases, which can make a small file large, are refused.

    Raises:
        UserError: it is missing, no configuration, or more than data.
    """
    path = folder / CONFIGURATION
    config = _load(path)
    if not isinstance(config, DictConfig) or not config:
        raise UserError(f"{path} is no configuration of a run: it must be a mapping")
    for key, value in leaves(OmegaConf.to_container(config)):
        lookup = _LOOKUP.search(key) or _LOOKUP.search(str(value))
        if lookup:
            raise UserError(
                f"{path}: {key} looks up {lookup.group()}...}} where it is read, and a run folder may only hold what "
                "was found there; put the value in its place"
            )
    for group in config.values():
        if isinstance(group, DictConfig) and group.get("_target_") in _MOVED:
            group["_target_"] = _MOVED[group["_target_"]]
    return config


def read_overrides(folder: Path) -> list[str]:
    """The overrides that were typed for a run, unresolved.

    Raises:
        UserError: the file is missing, or no list.
    """
    path = folder / ".hydra" / "overrides.yaml"
    overrides: Any = OmegaConf.to_container(_load(path)) or []
    if not isinstance(overrides, list):
        raise UserError(f"{path} is no list of overrides")
    return [str(item) for item in overrides]


def _load(path: Path) -> Any:
    """A YAML file that is data, with neither aliases nor tags, and neither large nor deep."""
    import yaml

    try:
        size = path.stat().st_size
        if not path.is_file():  # a pipe or device may never end
            raise UserError(f"{path} is no file")
        if size > _LARGEST:
            raise UserError(f"{path} has {size} bytes, and the configuration of a run has at most {_LARGEST}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the configuration of the run: {path} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not YAML: it is no text in UTF-8") from error
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{path} refers to itself (*{event.anchor}), which no run records")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise UserError(f"{path} is no configuration of a run: more than {_DEEPEST} levels deep")
        return OmegaConf.load(path)
    except UserError:
        raise
    except Exception as error:  # of PyYAML and OmegaConf alike
        raise UserError(f"{path} is not YAML: {one_line(error)}") from error


def record_configuration(folder: Path, config: DictConfig, hydra: Any) -> None:
    """Writes `.hydra/` as Hydra would have done before anything could be checked.

    Lookups outside of the configuration, such as `${oc.env:HOME}`, are recorded as the values that were found. The
    configuration is written last: without it there is no run that could go on.
    """
    place = folder / ".hydra"
    place.mkdir(parents=True, exist_ok=True)
    resolved = _with_lookups(OmegaConf.to_container(config), OmegaConf.to_container(config, resolve=True))
    contents = {
        "hydra.yaml": hydra,
        "overrides.yaml": hydra.overrides.task,
        Path(CONFIGURATION).name: OmegaConf.create(resolved),
    }
    for name, content in contents.items():
        with replacing(place / name) as temporary:
            OmegaConf.save(content, temporary)


def _with_lookups(written: Any, resolved: Any) -> Any:
    if isinstance(written, dict):
        return {name: _with_lookups(inner, resolved[name]) for name, inner in written.items()}
    if isinstance(written, list):
        return [_with_lookups(*pair) for pair in zip(written, resolved, strict=True)]
    return resolved if isinstance(written, str) and _LOOKUP.search(written) else written


def read_settings(folder: Path, check: Callable[[DictConfig], Any] = checked, also: Collection[str] = ()) -> Any:
    """The settings that a run folder was made with.

    Args:
        also: classes that they may name beside those of this package, see `check_recorded`.

    Raises:
        UserError: they are missing, name another class, or are not (any more) what `check` takes.
    """
    config = read_recorded(folder)
    check_recorded(config, also)
    try:
        return check(config)
    except UserError as error:
        raise UserError(f"{folder / CONFIGURATION} is no configuration of this version: {error}") from error


def is_finished(folder: Path, settings: Any, check: Callable[[DictConfig], Any] = checked) -> bool:
    """Whether the folder holds the finished run of these settings; if not, their unfinished run may go on there.

    Raises:
        UserError: it holds a run of other settings, or files of no run but for logs.
    """
    finished = (folder / FINISHED).exists()
    if finished or (folder / CONFIGURATION).exists():
        own = {target for _, target in targets(OmegaConf.to_container(settings))}
        there, here = flattened(read_settings(folder, check, own)), flattened(settings)
        differing = [key for key in {**there, **here} if key not in RUN_ONLY_KEYS and there.get(key) != here.get(key)]
        if differing:
            shown = "; ".join(f"{key} is {there.get(key)} there, {here.get(key)} here" for key in differing[:3])
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise UserError(
                f"{folder} holds {'a finished' if finished else 'an unfinished'} run of another configuration "
                f"({shown}{more}); nothing was overwritten. Give {_ANOTHER}, or move that one away"
            )
        return finished
    foreign = sorted(path.name for path in folder.iterdir() if not _is_log(path)) if folder.is_dir() else []
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{folder} is not empty ({foreign[0]}{more}) and holds no run that could go on; nothing was written. "
            f"Give {_ANOTHER}, or move those files away"
        )
    return False


def _is_log(path: Path) -> bool:
    """Whether it is a hidden file, or what a shell, SLURM or W&B writes into a run folder before the run."""
    return path.name.startswith(".") or path.name in ("wandb", "log", "log.txt") or path.suffix in _LOGS


@contextmanager
def run_lock(folder: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Inside, no other process makes a run in the folder; temporary files of dead processes are removed first.

    Raises:
        UserError: another process is making a run there.
    """
    from filelock import FileLock, Timeout

    place = folder / ".hydra"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / ".lock")  # the system releases it when the process ends, however it ends
    locked = True
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"another process is making a run in {folder}; wait for it, or give {_ANOTHER}") from None
    except (OSError, NotImplementedError) as error:
        locked = False
        log(f"cannot lock {folder} ({error}): see to it that no other process makes a run there")
    try:
        for part in (folder, *(path for path in folder.iterdir() if path.is_dir() and path.name != "wandb")):
            remove_leftovers(part, all_machines=locked)
        yield
    finally:
        lock.release()


def remove_results(folder: Path) -> None:
    """Removes the tables, figures, probes and reports that a run or a gathered sweep wrote to a folder."""
    for path in (path for pattern in _RESULTS for path in folder.glob(pattern) if path.is_file()):
        path.unlink(missing_ok=True)


def begun_jobs(folder: Path) -> list[Path]:
    """The folders of a sweep's jobs, finished or not, in the order of their numbers, then of their names."""
    begun = sorted(path.parent for path in folder.glob("*/.hydra"))
    return sorted(begun, key=lambda path: (not path.name.isdigit(), int(path.name) if path.name.isdigit() else 0))
