"""Serves the interactive page on this machine: python -m diffprobe.app [--probes FOLDER] [--port N]"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from diffprobe.errors import UserError
from diffprobe.ranges import typed_path
from diffprobe.signals import run_command
from diffprobe.terminal import module_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=module_command("diffprobe.app"),
        description="See what probes see while an image is made, and denoise it again with another mask. "
        "For one person, on this machine alone.",
    )
    parser.add_argument(
        "--probes",
        type=typed_path,
        metavar="FOLDER",
        help="finished run of train.py, whose model, labeler and probes are taken, or a pipeline (the built-in model)",
    )
    parser.add_argument(
        "--stores", type=typed_path, default=Path("stores"), help="where trained probes are kept (stores)"
    )
    parser.add_argument("--port", type=int, default=7860, help="of http://127.0.0.1 (7860)")
    options = parser.parse_args(arguments)
    try:
        start(options.probes, options.stores, options.port)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def start(probes: Path | None, stores: Path, port: int) -> None:
    """Prepares and serves until interrupted.

    Raises:
        UserError: gradio is missing, the port is taken, or the probes cannot be used.
    """
    from diffprobe.app.equipment import load_equipment
    from diffprobe.app.page import LOOPBACK, serve
    from diffprobe.runs.trainers import quiet_libraries

    try:
        socket.create_server((LOOPBACK, port)).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} cannot be used: {error}; give another") from error
    print("loading the model", flush=True)
    with quiet_libraries():
        equipment = load_equipment(str(probes or ""), stores, lambda line: print(line, flush=True))
    serve(equipment, stores, port)


if __name__ == "__main__":
    sys.exit(run_command(main))
