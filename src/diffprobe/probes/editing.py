"""Edits of activations after which a frozen probe reports a target map, and the controls of such edits.

Activations are [batch, channels, h, w], target maps [batch, h, w] at their resolution: of a mask the share of each
token that is foreground, of a quantity its standardised mean. All functions are pure and treat images alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log

import torch
from torch import Tensor
from torch.func import functional_call

from diffprobe.probes.bank import ProbeBank

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LinearReadout:
    """A linear probe's reading of a token: direction . activation + offset.

    For a binary property that is the log odds of foreground, which begins above `level`; else a standardised value.
    """

    direction: Tensor
    offset: Tensor
    level: float = 0.0

    def of(self, activation: Tensor) -> Tensor:
        """Activation [batch, channels, h, w] -> [batch, h, w]."""
        return torch.einsum("c,bchw->bhw", self.direction.to(activation), activation) + self.offset.to(activation)


def probe_at(bank: ProbeBank, name: str, layer: str, step: int) -> Callable[[Tensor], Tensor]:
    """The probe of property `name` on `layer` at a step: activation [batch, channels, h, w] -> [batch, outputs, h, w].

    It is frozen; gradients reach the activation.
    """
    head, at = bank.head_of(name, layer), bank.steps.index(step)
    own = {key: value[at : at + 1].detach() for key, value in head.named_parameters()}
    return lambda activation: functional_call(head, {k: v.to(activation) for k, v in own.items()}, activation[None])[0]


def readout_at(bank: ProbeBank, name: str, layer: str, step: int) -> LinearReadout:
    """The readout of the linear probe of property `name` on `layer` at a step. Raises TypeError for other probes."""
    head, at = bank.linear_head(name, layer), bank.steps.index(step)
    weight = head.weight[at].detach()
    bias = torch.zeros(len(weight)) if head.bias is None else head.bias[at].detach()
    if not bank.properties[name].binary:
        return LinearReadout(weight[0], bias[0])
    threshold = bank.thresholds[name][layer][at]
    return LinearReadout(weight[1] - weight[0], bias[1] - bias[0], log(threshold / (1 - threshold)))


def bounds(target: Tensor, level: float, margin: float, *, binary: bool) -> tuple[Tensor, Tensor]:
    """Lowest and highest reading that reports a target [batch, h, w]: at least `margin` above the level in tokens that
    are mostly foreground, and at least `margin` below it in the others; of a quantity the target plus or minus it."""
    if not binary:
        return target - margin, target + margin
    salient = target > 0.5
    low = torch.where(salient, level + margin, -inf)
    return low, torch.where(salient, inf, level - margin)


def minimum_norm(
    activation: Tensor, readout: LinearReadout, low: Tensor, high: Tensor, covariance: Tensor | None = None
) -> Tensor:
    """The smallest change of each token after which its reading is within [low, high], both [batch, h, w].

    A token is moved along the probe's direction w by (wanted - read) / |w|^2, and not at all where it is within: the
    projection onto a half space (Boyd and Vandenberghe 2004, section 8.1). With the covariance S of the layer's
    tokens [channels, channels] the smallest is that in Mahalanobis' distance, along S w: the direction in which the
    activations themselves change with the reading (the pattern of Haufe et al. 2014, NeuroImage 87).
    """
    direction = readout.direction.to(activation)
    along = direction if covariance is None else covariance.to(activation) @ direction
    read = readout.of(activation)
    missing = read.clamp(low, high) - read
    return activation + missing[:, None] * (along / (direction @ along))[:, None, None]


def steer(activation: Tensor, readout: LinearReadout, towards: Tensor, strength: float) -> Tensor:
    """Moves every token along the probe's direction, whatever it reads now.

    Args:
        towards: how far and which way, [batch, h, w]: 1 to more of the property, -1 to less.
        strength: of a whole move, as a share of the root mean square length of the image's tokens.
    """
    direction = readout.direction.to(activation)
    length = activation.square().sum(1).mean((-2, -1)).sqrt()[:, None, None]
    moved = (strength * length * towards.to(activation))[:, None] * (direction / direction.norm())[:, None, None]
    return activation + moved


def descend(
    activation: Tensor,
    probe: Callable[[Tensor], Tensor],
    loss: Loss,
    target: Tensor,
    *,
    learning_rate: float = 5e-3,
    iterations: int = 128,
) -> Tensor:
    """Gradient descent on the activation until the probe reports the target: Chen, Viegas and Wattenberg 2023, sec. 5.

    Adam, whose steps are the same for each image whatever the batch, on the sum over images of `loss` (outputs,
    target) -> [batch]. Any probe will do, not only a linear one.
    """
    with torch.enable_grad():
        edited = activation.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([edited], lr=learning_rate)
        for _ in range(iterations):
            (gradient,) = torch.autograd.grad(loss(probe(edited), target).sum(), edited)
            edited.grad = gradient
            optimizer.step()
    return edited.detach()


def token_lengths(activation: Tensor, edited: Tensor) -> Tensor:
    """How far an edit has moved every token, in Euclid's distance: [batch, h, w]."""
    return (edited - activation).norm(dim=1)


def random_edit(activation: Tensor, lengths: Tensor, noise: Tensor) -> Tensor:
    """The control of an edit: every token is moved by its length [batch, h, w], in the direction of `noise`, which is
    shaped as the activation."""
    return activation + noise * (lengths[:, None] / noise.norm(dim=1, keepdim=True))
