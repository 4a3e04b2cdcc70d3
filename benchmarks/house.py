"""How simple the code is, in numbers: python benchmarks/house.py

Prints each goal of docs/architecture.md: what it was in the first edition, the goal, and what it is now. Files, lines,
imports and settings are read from the source; the calls between hook and probe are counted in a pass that runs here.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import io
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "diffprobe"
LONGEST = 400


def imports_test():
    """tests/test_imports.py as a module: it reads the imports."""
    spec = importlib.util.spec_from_file_location("test_imports", ROOT / "tests" / "test_imports.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of(paths: list[Path]) -> list[int]:
    return [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]


def circles() -> int:
    """Circles of imports, TYPE_CHECKING included."""
    return len(imports_test().circles())


def function_imports() -> int:
    """Imports of the package's own modules within functions."""
    found = 0
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = (each for each in ast.walk(node) if isinstance(each, ast.ImportFrom))
                found += sum((each.module or "").startswith("diffprobe") for each in inner)
    return found


def calls_between_hook_and_probe() -> tuple[int, int]:
    """Functions of the package, and files, that an activation passes from the hook to the sums of ridge probes.

    The stack of calls is taken where the hook takes an activation, and where `Moments.add` gets it. From the hook up to
    the innermost function that both stacks share, and from there down to the sums, is the way of the activation.
    """
    from diffprobe.backbone.capture import Capture
    from diffprobe.probes.ridge import Moments

    stacks: dict[str, list[tuple[str, str]]] = {}

    def watch(owner: type, method: str) -> None:
        original = getattr(owner, method)

        def watched(*arguments: Any, **options: Any) -> Any:
            stacks.setdefault(owner.__name__, list(_frames()))
            return original(*arguments, **options)

        setattr(owner, method, watched)

    watch(Capture, "_see")
    watch(Moments, "add")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        sys.argv = ["train.py", "probe=ridge", "features=none", "data.count=6", "steps.sampling=2", "logger=csv"]
        sys.argv += ["report.examples=0", "layers=headline", f"hydra.run.dir={folder}"]
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    hook, probe = stacks["Capture"], stacks["Moments"]
    joint = next(frame for frame in probe if frame in hook)
    way = {
        *hook[: hook.index(joint)],
        *probe[: probe.index(joint)],
        joint,
        (str(SOURCE / "probes/ridge.py"), "Moments.add"),
    }
    return len(way), len({path for path, _ in way})


def _frames() -> Iterator[tuple[str, str]]:
    """File and name of the package's functions that are running, the innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(str(SOURCE)):
            yield frame.f_code.co_filename, frame.f_code.co_qualname
        frame = frame.f_back


def settings_declared_twice() -> int:
    """Settings of a class named in conf/ that another class declares too, beside the class's own signature."""
    own = SOURCE.rglob("*schema*.py")
    return sum(isinstance(node, ast.AnnAssign) for path in own for node in ast.walk(ast.parse(path.read_text())))


def files_of_a_new_analysis() -> int:
    """Files of the analysis that tests/integration/examples adds from outside."""
    folder = ROOT / "tests" / "integration" / "examples" / "kmeans"
    return sum(path.suffix in (".py", ".yaml") for path in folder.rglob("*"))


def seconds_of_help() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "train.py"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    paths = list(SOURCE.rglob("*.py"))
    lines = lines_of(paths)
    calls, files = calls_between_hook_and_probe()
    rows = [
        ("files under src/diffprobe", "275", "<= 170", len(paths)),
        (f"files of more than {LONGEST} lines", "0", "0", sum(each > LONGEST for each in lines)),
        ("lines under src/diffprobe", "27,225", "<= 25,000", f"{sum(lines):,}"),
        ("files of a new analysis", "14", "1 and a YAML", files_of_a_new_analysis()),
        ("settings declared beside the class that uses them", "-", "0", settings_declared_twice()),
        ("calls between hook and probe", "24", "<= 10", calls),
        ("files of these calls", "16", "<= 7", files),
        ("circles of imports", "5", "0", circles()),
        ("imports within functions", "245", "-", function_imports()),
        ("seconds of train.py --help", "-", "< 3", f"{seconds_of_help():.1f}"),
    ]
    print(f"{'measure':52} {'first':>10} {'goal':>13} {'now':>8}")
    for what, first, goal, now in rows:
        print(f"{what:52} {first:>10} {goal:>13} {now:>8}")


if __name__ == "__main__":
    main()
