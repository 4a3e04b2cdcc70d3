"""Generation with activations edited on the way, so that a frozen probe reports target maps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import torch
from torch import Tensor

from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import at_step, naming_images
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import Replacements, TrajectoryStep
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.editing import (
    bounds,
    descend,
    minimum_norm,
    probe_at,
    random_edit,
    readout_at,
    steer,
    token_lengths,
)
from diffprobe.properties.tokens import token_means

METHODS = ("pattern", "minimum_norm", "steering", "gradient")
OF_LINEAR_PROBES = METHODS[:3]
HALVES = ("conditional", "both")

Covariances = Mapping[tuple[str, int], Tensor]
"""(layer, step) -> covariance of the layer's tokens at that step, [channels, channels]."""
Lengths = dict[tuple[str, int], Tensor]
"""(layer, step) -> how far an edit has moved every token, [rows of the edited half or halves, h, w]."""
Change = Callable[[Tensor, Tensor], Tensor]
"""What an activation [batch, channels, h, w] becomes, given token targets [batch, h, w]."""


@dataclass(frozen=True)
class Editing:
    """How activations are edited; see `diffprobe.probes.editing` for the methods.

    Attributes:
        property: whose probe shall report the target.
        layers, steps: where, steps from 0; the bank has to hold their probes.
        method: 'pattern' (the smallest change in Mahalanobis' distance), 'minimum_norm' (in Euclid's), 'steering', or
            'gradient' (the papers').
        half: 'conditional' as the papers, or 'both' halves of the guidance batch.
        margin: of 'pattern' and 'minimum_norm': how far beyond its threshold a mask's probe shall be, in log odds.
        strength: of 'steering', as a share of the tokens' length.
        learning_rate, iterations: of 'gradient'.

    Raises:
        UserError: an unknown method or half.
    """

    property: str
    layers: Sequence[str]
    steps: Sequence[int]
    method: str = "pattern"
    half: str = "conditional"
    margin: float = 2.0
    strength: float = 0.5
    learning_rate: float = 5e-3
    iterations: int = 128

    def __post_init__(self) -> None:
        for key, value, choices in (("method", self.method, METHODS), ("half", self.half, HALVES)):
            if value not in choices:
                raise UserError(f"no {key} {value!r} of an intervention: choose one of {', '.join(choices)}")

    def check(self, bank: ProbeBank) -> None:
        """Raises UserError where the bank lacks a probe, or has probes that the method cannot edit for."""
        missing = [name for name in self.layers if name not in bank.channels]
        if self.property not in bank.properties or missing or not set(self.steps) <= set(bank.steps):
            what = f"layer {missing[0]}" if missing else f"{self.property} at steps {list(self.steps)}"
            raise UserError(
                f"there are no probes of {what}: these are of {', '.join(bank.properties)} at {len(bank.channels)} "
                f"layers, such as {bank.layers[0]}, and steps {bank.steps}; choose layers and steps among them"
            )
        if bank.head != "linear" and self.method in OF_LINEAR_PROBES:
            raise UserError(
                f"method {self.method} is for linear probes, and these are of kind {bank.head}: use gradient"
            )


def replacements(
    backbone: Backbone,
    seeds: Sequence[int],
    targets: Tensor,
    bank: ProbeBank,
    editing: Editing,
    *,
    covariances: Covariances | None = None,
    record: Lengths | None = None,
    random: Lengths | None = None,
) -> Replacements:
    """Edits for `generate` after which the chosen layers' probes report the target maps, for images with these seeds.

    Args:
        targets: [images, H, W], as a labeler gives them: masks in {0, 1}, quantities in label units.
        covariances: for method 'pattern', as `TokenMoments` gives them.
        record: filled with how far the edit moves every token.
        random: the control instead: every token is moved in a random direction, as far as the edit that recorded these
            lengths of the same images has moved it. What the edit would do to the activations that the control has
            disturbed already is another length, and a larger one.

    Raises:
        UserError: as `Editing.check`, or covariances are missing.
    """
    editing.check(bank)
    if editing.method == "pattern" and covariances is None:
        raise UserError("method pattern needs the covariance of activations; see TokenMoments")
    item = bank.properties[editing.property]
    wanted = bank.standardisations[editing.property].apply(item.target(targets)).to(backbone.device)
    half = editing.half if backbone.guided else "both"

    def change_at(layer: str, step: int) -> Change:
        if random is not None:
            return partial(_move_at_random, lengths=random[layer, step], draws=[f"{s}/{layer}/{step}" for s in seeds])
        edit = _edit(bank, editing, layer, step, covariances)

        def recorded(activation: Tensor, target: Tensor) -> Tensor:
            edited = edit(activation, target)
            if record is not None:
                record[layer, step] = token_lengths(activation, edited)
            return edited

        return recorded

    return {
        step: {
            layer: partial(_change_half, half=half, change=change_at(layer, step), targets=wanted)
            for layer in editing.layers
        }
        for step in editing.steps
    }


def final_images(backbone: Backbone, trajectory: Iterable[TrajectoryStep]) -> Tensor:
    """Images [batch, 3, H, W] of a trajectory's last latents."""
    (last,) = deque(trajectory, maxlen=1)
    with torch.no_grad(), naming_images((), at_step(last.index, last.timestep)):
        return decode_latents(backbone, last.latents).cpu()


class TokenMoments:
    """Sums over tokens of activations by (layer, step), for their covariances."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], list[Tensor]] = {}

    def add(self, step: int, activations: Mapping[str, Tensor]) -> None:
        """Activations [batch, channels, h, w] of a step by layer."""
        for layer, values in activations.items():
            tokens = values.movedim(1, -1).flatten(0, -2).double()
            new = [torch.tensor(float(len(tokens))), tokens.sum(0), tokens.T @ tokens]
            old = self._sums.get((layer, step))
            self._sums[layer, step] = new if old is None else [a + b for a, b in zip(old, new, strict=True)]

    def covariances(self) -> dict[tuple[str, int], Tensor]:
        """By (layer, step), [channels, channels]."""
        covariances = {}
        for key, (count, total, products) in self._sums.items():
            mean = total / count
            covariances[key] = (products / count - mean[:, None] * mean[None]).float()
        return covariances


def _edit(bank: ProbeBank, editing: Editing, layer: str, step: int, covariances: Covariances | None) -> Change:
    item = bank.properties[editing.property]
    if editing.method == "gradient":
        probe = probe_at(bank, editing.property, layer, step)
        how = {"learning_rate": editing.learning_rate, "iterations": editing.iterations}
        return lambda activation, target: descend(activation, probe, item.loss, target[:, None], **how)
    readout = readout_at(bank, editing.property, layer, step)
    if editing.method == "steering":
        towards = (lambda target: 2 * target - 1) if item.binary else (lambda target: target)
        return lambda activation, target: steer(activation, readout, towards(target), editing.strength)
    covariance = covariances[layer, step] if covariances and editing.method == "pattern" else None
    margin = editing.margin if item.binary else 0.0

    def smallest(activation: Tensor, target: Tensor) -> Tensor:
        low, high = bounds(target, readout.level, margin, binary=item.binary)
        return minimum_norm(activation, readout, low, high, covariance)

    return smallest


def _change_half(output: Tensor, half: str, change: Change, targets: Tensor) -> Tensor:
    """A layer's whole output batch with its conditional rows, which come last, or all of them changed.

    Changes are computed in float32 at least, since half precision is too coarse for small steps.
    """
    begin = 0 if half == "both" else len(output) - len(targets)
    activation = output[begin:].float()
    times = len(activation) // len(targets)
    tokens = token_means(targets, (output.shape[-2], output.shape[-1])).repeat(times, 1, 1)
    return torch.cat([output[:begin], change(activation, tokens).to(output.dtype)])


def _move_at_random(activation: Tensor, target: Tensor, lengths: Tensor, draws: Sequence[str]) -> Tensor:
    """Directions are drawn on the CPU, from a generator for each image that is seeded by one of the texts `draws`."""
    generators = [torch.Generator().manual_seed(crc32(text.encode())) for text in draws]
    noise = torch.stack([torch.randn(activation.shape[1:], generator=each) for each in generators])
    noise = noise.to(activation.device).repeat(len(activation) // len(draws), 1, 1, 1)
    return random_edit(activation, lengths.to(activation), noise)
