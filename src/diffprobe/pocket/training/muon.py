"""Muon for networks with convolutions: torch.optim.Muon takes matrices alone, and one at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

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
