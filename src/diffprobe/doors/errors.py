"""One clear line instead of a traceback for what the user can mend."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from diffprobe.doors.children import end_children, is_helper
from diffprobe.errors import UserError
from diffprobe.signals import Stopped, inside, listen, stoppable

# Read before Hydra is told to raise instead of printing and exiting.
_WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"
# Choices of Hydra's own groups that come with an extra of this package.
_EXTRAS = {
    "hydra/launcher": dict.fromkeys(("joblib", "submitit_local", "submitit_slurm"), "sweep"),
    "hydra/sweeper": {"optuna": "hpo"},
}


def plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a Hydra main: user errors print one line and exit with 1, SIGTERM with 143, Ctrl-C with 130.

    All other exceptions keep their traceback; `HYDRA_FULL_ERROR=1` shows it for user errors too. The job of the main
    needs it as well (see `job_errors`), since Hydra adds lines of its own otherwise.
    """

    @functools.wraps(function)
    def guarded(*arguments: Any) -> Any:
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            with stoppable():
                return function(*arguments)
        except Stopped as stopped:
            end_children()
            if is_helper():  # Lightning would kill the process that started this one, which has yet to close its files
                raise SystemExit(0) from None
            print(stopped.line, file=sys.stderr, flush=True)
            raise SystemExit(stopped.code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            line = explanation(error, _conf())
            if line is None or _WANTS_TRACEBACK:
                raise
            print(f"error: {line}", file=sys.stderr)
            raise SystemExit(1) from None

    return guarded


def job_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates the job of a Hydra main: as `plain_errors` for a job of its own; one of a sweep tells its error at once
    and hands it to Hydra, so that the other jobs go on, and the sweep fails when all have ended."""

    @functools.wraps(function)
    def guarded(*arguments: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode != RunMode.MULTIRUN:
            return plain_errors(function)(*arguments)
        alone = not inside()  # a process that a launcher has started
        if alone:
            listen()  # until it has ended
        try:
            with stoppable():
                return function(*arguments)
        except Stopped as stopped:
            if alone:
                print(f"job {HydraConfig.get().job.num} {stopped.line}", file=sys.stderr, flush=True)
            raise
        except Exception as error:
            line = explanation(error, _conf())
            told = traceback.format_exc() if line is None or _WANTS_TRACEBACK else line
            print(f"job {HydraConfig.get().job.num} failed: {told}", file=sys.stderr, flush=True)
            if line is None:
                raise
            raise UserError(line) from None

    return guarded


def _conf() -> Path:
    """The folder of configurations, beside the script that is running."""
    return Path(sys.argv[0]).resolve().parent / "conf"


def explanation(error: BaseException, conf: Path) -> str | None:
    """What to tell the user, or None for an error that is not theirs. `conf` is the folder of configurations."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import MissingMandatoryValue

    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key} is not set; give it as {cause.full_key}=VALUE"
        if type(cause).__name__ == "UncompletedJobError":  # submitit's, which need not be installed
            return f"a job of the sweep ended before it was done, the same command goes on: {_first_line(cause)}"
    if isinstance(error, InstantiationException) or not isinstance(error, HydraException):
        return None
    text = " ".join(str(error).split())
    return _unknown_choice(text) or _unknown_key(text, conf) or text


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unknown_choice(text: str) -> str | None:
    """Hydra's message for `model=pockt`."""
    found = re.search(
        r"Could not find '([^']+)/([^'/]+)' Available options in '[^']*': (.*?)(?: Config search|$)", text
    )
    if not found:
        return None
    group, choice, options = found.groups()
    if choice in _EXTRAS.get(group, {}):
        return f"{group}={choice} needs the extra {_EXTRAS[group][choice]!r}: see docs/sweeps.md for its installation"
    names = re.findall(r"[\w./+-]+", options)
    near = get_close_matches(choice, names, n=1, cutoff=0.3)
    hint = f"did you mean {group}={near[0]}? " if near else ""
    return f"{group} has no choice {choice!r}; {hint}Choices: {', '.join(names)}"


def _unknown_key(text: str, conf: Path) -> str | None:
    """Hydra's messages for `trainr.devices=2` and `+modle=pocket`."""
    found = re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text)
    if not found:
        return None
    key = found.group(1).lstrip("+~").split("=")[0].split("@")[0]
    near = get_close_matches(key, valid_keys(conf), n=1, cutoff=0.4)
    hint = f"the nearest valid key is {near[0]!r}" if near else "--help lists the valid keys"
    return f"unknown key {key!r}; {hint}"


def valid_keys(conf: Path) -> list[str]:
    """Every group, key and group.key that the configuration folder defines."""
    import yaml

    files = [path for path in conf.rglob("*.yaml") if not path.is_relative_to(conf / "hydra")]  # its keys are Hydra's
    groups = {str(path.parent.relative_to(conf)) for path in files if path.parent != conf}
    keys = set(groups)
    for path in files:
        text = path.read_text()
        content = yaml.safe_load(text) or {}
        at_the_top = path.parent == conf or text.startswith("# @package _global_")
        keys |= set(_keys(content if at_the_top else {path.parent.name: content}))
    return sorted(keys)


def _keys(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        if name in ("defaults", "hydra", "_target_"):
            continue
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
