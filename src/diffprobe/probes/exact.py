"""Linear probes at the minimum of the loss that Adam is given, by Newton's method.

The loss of each property is convex in a linear probe, so there is one best probe; a small ridge term, chosen on
validation images, makes it unique. There are no learning rate, epochs or order of images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffprobe.activations.activations import ReadableActivations, StepValues
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.scoring import prepare_bank
from diffprobe.probes.splits import Split
from diffprobe.properties import Property

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(points [some, n], which problems these are [some]) -> value [some], gradient [some, n], Hessian [some, n, n]."""

TOLERANCE = 1e-12  # of a value
SUFFICIENT = 1e-4  # of the decrease that the slope promises (Armijo)
ROUNDING = 1e-13  # of a value
DAMPING = 1e-9  # of the Hessian's mean diagonal, added to it: makes singular ones solvable, and moves no minimum
KEPT_BYTES = 2**31  # of a layer's training images, as stored, in memory; steps are solved in groups of this size
LARGEST = 4096  # numbers of a probe: 130 MB of its Hessian
CHUNK_NUMBERS = 2**20  # of activations at once in float64: about what a cache holds


def minimise(evaluate: Evaluate, start: Tensor, *, limit: int = 100) -> tuple[Tensor, Tensor]:
    """Minima of many small convex functions from `start` [problems, n], and which are `converged` [problems].

    Newton's steps in float64, halved until the value decreases enough, with at most `limit` evaluations of each
    problem. A problem has converged when g' H^-1 g / 2, which estimates how far the value lies above its minimum, is at
    most `TOLERANCE` (Boyd and Vandenberghe 2004, "Convex Optimization", section 9.5).
    """
    point, step = start.double().clone(), torch.zeros_like(start, dtype=torch.float64)
    value = torch.full_like(point[:, 0], torch.inf)
    promised, length = torch.zeros_like(value), torch.ones_like(value)
    converged = torch.zeros_like(value, dtype=torch.bool)
    for _ in range(limit):
        index = (~converged).nonzero()[:, 0]
        if not len(index):
            break
        trial = point[index] + length[index, None] * step[index]
        found, gradient, hessian = evaluate(trial, index)
        enough = value[index] - SUFFICIENT * length[index] * promised[index] + ROUNDING * found.abs()
        better = found <= enough
        length[index] = torch.where(better, 1.0, length[index] / 2)
        index, gradient, hessian = index[better], gradient[better], hessian[better]
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        damping = DAMPING * diagonal.mean(-1, keepdim=True).expand_as(diagonal)
        factor = torch.linalg.cholesky(hessian + torch.diag_embed(damping.clamp(min=torch.finfo(torch.float64).tiny)))
        point[index], value[index] = trial[better], found[better]
        step[index] = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        promised[index] = -(gradient * step[index]).sum(-1)
        converged[index] = promised[index] / 2 <= TOLERANCE
    return point, converged


class Tokens:
    """The tokens of some images at some steps of a layer, to be read again and again, a few images at a time.

    Yields (places among `rows`, [steps, inputs, places * h * w] in float64): the inputs are the channels and, with
    `bias`, a constant 1. They are kept in memory if `KEPT_BYTES` hold them, else read anew each time.

    With a bias, channels are distances to `middle` [steps, channels, 1], by default their means: Newton's method does
    not converge where means are many times the standard deviations.
    """

    def __init__(
        self,
        values: StepValues,
        steps: slice,
        rows: Sequence[int],
        bias: bool,
        device: str | torch.device,
        middle: Tensor | None = None,
    ) -> None:
        self.values, self.steps, self.rows, self.bias, self.device = values, steps, list(rows), bias, device
        numbers = (steps.stop - steps.start) * values.shape[2:].numel()
        self.at_once = max(1, CHUNK_NUMBERS // numbers)
        fits = numbers * len(self.rows) * values.dtype.itemsize <= KEPT_BYTES
        self.in_memory = list(self._read()) if fits else None
        self.middle = middle
        if bias and middle is None:
            sums, count = torch.zeros(()), 0
            for _, stored in self.in_memory or self._read():
                tokens = _channels_first(stored)
                sums, count = sums.to(tokens) + tokens.sum(-1, keepdim=True), count + tokens.shape[-1]
            self.middle = sums / count

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for places, stored in self.in_memory or self._read():
            tokens = _channels_first(stored)
            if self.middle is not None:
                tokens = torch.cat([tokens - self.middle, torch.ones_like(tokens[:, :1])], 1)
            yield places, tokens

    def _read(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.rows), self.at_once):
            rows = self.rows[start : start + self.at_once]
            stored = self.values[self.steps, rows].flatten(3)  # [steps, rows, channels, tokens]
            yield slice(start, start + len(rows)), stored.to(self.device)


def _channels_first(stored: Tensor) -> Tensor:
    """[steps, rows, channels, tokens] -> [steps, channels, rows * tokens] in float64."""
    return stored.movedim(1, 2).flatten(2).double()


@dataclass(frozen=True)
class Objective:
    """The mean loss over `tokens`, and `penalty` [steps, inputs] / 2 times the squares of the probe's weights.

    `targets` [images, planes, h, w] are the images' standardised planes, in the order of the tokens. A probe is as many
    maps as least squares would predict, one after another: of a binary property one, of the log odds, since its two
    logits are minus and plus half of it.
    """

    item: Property
    tokens: Tokens
    targets: Tensor
    penalty: Tensor

    def __call__(self, points: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probes [some, maps x inputs] of the steps `index` [some] -> value, gradient and Hessian of each, for
        `minimise`."""
        penalty = self.penalty[index].repeat(1, self.item.regressed)
        value = (penalty * points.square()).sum(-1) / 2
        gradient, hessian = penalty * points, torch.diag_embed(penalty)
        for places, chunk in self.tokens:
            tokens = chunk if len(index) == len(chunk) else chunk[index]
            maps = self._maps(points, tokens).requires_grad_()  # [some, maps, n]
            loss = self._losses(maps, places).sum(-1) / len(self.targets)
            slope = torch.autograd.grad(loss.sum(), maps, create_graph=True)[0]
            value += loss.detach()
            gradient += (slope.detach() @ tokens.mT).flatten(1)
            self._add_curvature(hessian, slope, maps, tokens)
        return value, gradient, hessian

    def _add_curvature(self, hessian: Tensor, slope: Tensor, maps: Tensor, tokens: Tensor) -> None:
        """Adds to the Hessians [some, maps x inputs, maps x inputs]. Each token's loss depends on its own outputs
        alone, so the block of two maps is X' diag(c) X with the second derivatives c of the tokens; it is symmetric."""
        inputs = tokens.shape[1]
        for one in range(self.item.regressed):
            curvature = torch.autograd.grad(slope[:, one].sum(), maps, retain_graph=True)[0]
            for other in range(one, self.item.regressed):
                block = (tokens * curvature[:, other : other + 1]) @ tokens.mT
                rows, columns = (slice(at * inputs, (at + 1) * inputs) for at in (one, other))
                hessian[:, rows, columns] += block
                if other > one:
                    hessian[:, columns, rows] += block

    def losses(self, points: Tensor) -> Tensor:
        """Mean loss of probes [steps, maps x inputs], without the penalty: [steps]."""
        total = torch.zeros_like(points[:, 0])
        for places, tokens in self.tokens:
            total += self._losses(self._maps(points, tokens), places).sum(-1)
        return total / len(self.targets)

    def _maps(self, points: Tensor, tokens: Tensor) -> Tensor:
        """Probes [steps, maps x inputs] on tokens [steps, inputs, n] -> [steps, maps, n]."""
        return points.view(len(points), self.item.regressed, -1) @ tokens

    def _losses(self, maps: Tensor, places: slice) -> Tensor:
        """Outputs [steps, maps, places * h * w] -> mean loss of each image [steps, places]."""
        targets = self.targets[places]
        outputs = maps.view(*maps.shape[:2], len(targets), *targets.shape[-2:]).transpose(1, 2)
        return self.item.loss(self.item.from_regressed(outputs), targets)


def solve_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str | Property],
    probe_config: ProbeConfig,
    *,
    device: str | torch.device = "cpu",
) -> ProbeBank:
    """All probes (layer x step x property) at the minimum of their loss over the split's training images.

    Minimised is the mean loss plus strength * e / 2 * |w|^2 (of the log odds, if binary; the bias is free), where e is
    the mean eigenvalue of the tokens' second moment (with a bias: their covariance). All `probe_config.strengths` are
    solved, from strong to weak, each from the one before; a probe keeps that with the lowest validation loss. At most
    `KEPT_BYTES` of training and of validation tokens are in memory. Warns of probes that did not converge.

    Args:
        targets: label maps [images, H, W] by property, in the row order of `activations.names`.
        device: one that has float64.

    Raises UserError for unknown properties, label maps that do not fit the activations or do not vary, and probes of
    more than `LARGEST` numbers.
    """
    bank, tokens = prepare_bank(activations, targets, split, properties, probe_config, seed=0)
    _check_sizes(activations, bank)
    unfinished: list[str] = []
    strengths = sorted(probe_config.strengths, reverse=True)
    for layer in activations.layers:
        values = activations.values[layer.name]
        for steps in _groups(values, len(split.train)):
            train = Tokens(values, steps, split.train, probe_config.bias, device)
            validation = Tokens(values, steps, split.validation, probe_config.bias, device, train.middle)
            scales = _scales(train)
            for name, item in bank.properties.items():
                wanted = tokens[name][layer.height, layer.width].double().to(device)
                objectives = [
                    (
                        Objective(item, train, wanted[split.train], strength * scales),
                        Objective(item, validation, wanted[split.validation], strength * scales),
                    )
                    for strength in strengths
                ]
                probes, chosen, converged = _best(objectives)
                bank.strengths[name].setdefault(layer.name, []).extend(strengths[place] for place in chosen.tolist())
                probes = probes.view(len(probes), item.regressed, -1)
                if train.middle is not None:  # from distances to it to channels as they are
                    probes[..., -1] -= (probes[..., :-1] @ train.middle)[..., 0]
                _fill(bank, name, layer.name, steps, probes.cpu())
                missed = [step for step, done in zip(bank.steps[steps], converged.tolist(), strict=True) if not done]
                unfinished += [f"{name} of {layer.name} at step {step}" for step in missed]
    if unfinished:
        warnings.warn(f"{len(unfinished)} exact probes did not converge: {'; '.join(unfinished)}", stacklevel=2)
    return bank.eval().requires_grad_(False)


def _groups(values: StepValues, images: int) -> list[slice]:
    """The steps in groups whose training tokens can be kept in memory, one step at least."""
    steps = values.shape[0]
    size = images * values.shape[2:].numel() * values.dtype.itemsize
    together = max(1, KEPT_BYTES // size)
    return [slice(start, min(start + together, steps)) for start in range(0, steps, together)]


def _scales(tokens: Tokens) -> Tensor:
    """What a strength multiplies, [steps, inputs]: the mean eigenvalue, and for the constant 0."""
    count, sums, squares = 0, torch.zeros(()), torch.zeros(())
    for _, chunk in tokens:
        count += chunk.shape[-1]
        sums, squares = sums.to(chunk) + chunk.sum(-1), squares.to(chunk) + chunk.square().sum(-1)
    if not tokens.bias:
        return (squares / count).mean(-1, keepdim=True).expand_as(squares)
    variances = (squares / count - (sums / count).square())[:, :-1]
    scales = variances.mean(-1, keepdim=True).expand_as(squares).clone()
    scales[:, -1] = 0
    return scales


def _best(objectives: Sequence[tuple[Objective, Objective]]) -> tuple[Tensor, Tensor, Tensor]:
    """For (training, validation) of each strength: of the minima of training that with the lowest validation loss,
    [steps, maps x inputs], which of the strengths that is [steps], and whether it converged [steps]."""
    first = objectives[0][0]
    probes = torch.zeros_like(first.penalty.repeat(1, first.item.regressed))
    best, lowest = probes.clone(), torch.full_like(probes[:, 0], torch.inf)
    finished = torch.zeros_like(lowest, dtype=torch.bool)
    chosen = torch.zeros_like(lowest, dtype=torch.long)
    for place, (training, validation) in enumerate(objectives):
        probes, converged = minimise(training, probes)
        losses = validation.losses(probes)
        better = losses < lowest
        best[better], lowest[better], finished[better] = probes[better], losses[better], converged[better]
        chosen[better] = place
    return best, chosen, finished


@torch.no_grad()
def _fill(bank: ProbeBank, name: str, layer: str, steps: slice, probes: Tensor) -> None:
    """Puts probes [steps, maps, inputs] into the bank."""
    outputs = bank.properties[name].from_regressed(probes[..., None])[..., 0]
    head, channels = bank.linear_head(name, layer), bank.channels[layer]
    head.weight[steps] = outputs[..., :channels].float()
    if head.bias is not None:
        head.bias[steps] = outputs[..., channels].float()


def _check_sizes(activations: ReadableActivations, bank: ProbeBank) -> None:
    """Raises UserError for probes of so many numbers that Newton's method cannot have their Hessian."""
    for name, item in bank.properties.items():
        for layer in activations.layers:
            numbers = item.regressed * (layer.channels + bank.bias)
            if numbers > LARGEST:
                raise UserError(
                    f"probe.solver=exact: a probe of {name} on {layer.name} has {numbers} numbers ({item.regressed} "
                    f"maps of {layer.channels} channels), and Newton's method takes up to {LARGEST}; choose "
                    "probe=ridge, or probe.solver=adam"
                )
