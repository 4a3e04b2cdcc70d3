"""Two processes fill the same store that one process fills."""

from __future__ import annotations

import os
from pathlib import Path
from socket import socket

import lightning
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.strategies import DDPStrategy

from diffprobe.activations.extraction import Extraction, extract
from diffprobe.activations.sources import Generation
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import load_backbone
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError

SOURCE = Generation([Prompt("a cat", seed, f"image_{seed}") for seed in range(7)], sampling_steps=2)


def extracted(model: str, stores: Path | None, **options) -> Extraction:
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **options
    )
    backbone = load_backbone(model, device="cpu")
    layers = select_layers(catalogue(backbone.denoiser), "self_attention&stage=decoder")
    return extract(
        backbone,
        SOURCE,
        layers,
        [0, 1],
        dtype="float32",
        batch_size=2,
        stores=stores,
        images_per_shard=2,
        trainer=trainer,
    )


def _work(rank: int, model: str, folder: str, port: int) -> None:
    environment = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    strategy = DDPStrategy(process_group_backend="gloo")
    found = extracted(model, Path(folder), strategy=strategy, devices=2)
    assert found.activations.names == SOURCE.names  # both see the whole store
    assert found.computed == 7
    # A process that ends while the other still talks to it can be aborted.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_fill_the_store_that_one_fills(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    with socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    model = str(tiny_pipeline_folder)
    arguments = (model, str(tmp_path / "two"), port)
    mp.start_processes(_work, args=arguments, nprocs=2, start_method="spawn")
    alone = extracted(model, tmp_path / "one", devices=1)
    (store,) = (tmp_path / "two").iterdir()
    assert store.name == next((tmp_path / "one").iterdir()).name
    assert len(list((store / "shards").glob("*.safetensors"))) == 4
    together = extracted(model, tmp_path / "two", devices=1)
    assert together.computed == 0
    rows = list(range(7))
    for layer in alone.activations.layers:
        ours, theirs = (found.activations.values[layer.name][:, rows] for found in (alone, together))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.images, together.images, atol=1e-5, rtol=1e-5)


def test_several_devices_need_a_store(tiny_pipeline_folder: Path) -> None:
    with pytest.raises(UserError, match="choose features=disk"):
        extracted(str(tiny_pipeline_folder), None, strategy="ddp", devices=2)
