"""What every training of the pocket world shares: optimiser, schedule, seeded batches, checkpoints, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

DECAY_SHARE = 0.2  # share of all steps over which the learning rate falls to zero


class PocketModule(lightning.LightningModule):
    """Warm-up, a plateau and a linear decay; batches drawn as a function of (seed, step, rank) alone.

    Drawing by step makes a resumed run see exactly the batches that an undisturbed one would have seen. The plateau
    lets a run that stopped before its decay go on to more steps than it was first given.
    """

    def __init__(self, steps: int, batch_size: int, learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def generator(self) -> torch.Generator:
        """The source of all randomness of the current step."""
        return torch.Generator().manual_seed((self.global_step * 64 + self.global_rank) * 7919 + 17)

    def rows(self, generator: torch.Generator, count: int) -> Tensor:
        """[batch_size] random row numbers below `count`."""
        return torch.randint(count, (self.batch_size,), generator=generator)

    def optimizer(self) -> torch.optim.Optimizer:
        """What trains the parameters that require a gradient."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(
            trained, lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay, fused=True
        )

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer()
        warmup, decay = min(200, self.steps // 10 + 1), self.steps * DECAY_SHARE

        def factor(step: int) -> float:
            return max(0.0, min(1.0, (step + 1) / warmup, (self.steps - step) / decay))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Lightning's own clipping refuses fused optimisers under mixed precision.
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(self.steps))  # type: ignore[arg-type]


def fit(module: PocketModule, folder: Path, devices: int, precision: str) -> None:
    """Trains to `module.steps`, resuming from the folder's last checkpoint where there is one."""
    lightning.seed_everything(0, verbose=False)
    checkpoint = ModelCheckpoint(
        folder, filename="step", every_n_train_steps=max(1, min(500, module.steps // 4)), save_last=True
    )
    trainer = lightning.Trainer(
        max_steps=module.steps,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
        callbacks=[checkpoint],
        logger=CSVLogger(folder, name="", version="log"),
        log_every_n_steps=50,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    last = folder / "last.ckpt"
    trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(last)  # the last step need not be one of those that were kept on the way
