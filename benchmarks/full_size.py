"""The main job at full size: python benchmarks/full_size.py [--folder FOLDER] [--batch-size N]

Writes a Stable Diffusion 1.4 with random weights in float32 (4.3 GB), and runs `train.py` on three images of 512 pixels
and two steps, with an .onnx saliency model of one convolution, stores on disk and both default controls. Prints the
highest memory of that process and its seconds, and what the plan (`dry_run=true`) says of both before.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu import full_size_pipeline

ROOT = Path(__file__).parents[1]
MEMORY = 6e9  # goal, in bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keeps the model there, or takes the one that is there")
    parser.add_argument("--batch-size", type=int, default=1, help="images at a time (1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "model"
        if not (folder / "model_index.json").is_file():
            full_size_pipeline(folder, half=False)
        save_saliency(Path(scratch) / "saliency.onnx")
        call = command(folder, Path(scratch), options.batch_size)
        memory, seconds = told(call)
        start = time.perf_counter()
        subprocess.run(call, check=True)
        whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest child
    print(f"python train.py on Stable Diffusion 1.4 in float32, {options.batch_size} images at a time: {whole:.0f} s")
    print(f"highest memory: goal {MEMORY / 1e9:.1f} GB, measured {peak / 1e9:.2f} GB, ratio {peak / MEMORY:.2f}")
    print(f"memory that the plan tells: goal 0.75 to 1.25 of it, {memory / 1e9:.2f} GB, ratio {memory / peak:.2f}")
    print(f"time that the plan tells: goal 0.75 to 1.25 of it, {seconds:.0f} s, ratio {seconds / whole:.2f}")


def command(model: Path, scratch: Path, batch_size: int) -> list[str]:
    """The main job, as it is typed."""
    return [
        *(sys.executable, str(ROOT / "train.py"), "model=local", f"model.path={model}", "logger=csv"),
        *("data.count=3", "data.fractions=[0.34,0.33,0.33]", "steps.sampling=2", "property=saliency"),
        *("labeler=image_models", f"labeler.saliency.path={scratch}/saliency.onnx", "labeler.saliency.family=u2net"),
        *("labeler.cache=null", "features=disk", f"features.folder={scratch}/stores"),
        *(f"features.batch_size={batch_size}", f"hydra.run.dir={scratch}/run"),
    ]


def told(call: list[str]) -> tuple[float, float]:
    """Bytes and seconds that the plan tells."""
    plan = subprocess.run([*call, "dry_run=true"], check=True, capture_output=True, text=True).stdout
    units = {"MB": 1e6, "GB": 1e9, "s": 1, "min": 60, "h": 3600}
    found = re.findall(r"^about ([\d.]+) (\w+) (?:of memory|for the passes)", plan, re.M)
    memory, seconds = (float(number) * units[unit] for number, unit in found)
    return memory, seconds


def save_saliency(path: Path) -> None:
    """A convolution of the picture with random numbers, and a sigmoid."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    kernel = np.random.default_rng(0).normal(size=(1, 3, 3, 3)).astype(np.float32)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["picture", "kernel"], ["sum"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["sum"], ["map"]),
        ],
        "saliency",
        [helper.make_tensor_value_info("picture", kind, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info("map", kind, None)],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


if __name__ == "__main__":
    main()
