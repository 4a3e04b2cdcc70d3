"""An extraction that is killed and run again ends with the store of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffprobe.activations.extraction import extract
from diffprobe.activations.sources import Generation
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import load_backbone
from diffprobe.data.prompts import Prompt

SOURCE = Generation([Prompt("a cat", seed, f"image_{seed}") for seed in range(12)], sampling_steps=4)
KILLS = 3


def run(model: str, stores: Path) -> int:
    """How many images were run. On one thread: on another number of them the last bits may differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(model, stores)
    finally:
        torch.set_num_threads(threads)


def _run(model: str, stores: Path) -> int:
    backbone = load_backbone(model, device="cpu")
    layers = select_layers(catalogue(backbone.denoiser), "self_attention&stage=decoder")
    print("go", flush=True)
    return extract(backbone, SOURCE, layers, [0, 3], stores=stores, images_per_shard=2, batch_size=2).computed


def contents(stores: Path) -> dict[str, bytes]:
    return {str(file.relative_to(stores)): file.read_bytes() for file in stores.rglob("*.safetensors")}


@pytest.mark.slow
def test_killed_and_run_again_the_store_is_that_of_an_undisturbed_run(tiny_pipeline_folder, tmp_path):
    start = time.perf_counter()
    assert run(str(tiny_pipeline_folder), tmp_path / "undisturbed") == 12
    seconds = time.perf_counter() - start
    moments = random.Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.activations.test_kills", str(tiny_pipeline_folder), str(tmp_path / "killed")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        assert any(line == "go\n" for line in process.stdout)
        time.sleep(moments.uniform(0, seconds / KILLS))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run(str(tiny_pipeline_folder), tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(str(tiny_pipeline_folder), tmp_path / "killed") == 0


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
