"""Prototypes: the mean of an activation over an object (Bonechi et al. 2024, Diff-Props, "Prototype extraction")."""

from __future__ import annotations

from torch import Tensor


def masked_means(activation: Tensor, weights: Tensor) -> Tensor:
    """sum(F w) / sum(w) of an activation F [channels, h, w] for the weights w [objects, h, w] of every object.

    Returns:
        [objects, channels], float32; NaN for objects without weight, which have vanished at this resolution.
    """
    flat = weights.flatten(1).to(activation.device)
    return (flat @ activation.float().flatten(1).T) / flat.sum(1, keepdim=True)
