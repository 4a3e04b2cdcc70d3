"""What every training of the pocket world shares: optimiser, schedule, seeded batches, checkpoints, resuming.

Muon for networks with convolutions: torch.optim.Muon takes matrices alone, and one at a time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
STACK = 8  # matrices of one shape orthogonalised at once: fewer, larger products


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al. 2024) for weights, AdamW for the rest.

    Every matrix's update has the root mean square that AdamW's has (Liu et al. 2025, arXiv 2502.16982), so one
    learning rate serves both. A convolution's weight is the matrix [out, height * width * in].

    Args:
        weights: parameters of two or four dimensions.
        others: biases, norms and whatever else AdamW is to train.
        lr: learning rate.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], others: Iterable[nn.Parameter], lr: float, weight_decay: float
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(weights)}, {"params": list(others)}]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.adam = torch.optim.AdamW(
            groups[1]["params"], lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of all parameters that have a gradient; returns what the closure gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group, rest = self.param_groups
        for weights, matrices in self._updates(group["params"]).values():
            scale = -group["lr"] * 0.2 * math.sqrt(max(matrices[0].shape))
            for start in range(0, len(weights), STACK):
                stack = orthogonalise(torch.stack(matrices[start : start + STACK]))
                for weight, update in zip(weights[start : start + STACK], stack, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(_as_weight(update, weight).to(weight.dtype), alpha=scale)
        self.adam.param_groups[0]["lr"] = rest["lr"]  # schedulers know only the outer groups
        self.adam.step()
        return loss

    def _updates(self, weights: list[nn.Parameter]) -> dict[torch.Size, tuple[list[nn.Parameter], list[Tensor]]]:
        """Nesterov momentum of every weight as a matrix, by shape."""
        found: dict[torch.Size, tuple[list[nn.Parameter], list[Tensor]]] = defaultdict(lambda: ([], []))
        for weight in weights:
            if weight.grad is None:
                continue
            buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight.grad))
            buffer.lerp_(weight.grad, 1 - MOMENTUM)
            matrix = _as_matrix(torch.lerp(weight.grad, buffer, MOMENTUM))
            found[matrix.shape][0].append(weight)
            found[matrix.shape][1].append(matrix)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"muon": super().state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["muon"])
        self.adam.load_state_dict(state_dict["adam"])


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices [count, rows, columns] with their singular values brought near 1: five Newton-Schulz steps in bf16."""
    matrices = matrices.bfloat16()
    tall = matrices.shape[1] > matrices.shape[2]
    if tall:
        matrices = matrices.mT
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = matrices @ matrices.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        matrices = torch.baddbmm(matrices, gram, matrices, beta=a)
    return matrices.mT if tall else matrices


def _as_matrix(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


def _as_weight(matrix: Tensor, like: Tensor) -> Tensor:
    if like.ndim == 2:
        return matrix
    out, channels, height, width = like.shape
    return matrix.view(out, height, width, channels).permute(0, 3, 1, 2)


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
