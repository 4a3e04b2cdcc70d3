"""The console command leads to every command of the package, and commands to copy are those of who typed it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from diffprobe.commands import console
from diffprobe.terminal import BY_CONSOLE, module_command, script_command

SCRIPTS = Path(console.__file__).parent


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/diffprobe", *arguments])
    monkeypatch.setenv(BY_CONSOLE, "")  # gone with the test, which sets it
    return console.main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_alone_it_prints_a_line_for_each_command(arguments, monkeypatch, capsys):
    assert typed(monkeypatch, *arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [words[0] for words in lines] == [*console.HYDRAS, *console.OTHERS]
    assert all(len(words) > 3 for words in lines)


@pytest.mark.parametrize("name", console.OTHERS)
def test_a_command_is_the_main_of_a_module_and_calls_itself_as_it_was_typed(name, monkeypatch, capsys):
    monkeypatch.setattr("diffprobe.commands.console.run_command", lambda main: main())
    with pytest.raises(SystemExit, match="0"):
        typed(monkeypatch, name, "--help")
    assert f"usage: diffprobe {name} " in capsys.readouterr().out
    assert module_command("diffprobe.x") == f"diffprobe {name}"
    assert script_command("analyze") == ["diffprobe", "analyze"]


@pytest.mark.parametrize("name", console.HYDRAS)
def test_train_and_analyze_leave_a_command_line_that_starts_again(name, monkeypatch):
    """By Lightning, which runs the first word as a file of Python, with the others behind it."""
    started = []
    monkeypatch.setattr("diffprobe.commands.console.start", started.append)
    assert typed(monkeypatch, name, "seed=1") == 0
    assert started == [name]
    assert sys.argv == [str(SCRIPTS / f"{name}.py"), "seed=1"]
    assert script_command() == ["diffprobe", name]
    monkeypatch.setattr("diffprobe.cli.errors.plain_errors", lambda function: lambda: started.append(function))
    runpy.run_path(sys.argv[0], run_name="__main__")
    assert [each.__name__ for each in started[1:]] == ["main"]


def test_a_process_that_the_console_command_starts_names_that_command(monkeypatch):
    """Such as a job of SLURM, whose command line is submitit's."""
    monkeypatch.setattr("diffprobe.commands.console.start", lambda name: None)
    typed(monkeypatch, "train")
    code = "from diffprobe.terminal import script_command; print(*script_command('train'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "diffprobe train\n"


def test_a_script_of_a_checkout_is_called_as_such(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/checkout/train.py", "seed=1"])
    assert script_command() == ["python", "train.py"]
    assert script_command("analyze") == ["python", "analyze.py"]
    assert module_command("diffprobe.app") == "python -m diffprobe.app"


@pytest.mark.parametrize(("name", "hint"), [("trian", "did you mean diffprobe train?"), ("xyz", "diffprobe --help")])
def test_a_command_that_is_not_there_is_answered_with_the_nearest(name, hint, monkeypatch, capsys):
    assert typed(monkeypatch, name) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: there is no command {name!r}; {hint}")
    assert told.count("\n") == 1


def test_signals_are_heard_before_anything_that_takes_time_is_imported():
    code = "import diffprobe.commands.console, sys; print(*{'hydra', 'torch', 'numpy'}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
