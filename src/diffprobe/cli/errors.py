"""One clear line instead of a traceback for what the user can mend."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diffprobe.cli.composing import explain_composition
from diffprobe.cli.keys import SCRIPTS, settable_keys
from diffprobe.errors import UserError
from diffprobe.ranges import expanded
from diffprobe.runs.processes import end_children, is_helper
from diffprobe.signals import Stopped, inside, listen, stoppable

# Read before Hydra is told to raise instead of printing and exiting.
_WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"


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
                sys.argv[1:] = typed_arguments(sys.argv[1:], _conf())
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


def _script() -> str:
    """The script that is running; of another that which knows all keys."""
    script = Path(sys.argv[0]).stem
    return script if script in SCRIPTS else SCRIPTS[-1]


def _conf() -> Path:
    """The folder of configurations, beside the script that is running."""
    return Path(sys.argv[0]).resolve().parent / "conf"


def explanation(error: BaseException, conf: Path, script: str | None = None) -> str | None:
    """What to tell the user, or None for an error that is not theirs.

    Args:
        conf: the folder of configurations.
        script: 'train' or 'analyze'; by default the script that is running.
    """
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import MissingMandatoryValue

    for cause in _chain(error):
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key} is not set; give it as {cause.full_key}=VALUE"
        if type(cause).__name__ == "UncompletedJobError":  # submitit's, which need not be installed
            return f"a job of the sweep ended before it was done, the same command goes on: {_first_line(cause)}"
    if isinstance(error, InstantiationException):
        return None
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return _no_run_folder(error)
    return explain_composition(error, conf, script or _script(), sys.argv[1:])


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _no_run_folder(error: OSError) -> str | None:
    """Of Hydra, which makes the folder of a run before the run begins."""
    calls = [call.name for call in traceback.extract_tb(error.__traceback__)]
    if "run_job" not in calls or set(calls[calls.index("run_job") + 1 :]) - {"mkdir", "open", "_save_config"}:
        return None
    return (
        f"the run folder {error.filename} cannot be made ({error.strerror}); name another, hydra.run.dir=FOLDER "
        "(of a sweep hydra.sweep.dir=FOLDER)"
    )


def typed_arguments(arguments: list[str], conf: Path) -> list[str]:
    """A command line as Hydra takes it: flags before overrides, ~ at the beginning of a path replaced, which a shell
    does for few of them, and ++ before a setting that no choice in the folder of configurations has: the class that
    takes it, or not, is known when all is composed (`trainer.gradient_clip_val=1`).

    Raises:
        UserError: ~user of a user who is not there.
    """
    flags = [item for item in arguments if item in ("-m", "--multirun")]
    others = [item for item in arguments if item not in flags]
    others = [re.sub(r"(?<=[=\[,'\"])~[\w.-]*(?=/|$|[,\]'\"])", _home, item) for item in others]
    return [*flags, *(f"++{item}" if _is_of_class(item, conf) else item for item in others)]


def _is_of_class(override: str, conf: Path) -> bool:
    """Whether an override sets a key in a group that no choice of the group sets."""
    key, found, _ = override.partition("=")
    group = key.partition(".")[0]
    if not found or "." not in key or not group.isidentifier() or not (conf / group).is_dir() or group == "hydra":
        return False
    return key not in settable_keys(conf)


def _home(found: re.Match[str]) -> str:
    return expanded(found[0], "the command line")
