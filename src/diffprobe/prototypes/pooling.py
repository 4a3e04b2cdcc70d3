"""Prototypes: the mean of an activation over an object (Bonechi et al. 2024, Diff-Props, "Prototype extraction")."""

from __future__ import annotations

from torch import Tensor

from diffprobe.precision import full_products, precise


def masked_means(activation: Tensor, weights: Tensor) -> Tensor:
    """sum(F w) / sum(w) of an activation F [channels, h, w] for the weights w [objects, h, w] of every object.

    Returns:
        [objects, channels], float32, summed in float64; NaN for objects without weight, which have vanished at this
        resolution.
    """
    flat = precise(weights.flatten(1).to(activation.device))
    with full_products():
        sums = flat @ precise(activation.flatten(1)).T
    return (sums / flat.sum(1, keepdim=True)).float()
