"""How simple the code is, in numbers: python benchmarks/house.py

Prints each goal of docs/architecture.md: what it was in the first edition, the goal, and what it is now. Files, lines,
imports and settings are read from the source; the calls between hook and probe are counted in a pass that runs here.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import io
import resource
import runpy
import subprocess
import sys
import tempfile
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

    watch(Capture, "_on_output")
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


def settings_beside_signatures() -> tuple[int, int]:
    """Settings in conf/ that the class that their file names does not take, and all settings of such files."""
    from omegaconf import OmegaConf

    from diffprobe.parts import OF_HYDRA
    from diffprobe.signatures import signature_of

    found = beside = 0
    for path in (ROOT / "conf").rglob("*.yaml"):
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
        section = content.get(path.parent.name, content) if isinstance(content, dict) else {}
        if not isinstance(section, dict) or "_target_" not in section:
            continue
        signature = signature_of(section["_target_"])
        settings = [key for key in section if key not in (*OF_HYDRA, "defaults")]
        found += len(settings)
        taken = {} if signature is None else signature.arguments
        open_ended = signature is not None and signature.open_ended  # WandbLogger hands others on to wandb.init
        beside += sum(key not in taken and not open_ended for key in settings)
    return beside, found


def files_of_a_new_analysis() -> int:
    """Files of the analysis that tests/integration/examples adds from outside."""
    folder = ROOT / "tests" / "integration" / "examples" / "kmeans"
    return sum(path.suffix in (".py", ".yaml") for path in folder.rglob("*"))


def seconds_of_help() -> float:
    """Processor time of `train.py --help`, so that other work on the machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, str(ROOT / "train.py"), "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    paths = list(SOURCE.rglob("*.py"))
    lines = lines_of(paths)
    beside, settings = settings_beside_signatures()
    calls, files = calls_between_hook_and_probe()
    rows = [
        ("files under src/diffprobe", "275", "<= 170", len(paths)),
        (f"files of more than {LONGEST} lines", "0", "0", sum(each > LONGEST for each in lines)),
        ("lines under src/diffprobe", "27,225", "<= 25,000", f"{sum(lines):,}"),
        ("files of a new analysis", "14", "1 and a YAML", files_of_a_new_analysis()),
        (f"of {settings} settings those that their class does not take", "-", "0", beside),
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
