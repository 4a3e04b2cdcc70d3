"""One clear line instead of a traceback for what the user can mend."""

from __future__ import annotations

import functools
import gc
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from diffprobe.cli.conf import search_own_conf
from diffprobe.cli.keys import SCRIPTS, explain_key, read_conf, typed_arguments
from diffprobe.errors import SharedError, UserError
from diffprobe.runs.preemption import requeue_if_preempted
from diffprobe.runs.processes import end_children, is_helper
from diffprobe.signals import Stopped, inside, listen, stoppable

_OURS = "DIFFPROBE_RAISES"  # set where not the user has set HYDRA_FULL_ERROR; jobs of a sweep inherit both
# Read before Hydra is told to raise instead of printing and exiting.
_WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1" and _OURS not in os.environ
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
        if os.environ.get("HYDRA_FULL_ERROR") != "1":
            os.environ.update({"HYDRA_FULL_ERROR": "1", _OURS: "1"})
        try:
            with stoppable():
                search_own_conf()
                sys.argv[1:] = typed_arguments(sys.argv[1:])
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
            line = explanation(error)
            if line is None or _WANTS_TRACEBACK:
                raise
            if not _told_by_another(error):
                print(f"error: {line}", file=sys.stderr)
            raise SystemExit(1) from None
        finally:
            gc.enable()  # which the scripts disable for the time of their imports

    return guarded


def job_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates the job of a Hydra main: `plain_errors`, but for a job of a sweep.

    That prints its error at once and raises it, so that Hydra goes on with the other jobs and fails when all have
    ended.
    """

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
                if requeue_if_preempted():
                    stopped.hint = "SLURM needs its place, and starts it again later"
                print(f"job {HydraConfig.get().job.num} {stopped.line}", file=sys.stderr, flush=True)
            raise
        except Exception as error:
            line = explanation(error)
            text = traceback.format_exc() if line is None or _WANTS_TRACEBACK else line
            print(f"job {HydraConfig.get().job.num} failed: {text}", file=sys.stderr, flush=True)
            if line is None:
                raise
            raise UserError(line) from None

    return guarded


def explanation(error: BaseException, script: str | None = None) -> str | None:
    """One line for the user, or None for an error that is not theirs.

    Args:
        script: 'train' or 'analyze'; by default the script that is running.
    """
    from hydra.errors import HydraException, InstantiationException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue
    from yaml import YAMLError

    for cause in _chain(error):
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key} is not set; give it as {cause.full_key}=VALUE"
        if isinstance(cause, YAMLError):  # it names file and line
            return f"a configuration cannot be read: {' '.join(str(cause).split())}"
        if type(cause).__name__ == "UncompletedJobError":  # submitit's, which need not be installed
            return _lost_job(str(cause))
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and "Config group override must be a string or a list" in text:
        return _no_choice(sys.argv[1:])
    if isinstance(error, AssertionError) and "debug=null" in sys.argv:  # other choices are named after it
        return _no_choice(["debug=null"])
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, text)
    if isinstance(error, HydraException):
        if isinstance(error, InstantiationException):
            return None
        running = Path(sys.argv[0]).stem
        script = script or (running if running in SCRIPTS else SCRIPTS[-1])
        return _wrong_choice(text, script) or _wrong_key(error, text, script)
    return _no_run_folder(error) if isinstance(error, OSError) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, each once: libraries that raise an error again may close the chain to a ring."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _told_by_another(error: BaseException) -> bool:
    """Whether the first of several tasks of SLURM prints the same error."""
    return os.environ.get("SLURM_PROCID", "0") != "0" and any(isinstance(each, SharedError) for each in _chain(error))


def _lost_job(text: str) -> str:
    """Of submitit, whose job has left no result, or has reached its time limit."""
    if "timed-out" in text:
        return (
            "a job of the sweep has reached its time limit, hydra.launcher.timeout_min; the same command with the same "
            "hydra.sweep.dir goes on, and with hydra.launcher.max_num_timeout=N SLURM starts it again up to N times"
        )
    found = re.search(r"Job (\S+) .*with path (\S+)_result\.pkl\s.*\(state: ([^)]*)\)", text)
    if found is None:
        return f"a job of the sweep ended before it was done: {' '.join(text.split())[:200] or 'it left no result'}"
    job, path, state = found.groups()
    place = Path(path).parents[1]  # SWEEP/.submitit/JOB/...
    again = f" with hydra.sweep.dir={place.parent}" if place.name == ".submitit" else ""
    return (
        f"job {job} of the sweep ended before it was done (state {state}); the same command{again} makes it again and "
        f"skips finished ones. What it said is in {path}_log.err"
    )


def _no_run_folder(error: OSError) -> str | None:
    """Of Hydra, which makes the folder of a run before the run begins."""
    calls = [call.name for call in traceback.extract_tb(error.__traceback__)]
    if "run_job" not in calls or set(calls[calls.index("run_job") + 1 :]) - {"mkdir", "open", "_save_config"}:
        return None
    return (
        f"the run folder {error.filename} cannot be made ({error.strerror}); name another, hydra.run.dir=FOLDER "
        "(of a sweep hydra.sweep.dir=FOLDER)"
    )


def _no_choice(typed: Sequence[str]) -> str:
    """A group that is set to null or to a number, which Hydra does not name."""
    files = read_conf()
    groups = {file.group for file in files if file.group} | {group for file in files for group in file.groups}
    for item in typed:
        group, equals, value = item.lstrip("+").partition("=")
        if equals and not group:
            return f"{item}: there is no key before =; give KEY=VALUE"
        if group in groups and re.fullmatch(r"null|true|false|[-+\d.e]*|nan|inf", value.strip(), re.IGNORECASE):
            choices = [file.choice for file in files if file.group == group]
            return f"{item}: is no choice of the group {group}, which are {', '.join(choices)}; or leave it out"
    return "a group of the configuration is set to what is no name of a choice; --help lists groups and choices"


def _unreadable(override: str, text: str) -> str:
    if "=" not in override:
        return f"{override!r} is no KEY=VALUE; to leave out a key write ~KEY"
    why = text.split(" See https")[0].split("Exception: ")[0]
    why = "" if why.startswith("Lexer") else f" ({why})"
    return (
        f"cannot read {override}{why}; a value with characters other than letters, digits and -_./:@%+ stands in "
        f"quotes within quotes, such as \"{override.partition('=')[0]}='VALUE'\" (names in a mapping stand without)"
    )


def _wrong_choice(text: str, script: str) -> str | None:
    """What Hydra says of a choice that it does not have or know where to put."""
    if match := re.search(r"Could not find '([^']*)' Available options in '([^']*)': (.*?)(?: Config search|$)", text):
        wanted, group, options = match.groups()
        choice = wanted.removeprefix(f"{group}/")
        extra = _EXTRAS.get(group, {}).get(choice)
        if extra:
            return f"{group}={choice} needs the extra {extra!r}: see docs/sweeps.md for its installation"
        names = re.findall(r"[\w./+-]+", options)
        near = get_close_matches(choice, names, n=1, cutoff=0.3)
        hint = f"did you mean {group}={near[0]}? " if near else ""
        return f"{group} has no choice {choice!r}; {hint}Choices: {', '.join(names)}"
    # python train.py experiment=diff_props/table1
    if match := re.search(r"In '([^'/]+)/([^']+)': Could not override '([^']+)'. No match in the defaults list", text):
        group, choice, lacking = match.groups()
        other = "analyze.py" if script == "train" else "train.py"
        return f"{group}={choice} needs the group {lacking}, which {script}.py does not have: it is for {other}"
    if match := re.search(r"Multiple values for ([^.]+)\. To override", text):  # +model=sd14
        return f"the group {match[1]} is chosen already; write {match[1]}=CHOICE once, without +"
    return None


def _wrong_key(error: BaseException, text: str, script: str) -> str:
    """What Hydra says of a key that is there already, of its value, or that it is unknown; else its own text."""
    if match := re.search(r"An item is already at '([^']+)'", text):  # +model.path=x
        return f"{match[1]} is there already; write {match[1]}=VALUE, without +"
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\.", text):  # seed=1,2 without -m
        key, values = match.groups()
        return f"{key}={values} is several values: a list is written {key}=[{values}], and a sweep over them needs -m"
    if match := re.search(r"The value of '([^']+)' is (.*) and not (.*)\.", text):
        return f"~{match[1]}={match[3]}: the value of {match[1]} is {match[2]}; write ~{match[1]}"
    if match := re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text):
        key = match[1].lstrip("+~").split("=")[0]
        if "@" in key:
            return f"{key}: a group has its own place; write {key.split('@')[0]}=CHOICE"
        inner = str(getattr(error.__cause__, "full_key", None))  # of a mapping that holds it: probe.learning_rates.dept
        return explain_key(inner if inner.startswith(f"{key}.") else key, script, deleted="delete" in text)
    cause = error.__cause__
    return f"{text}: {' '.join(str(cause).split(chr(10))[0].split())}" if cause and "Error merging" in text else text
