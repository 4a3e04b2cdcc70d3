"""What the properties with one real-valued output (depth, shading) have in common."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def as_labelled(labels: Tensor) -> Tensor:
    """The target is the label map itself, [images, H, W]."""
    return labels.float()


def huber(outputs: Tensor, target: Tensor) -> Tensor:
    """Huber loss (delta 1) between outputs [..., 1, h, w] and the mean target of each token [..., h, w] -> [...].

    The paper takes the loss over pixels after nearest-neighbour upsampling. Its quadratic part has the same gradient
    here (the spread of the target inside a token is a constant); its linear part does not reduce exactly, and is
    applied to the token's mean residual instead. Where the target is constant inside each token both losses are equal.
    """
    prediction = outputs.squeeze(-3)
    return F.huber_loss(prediction, target.expand_as(prediction), reduction="none", delta=1.0).mean((-2, -1))


def only_output(outputs: Tensor) -> Tensor:
    """Outputs [..., 1, h, w] -> the map [..., h, w], in standardised units."""
    return outputs.squeeze(-3)
