"""Every probe trained alone, as the paper does it: one nn.Linear, one Adam, the loss over the pixels of the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def train_alone(
    probe: nn.Linear, batches: list[tuple[Tensor, Tensor]], *, learning_rate: float, per_pixel: bool
) -> nn.Linear:
    """`batches` of (activation [batch, channels, h, w], target [batch, H, W]); two outputs mean cross entropy.

    per_pixel: upsample to the target's size, else compare with the mean target of each token.
    """
    optimiser = torch.optim.Adam(probe.parameters(), lr=learning_rate)
    for activation, target in batches:
        output = probe(activation.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if per_pixel:
            output = F.interpolate(output, target.shape[-2:], mode="nearest")
        else:
            target = F.avg_pool2d(target, target.shape[-1] // activation.shape[-1])
        if probe.out_features == 2:
            loss = F.cross_entropy(output, (target > 0).long())
        else:
            loss = F.huber_loss(output[:, 0], target, delta=1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return probe
