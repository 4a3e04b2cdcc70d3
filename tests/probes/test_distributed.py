"""Two processes on one machine give what one process gives."""

from __future__ import annotations

import os
from pathlib import Path
from socket import socket

import lightning
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from diffprobe.probes import functional
from diffprobe.probes.metrics import Spearman
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.splits import Split
from diffprobe.probes.training import train_bank
from tests.probes.planted import label_maps, noise

PROPERTIES = ["saliency", "depth"]
SPLIT = Split([0, 1, 2, 3, 4, 5], [6, 7, 8], [9])  # three validation images: two processes see one of them twice
EPOCHS = 12


def maps(images: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, 4, 4, generator=generator), torch.randn(images, 8, 8, generator=generator)


def trained(batch_size: int, **options) -> dict[str, Tensor]:
    """A bank trained with all training images in every step, so that their order does not matter."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    bank = train_bank(noise(10), label_maps(10), SPLIT, PROPERTIES, Recipe(batch_size=batch_size), trainer=trainer)
    return bank.state_dict()


def _work(rank: int, folder: str, port: int) -> None:
    environment = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    strategy = DDPStrategy(process_group_backend="gloo")
    weights = trained(batch_size=3, strategy=strategy, devices=2)
    # The process group is still there. Process 0 sees four images, 1 sees one: a mean of two means would be wrong.
    prediction, target = maps()
    rows = slice(0, 4) if rank == 0 else slice(4, 5)
    metric = Spearman()
    metric.update(prediction[rows], target[rows])
    torch.save({"weights": weights, "spearman": metric.compute()}, f"{folder}/{rank}.pt")
    # A process that ends while the other still talks to it can be aborted.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_the_same_bank_and_agree_on_the_mean_over_all_images(tmp_path: Path) -> None:
    with socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_work, args=(str(tmp_path), port), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    expected = trained(batch_size=6, devices=1)
    for name, value in expected.items():
        torch.testing.assert_close(first["weights"][name], value, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(second["weights"][name], first["weights"][name])
    for found in (first, second):
        torch.testing.assert_close(found["spearman"], functional.spearman(*maps()).mean())
