"""Two processes fill the same store that one process fills."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from diffprobe.activations.extraction import Extraction, extract
from diffprobe.activations.sources import Generation
from diffprobe.backbone.load import load_backbone
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from tests.processes import together
from tests.tiny import tiny_layers

SOURCE = Generation([Prompt("a cat", seed, f"image_{seed}") for seed in range(7)], sampling_steps=2)


def extracted(model: str, stores: Path | None, **options) -> Extraction:
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **options
    )
    backbone = load_backbone(model, device="cpu")
    layers = tiny_layers("self_attention&stage=decoder")
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


def extracted_together(model: str, stores: Path) -> tuple[list[str], int]:
    found = extracted(model, stores, strategy=DDPStrategy(process_group_backend="gloo"), devices=2)
    return found.activations.names, found.computed


@pytest.mark.slow
def test_two_processes_fill_the_store_that_one_fills(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    model = str(tiny_pipeline_folder)
    for names, computed in together(extracted_together, tmp_path, model, tmp_path / "two"):
        assert names == SOURCE.names  # both see the whole store
        assert computed == 7
    alone = extracted(model, tmp_path / "one", devices=1)
    (store,) = (tmp_path / "two").iterdir()
    assert store.name == next((tmp_path / "one").iterdir()).name
    assert len(list((store / "shards").glob("*.safetensors"))) == 4
    read = extracted(model, tmp_path / "two", devices=1)
    assert read.computed == 0
    rows = list(range(7))
    for layer in alone.activations.layers:
        ours, theirs = (found.activations.values[layer.name][:, rows] for found in (alone, read))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.images, read.images, atol=1e-5, rtol=1e-5)


def test_several_devices_need_a_store(tiny_pipeline_folder: Path) -> None:
    with pytest.raises(UserError, match="choose features=disk"):
        extracted(str(tiny_pipeline_folder), None, strategy="ddp", devices=2)
