"""Two processes on one machine give what one process gives."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.splits import Split
from tests.probes.planted import label_maps, noise
from tests.processes import together

PROPERTIES = ["saliency", "depth"]
# Batches of 3, 3 and 1 training images: two processes have 2 and 1 of a whole batch, and 1 and none of the last.
# Of the validation images 6 are shared first, then 1.
SPLIT = Split(list(range(7)), list(range(7, 14)), [14])
RECIPES = {
    "linear": ProbeConfig(batch_size=3),
    "penalised": ProbeConfig(batch_size=3, head="mlp", bias=True, l1=0.05, smoothness=2.0),
    "one image a batch": ProbeConfig(batch_size=1),
}
EPOCHS = 8


def trained(probe_config: ProbeConfig, **options) -> dict[str, Tensor]:
    """Weights, and the last logged training losses."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    images = torch.rand(15, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    bank = train_bank(noise(15), label_maps(15), SPLIT, PROPERTIES, probe_config, trainer=trainer, images=images)
    logged = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("training_loss/")}
    assert len(logged) == len(PROPERTIES)
    return bank.state_dict() | logged


def trained_together() -> dict[str, dict[str, Tensor]]:
    return {
        name: trained(probe_config, strategy=DDPStrategy(process_group_backend="gloo"), devices=2)
        for name, probe_config in RECIPES.items()
    }


@pytest.mark.slow
def test_two_processes_train_the_bank_that_one_trains_and_log_its_losses(tmp_path: Path) -> None:
    first, second = together(trained_together, tmp_path)
    for kind, probe_config in RECIPES.items():
        for name, value in trained(probe_config, devices=1).items():
            torch.testing.assert_close(first[kind][name], value, atol=1e-5, rtol=1e-4)
            assert torch.equal(second[kind][name], first[kind][name])
