"""How long the default study takes, from the command to the prompt: python benchmarks/main_job.py [--runs N]

Runs `python train.py logger=csv` in a process of its own, in turns with one that makes the same 200 images with the
plain pipeline, in the same batches, and times those images alone. Prints the median seconds of both and their ratio.
Takes 15 minutes for five runs on two cores, which must be idle.
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
IMAGES, BATCH, STEPS = 200, 20, 15  # as `python train.py` has them
SECONDS, RATIO = 100, 1.6  # goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of both, in turns (5)")
    parser.add_argument("--plain", action="store_true", help="make the images with the plain pipeline, and stop")
    options = parser.parse_args()
    if options.plain:
        print(plain_pipeline())
        return
    study, images = [], []
    for _ in range(options.runs):
        study.append(command())
        found = subprocess.run([sys.executable, __file__, "--plain"], check=True, capture_output=True, text=True)
        images.append(float(found.stdout.split()[-1]))
        print(f"python train.py {study[-1]:.1f} s; the images alone {images[-1]:.1f} s", flush=True)
    whole, alone = statistics.median(study), statistics.median(images)
    print(f"python train.py: goal {SECONDS} s, measured {whole:.1f} s, ratio to the goal {whole / SECONDS:.2f}")
    print(
        f"python train.py against the plain pipeline's {IMAGES} images: goal {RATIO}, measured {whole / alone:.2f} "
        f"({whole:.1f} s against {alone:.1f} s)"
    )


def command() -> float:
    """Seconds of the command in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, str(ROOT / "train.py"), "logger=csv", f"hydra.run.dir={folder}/run"]
        start = time.perf_counter()
        subprocess.run(call, check=True, capture_output=True)
        return time.perf_counter() - start


def plain_pipeline() -> float:
    """Seconds that the pipeline takes for the study's images, without loading it."""
    import torch

    from diffprobe.backbone.load import load_backbone
    from diffprobe.data.prompts import load_prompts

    pipeline = load_backbone("pocket", device="cpu").pipeline
    prompts = load_prompts(count=IMAGES)
    start = time.perf_counter()
    for first in range(0, IMAGES, BATCH):
        own = prompts[first : first + BATCH]
        pipeline(
            [prompt.text for prompt in own],
            generator=[torch.Generator().manual_seed(prompt.seed) for prompt in own],
            num_inference_steps=STEPS,
            guidance_scale=2.5,
            output_type="pt",
        )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
