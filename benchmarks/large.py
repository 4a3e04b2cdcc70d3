"""What large runs cost: python benchmarks/large.py [plan] [report] [one_pass] [--runs N] [--tiny]

plan      `train.py dry_run=true` for 20,000 prompts, of a CSV file and of the scene grammar: seconds of the command.
report    the report of a run with 2,000 test images (16 layers, 15 steps, three properties, both controls, three
          examples) from its scores: seconds for means, comparisons, tables, figures and page; bytes of report.html.
one_pass  `train.py probe=ridge features=none` on 200 and on 2,000 images (4 layers, 3 steps, both controls): the
          highest memory of the command, apart from the scores, which take 52 bytes a row (benchmarks/scores.py).
          Freed blocks of 128 kB and more go back to the system (glibc's MALLOC_MMAP_THRESHOLD_), so that it is what the
          command holds: by default glibc keeps some, more of them the longer a process runs.

Each run is a process of its own; medians, each as a ratio to its goal. `--tiny` tries the script with few images, one
run each. Seconds are those of an idle machine only if it is idle; those of its processors hardly depend on it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for the made-up example of the tests

PLAN_SECONDS, REPORT_SECONDS, REPORT_MEGABYTES, MEMORY_RATIO = 10, 30, 8, 1.05
SCORE_BYTES = 52  # of a row, from the blocks to file and summaries
ATTENTION = "attentions.0.transformer_blocks.0.attn1.to_out.0"
BLOCKS = ("mid_block", "up_blocks.1", "up_blocks.2", "up_blocks.3")
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072"}
RUNS = {"plan": 5, "report": 5, "one_pass": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(RUNS))
    parser.add_argument("--runs", type=int, help=", ".join(f"{count} of {name}" for name, count in RUNS.items()))
    parser.add_argument("--tiny", action="store_true", help="few images, to try the script")
    options = parser.parse_args()
    measured = {"plan": plan, "report": report, "one_pass": one_pass}
    for name in options.parts or RUNS:
        measured[name](options.tiny, options.runs or (1 if options.tiny else RUNS[name]))


def plan(tiny: bool, runs: int) -> None:
    from diffprobe.data.prompts import scene_prompts

    count = 40 if tiny else 20_000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.csv"
        rows = [f'"{prompt.text}",{prompt.seed},{index}\n' for index, prompt in enumerate(scene_prompts(count))]
        file.write_text("".join(["prompts,seeds,prompt_inds\n", *rows]))
        for kind, data in {"of a file": f"data.prompts={file}", "of the grammar": f"data.count={count}"}.items():
            found = [command(folder, "dry_run=true", data) for _ in range(runs)]
            seconds, processor, _ = (statistics.median(numbers) for numbers in zip(*found, strict=True))
            print(f"plan: {count} prompts {kind} in {ratio(seconds, PLAN_SECONDS, 's')}, "
                  f"{processor:.1f} s of processors; {runs} runs", flush=True)  # fmt: skip


def report(tiny: bool, runs: int) -> None:
    images = 20 if tiny else 2000
    found = [in_own_process(images) for _ in range(runs)]
    rows, *numbers = (statistics.median(each) for each in zip(*found, strict=True))
    size, means, compared, published, processor = numbers
    print(f"report: {images} test images, {rows / 1e6:.1f} million rows: {ratio(size / 1e6, REPORT_MEGABYTES, 'MB')}")
    print(f"  written in {ratio(means + compared + published, REPORT_SECONDS, 's')}: means {means:.1f} s, comparisons "
          f"{compared:.1f} s, files and figures {published:.1f} s; {processor:.1f} s of processors; {runs} runs",
          flush=True)  # fmt: skip


def in_own_process(images: int) -> tuple[float, ...]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=made_up_report, args=(images, sender))
    process.start()
    sender.close()  # so that a process that dies ends the wait
    found = receiver.recv()
    process.join()
    return found


def made_up_report(images: int, sender: Any) -> None:
    """Sends rows, bytes of the page, seconds of means, comparisons and the rest, and those of processors."""
    from rich.console import Console
    from scores import made_up
    from tests.report.made_up_run import make_example

    from diffprobe.analyses.probing.report import report as report_of
    from diffprobe.probes.score_table import score_table
    from diffprobe.probes.summaries import summarise
    from diffprobe.report.publish import publish

    scores = score_table(made_up({"validation": images, "test": images}, ["none", "permuted"]))
    examples = [make_example(size=64) for _ in range(3)]
    processor, start = time.process_time(), time.perf_counter()
    summaries = summarise(scores)
    summarised = time.perf_counter()
    maps = {
        name: dict.fromkeys(summaries["layer"].unique(), predicted)
        for name, predicted in examples[0].predictions.items()
    }
    made = report_of(scores, summaries, examples=examples, maps=maps)
    compared = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        publish(made, folder=Path(folder), console=Console(file=StringIO()))
        end = time.perf_counter()
        size = (Path(folder) / "report.html").stat().st_size
    seconds = summarised - start, compared - summarised, end - compared, time.process_time() - processor
    sender.send((len(scores), size, *seconds))


def one_pass(tiny: bool, runs: int) -> None:
    few, many = (10, 30) if tiny else (200, 2000)
    memory = {count: statistics.median(one_pass_memory(count) for _ in range(runs)) for count in (few, many)}
    print(f"one_pass: {few} and {many} images, {memory[few] / 1e6:.0f} and {memory[many] / 1e6:.0f} MB without scores: "
          f"{memory[many] / memory[few]:.3f} times (goal at most {MEMORY_RATIO}); {runs} runs", flush=True)  # fmt: skip


def one_pass_memory(images: int) -> float:
    """The highest memory of the command in bytes, less that of the scores."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        layers = ",".join(f"{block}.{ATTENTION}" for block in BLOCKS)
        sizes = f"data.count={images}", "steps.sampling=3", f"layers.select=[{layers}]"
        *_, highest = command(folder, "logger=csv", "report=no_examples", *sizes, environment=FREED_AT_ONCE)
        rows = pq.read_metadata(Path(folder) / "run" / "scores.parquet").num_rows
    return highest - rows * SCORE_BYTES


def command(folder: str, *settings: str, environment: Mapping[str, str] | None = None) -> tuple[float, float, int]:
    """Seconds of a one-pass study by `train.py`, seconds of processors, and its highest memory in bytes."""
    ridge = "probe=ridge", "features=none", f"hydra.run.dir={folder}/run"
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *ridge, *settings],
        stdout=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"train.py {' '.join(settings)} ended with {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def ratio(measured: float, goal: float, unit: str) -> str:
    return f"{measured:.1f} {unit} (goal {goal} {unit}, {measured / goal:.2f} times that)"


if __name__ == "__main__":
    main()
