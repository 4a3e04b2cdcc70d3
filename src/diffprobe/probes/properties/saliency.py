"""Saliency: which pixels belong to the salient foreground."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from diffprobe.probes.properties.property import Property


def foreground(labels: Tensor) -> Tensor:
    """Label maps [images, H, W] -> 1.0 where the label is above 0, else 0.0."""
    return (labels > 0).float()


def log_odds(outputs: Tensor) -> Tensor:
    """Two logits (background, foreground) [..., 2, h, w] -> log odds of foreground [..., h, w]."""
    background, salient = outputs.unbind(-3)
    return salient - background


def cross_entropy(outputs: Tensor, fraction: Tensor) -> Tensor:
    """Cross entropy of two logits [..., 2, h, w] against each token's foreground fraction [..., h, w] -> [...].

    All pixels of a token share its logits under nearest-neighbour upsampling, so the mean over pixels of the paper's
    cross entropy is exactly the mean over tokens of the soft one: same value, same gradient, fewer elements.
    """
    odds = log_odds(outputs)
    return (F.softplus(odds) - fraction * odds).mean((-2, -1))


def probability(outputs: Tensor) -> Tensor:
    """Two logits [..., 2, h, w] -> probability of foreground [..., h, w]."""
    return log_odds(outputs).sigmoid()


SALIENCY = Property(
    name="saliency",
    outputs=2,
    binary=True,
    learning_rate=1e-3,
    headline="dice",
    metrics=("dice", "dice_background"),
    target=foreground,
    loss=cross_entropy,
    decode=probability,
)
