"""What finds the probes of a recipe on activations that are kept: in memory, or in a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffprobe.features.reading import ReadableActivations
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.exact import solve_bank
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.ridge import ridge_bank
from diffprobe.probes.splits import Split
from diffprobe.probes.training import train_bank

if TYPE_CHECKING:
    import lightning


def fit_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    recipe: Recipe,
    *,
    seed: int = 0,
    images: Any = None,
    trainer: lightning.Trainer | None = None,
) -> ProbeBank:
    """All probes by `recipe.solver`; see `train_bank`, `ridge_bank` and `solve_bank`, also for what they raise."""
    if recipe.solver == "ridge":
        return ridge_bank(activations, targets, split, properties, recipe)
    if recipe.solver == "exact":
        device = "cuda" if torch.cuda.is_available() else "cpu"  # Apple's GPUs have no float64
        return solve_bank(activations, targets, split, properties, recipe, device=device)
    return train_bank(activations, targets, split, properties, recipe, seed=seed, trainer=trainer, images=images)
