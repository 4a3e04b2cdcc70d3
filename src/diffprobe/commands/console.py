"""The console command: `diffprobe`, `diffprobe train [group=choice] [group.key=value]`, ...

Nothing that takes time is imported before the handlers of signals are there.
"""

from __future__ import annotations

import gc
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from diffprobe.signals import listen, run_command
from diffprobe.terminal import BY_CONSOLE

HYDRAS = {  # name -> what it does, of the modules beside this one
    "train": "probe the activations of a diffusion model (train.py)",
    "analyze": "compare objects, edit activations, tell a run again, gather a sweep (analyze.py)",
}
OTHERS = {  # name -> module with a `main`, and what it does
    "app": ("diffprobe.app.__main__", "serve the interactive page on this machine"),
    "layers": ("diffprobe.backbone.__main__", "list the layers of a model"),
    "certify": ("diffprobe.backbone.certify", "check once that a model here is what it should be"),
    "try-labels": ("diffprobe.try_labels", "draw what labelers and classifiers see in a few images"),
    "data": ("diffprobe.data.get", "get Pascal VOC, COCO or DAVIS, or check a copy"),
    "scenes": ("diffprobe.pocket.__main__", "write rendered scenes with exact maps"),
    "dashboard": ("diffprobe.report.dashboard", "make the W&B workspace of a project"),
}


def main() -> int:
    """Runs the command that was typed; returns the exit code."""
    os.environ[BY_CONSOLE] = "1"
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in HYDRAS:
        # A file that Python can run: Lightning starts it again for each further device
        sys.argv = [str(Path(__file__).with_name(f"{name}.py")), *arguments]
        start(name)
    elif name in OTHERS:
        sys.argv = [f"diffprobe {name}", *arguments]
        return run_command(lambda: import_module(OTHERS[name][0]).main())
    elif name in ("-h", "--help"):
        print(_overview())
    elif name == "--version":
        from importlib.metadata import version

        print(f"diffprobe {version('diffprobe')}")
    else:
        near = get_close_matches(name, [*HYDRAS, *OTHERS], n=1)
        hint = f"did you mean diffprobe {near[0]}?" if near else "diffprobe --help lists the commands"
        print(f"error: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return 0


def start(name: str) -> None:
    """Runs `train` or `analyze` with the command line of this process."""
    listen()  # before the imports that take time
    gc.disable()  # until work begins: to look at all that is imported, none of it garbage, takes a fifth of the time
    import_module(f"diffprobe.commands.{name}").main()


def _overview() -> str:
    rows = HYDRAS | {name: text for name, (_, text) in OTHERS.items()}
    lines = [f"  {name:<12}{text}" for name, text in rows.items()]
    return "\n".join(
        [
            "What does a diffusion model know, where in the network, and when in the denoising?",
            "",
            *lines,
            "",
            "diffprobe COMMAND --help says what a command takes; diffprobe --version, which version this is.",
        ]
    )
