"""An extraction that is killed and run again ends with the store of an undisturbed one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffprobe.activations.extraction import extract
from diffprobe.activations.sources import Generation
from diffprobe.backbone.load import Backbone
from diffprobe.data.prompts import Prompt
from tests.processes import FORK
from tests.tiny import tiny_layers

SOURCE = Generation([Prompt("a cat", seed, f"image_{seed}") for seed in range(8)], sampling_steps=3)
KILLS = 3


def run(backbone: Backbone, stores: Path, begins: Callable[[], object] = lambda: None) -> int:
    """How many images were run. On one thread: on another number of them the last bits may differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        layers = tiny_layers("self_attention&stage=decoder")
        begins()
        return extract(backbone, SOURCE, layers, [0, 2], stores=stores, images_per_shard=2, batch_size=2).computed
    finally:
        torch.set_num_threads(threads)


def contents(stores: Path) -> dict[str, bytes]:
    return {str(file.relative_to(stores)): file.read_bytes() for file in stores.rglob("*.safetensors")}


@pytest.mark.slow
def test_killed_and_run_again_the_store_is_that_of_an_undisturbed_run(tiny_backbone, tmp_path):
    start = time.perf_counter()
    assert run(tiny_backbone, tmp_path / "undisturbed") == 8
    seconds = time.perf_counter() - start
    moments = random.Random(0)
    for _ in range(KILLS):
        begun = FORK.Event()
        process = FORK.Process(target=run, args=(tiny_backbone, tmp_path / "killed", begun.set))
        process.start()
        assert begun.wait(60)
        time.sleep(moments.uniform(0, seconds / KILLS))
        process.kill()
        process.join()
    run(tiny_backbone, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(tiny_backbone, tmp_path / "killed") == 0
