"""Every probe trained alone, as the paper does it: one network, one Adam, the loss over the pixels of the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def train_alone(
    probe: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    *,
    learning_rate: float,
    per_pixel: bool,
    l1: float = 0.0,
    smoothness: float = 0.0,
    images: list[Tensor] | None = None,
) -> nn.Module:
    """`batches` of (activation [batch, channels, h, w], target [batch, H, W]); two outputs mean cross entropy.

    probe: takes channels last. per_pixel: upsample to the target's size, else compare with the mean target of each
    token. The penalties: `l1` times the absolute weights, `smoothness` times that of the map at the size of `images`,
    one [batch, 3, H, W] a batch.
    """
    optimiser = torch.optim.Adam(probe.parameters(), lr=learning_rate)
    for number, (activation, target) in enumerate(batches):
        tokens = probe(activation.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        output = tokens
        if per_pixel:
            output = F.interpolate(tokens, target.shape[-2:], mode="nearest")
        else:
            target = F.avg_pool2d(target, target.shape[-1] // activation.shape[-1])
        if tokens.shape[1] == 2:
            loss = F.cross_entropy(output, (target > 0).long())
        else:
            loss = F.huber_loss(output[:, 0], target, delta=1.0)
        if l1:
            loss = loss + l1 * sum(weight.abs().sum() for name, weight in probe.named_parameters() if "weight" in name)
        if images is not None:
            maps = F.softmax(tokens, 1)[:, 1:] if tokens.shape[1] == 2 else tokens
            maps = F.interpolate(maps, images[number].shape[-2:], mode="nearest")
            loss = loss + smoothness * pixel_smoothness(maps[:, 0], images[number]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return probe


def pixel_smoothness(maps: Tensor, images: Tensor) -> Tensor:
    """Edge-aware smoothness of maps [images, H, W] with images [images, 3, H, W], pixel by pixel -> [images]."""
    right, down = maps.diff(dim=2).abs(), maps.diff(dim=1).abs()
    edges_right, edges_down = (images.diff(dim=axis).abs().mean(1) for axis in (3, 2))
    return (right * (-edges_right).exp()).mean((1, 2)) + (down * (-edges_down).exp()).mean((1, 2))
