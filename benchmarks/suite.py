"""How long the tests take: python benchmarks/suite.py [pytest] [ci] [--runs N]

pytest   `pytest` in this environment.
ci       `.ci/run` in a new clone of the last commit: a new environment, linting, type checks and all tests.

Prints the median seconds of each against its goal, of two cores that are otherwise idle.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOALS = {"pytest": 300, "ci": 540}  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(GOALS))
    parser.add_argument("--runs", type=int, default=1, help="of each (1)")
    options = parser.parse_args()
    for name in options.parts or GOALS:
        seconds = []
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as folder:
                call, place = prepared(name, Path(folder))
                start = time.perf_counter()
                ended = subprocess.run(call, cwd=place, capture_output=True, text=True)
                seconds.append(time.perf_counter() - start)
            lines = [line for line in ended.stdout.splitlines() if " passed" in line or " failed" in line]
            print(f"{name}: {seconds[-1]:.0f} s, exit {ended.returncode}; {' | '.join(lines)}", flush=True)
        middle, goal = statistics.median(seconds), GOALS[name]
        print(f"{name}: goal {goal} s, measured {middle:.0f} s, ratio {middle / goal:.2f}; {options.runs} runs")


def prepared(name: str, folder: Path) -> tuple[list[str], Path]:
    """The command, and where to run it."""
    if name == "pytest":
        return [sys.executable, "-m", "pytest", "-q"], ROOT
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    return [".ci/run"], clone


if __name__ == "__main__":
    main()
