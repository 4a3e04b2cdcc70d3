"""What the network's probes have to beat, see docs/controls.md: which controls there are, and how each is made."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from diffprobe.activations.control_inputs import CONTROL_INPUTS
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.one_pass import POSITION, LabeledBatch, OnePass, PositionLearner, Targets
from diffprobe.probes.score_table import ScoreBlock, row_keys
from diffprobe.probes.scoring import Threshold, target_maps
from diffprobe.probes.splits import PARTS, Split
from diffprobe.probes.summaries import summarise
from diffprobe.properties import Property, as_properties

Denoiser = TypeVar("Denoiser", bound=nn.Module)


@torch.no_grad()
def permute_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser whose every weight and bias tensor has its own elements in a random order.

    Drawn on the CPU, so it depends on nothing but the seed.
    """
    permuted = copy.deepcopy(denoiser)
    for parameter, order in _orders(permuted, seed):
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return permuted


@contextmanager
def permuted_weights(denoiser: Denoiser, seed: int = 0) -> Iterator[Denoiser]:
    """As `permute_weights`, in the denoiser itself, whose weights are put back when the block ends.

    So no second network is held.
    """
    with torch.no_grad():
        for parameter, order in _orders(denoiser, seed):
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    try:
        yield denoiser
    finally:
        with torch.no_grad():
            for parameter, order in _orders(denoiser, seed):
                before = torch.empty_like(parameter).flatten()
                before[order] = parameter.flatten()
                parameter.copy_(before.view_as(parameter))


def _orders(denoiser: nn.Module, seed: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each parameter with the random order of its elements."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in denoiser.parameters():
        yield parameter, torch.randperm(parameter.numel(), generator=generator).to(parameter.device)


@torch.no_grad()
def fresh_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser, a network of diffusers, with every parameter newly initialised as its class does it.

    Buffers, precision and device are the original's. Drawn on the CPU in float32, so it depends on nothing but class,
    configuration and seed; torch's own random state is not touched.
    """
    network: Any = type(denoiser)
    config: Any = denoiser.config
    known = inspect.signature(network.__init__).parameters
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        new = network.from_config({key: config[key] for key in config if key in known})
    fresh = copy.deepcopy(denoiser)
    for name, parameter in fresh.named_parameters():
        parameter.copy_(new.get_parameter(name))
    return fresh


@dataclass(frozen=True)
class Control:
    """One set of probes: the network's own, or a control's. All have the same split, metrics and choice of thresholds.

    The kind says what the probes are trained on: the activations of the run's denoiser ('network'), or of another one
    that is given the same latents and prompts ('other_network'); one of `CONTROL_INPUTS`, as one layer of that name
    ('input'); the activations of the run's denoiser with label maps of other images ('shuffled_labels'); the place of
    each pixel, as one layer of that name without steps ('position').
    """

    name: str  # in the column `control` of the score table
    kind: Literal["network", "other_network", "input", "shuffled_labels", "position"]
    description: str  # of what its probes are trained on, for the log
    make_denoiser: Callable[[Any, int], Any] | None = None  # the other one, from the run's and a seed
    in_its_place: Callable[[Any, int], AbstractContextManager[Any]] | None = None  # the run's, made into the other one

    def other_network(self, denoiser: Any, seed: int) -> AbstractContextManager[Any]:
        """The other denoiser, for as long as it is needed. The run's own may not be used meanwhile."""
        assert self.make_denoiser is not None, self.name
        if self.in_its_place is not None:
            return self.in_its_place(denoiser, seed)
        return nullcontext(self.make_denoiser(denoiser, seed))

    def probe_config(self, network: ProbeConfig) -> ProbeConfig:
        """How its probes are made, given those of the network.

        Those of inputs have a bias: without one, black could only be predicted as zero, and pixels would be beaten too
        easily.
        """
        return replace(network, bias=True) if self.kind == "input" else network


NETWORK = Control("none", "network", "the network")
CONTROL_NAMES = ("permuted", "fresh", *CONTROL_INPUTS, "labels", POSITION)  # for checks of settings that import nothing
CONTROLS = {  # in the order of the score table
    control.name: control
    for control in (
        Control("permuted", "other_network", "a network with permuted weights", permute_weights, permuted_weights),
        Control("fresh", "other_network", "a network with new, untrained weights", fresh_weights),
        *(Control(name, "input", f"{name}, without the network") for name in CONTROL_INPUTS),
        Control("labels", "shuffled_labels", "shuffled labels"),
        Control(POSITION, "position", "pixel position"),
    )
}


def shuffled_targets(targets: Mapping[str, Tensor], split: Split, seed: int = 0) -> dict[str, Tensor]:
    """Label maps [images, ...] by property, shuffled among the images of each part of the split, properties alike.

    No image keeps its own, unless it is alone in its part. Probes that are trained, selected and scored with these are
    the control of Hewitt and Liang (2019, "Designing and Interpreting Probes with Control Tasks"). Their labels belong
    to word types, which training and test share; those of images cannot be learnt by heart.
    """
    generator = torch.Generator().manual_seed(seed)
    source = torch.arange(len(next(iter(targets.values()))))
    for part in PARTS:
        rows = torch.tensor(split.rows(part))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        source[shuffled] = shuffled.roll(1)  # one cycle through all of them
    return {name: maps[source] for name, maps in targets.items()}


class ShuffledLabels:
    """Shuffled labels while images pass by in random order: each has those of the one before it, the first those of the
    last, for which it waits with its activations. So all images of a part are one cycle, as in `shuffled_targets`."""

    def __init__(self) -> None:
        self._first: LabeledBatch | None = None
        self._last: Targets = {}

    def shift(self, batch: LabeledBatch) -> Iterator[LabeledBatch]:
        """The images of a batch with the labels of those before them; all but the first image of the part."""
        before, self._last = self._last, {name: maps[-1:] for name, maps in batch.targets.items()}
        if self._first is None:
            waiting = {layer: values[:, :1].clone() for layer, values in batch.values.items()}
            self._first = LabeledBatch(waiting, {}, batch.names[:1])
            batch = LabeledBatch(
                {layer: values[:, 1:] for layer, values in batch.values.items()},
                {name: maps[:-1] for name, maps in batch.targets.items()},
                batch.names[1:],
            )
        else:
            shifted = {name: torch.cat([before[name], maps[:-1]]) for name, maps in batch.targets.items()}
            batch = batch._replace(targets=shifted)
        if batch.names:
            yield batch

    def close(self, from_neighbour: Callable[[Targets], Targets]) -> Iterator[LabeledBatch]:
        """The first image, with the last labels of the process before this one. The next part may begin."""
        first, last, self._first, self._last = self._first, from_neighbour(self._last), None, {}
        if first is not None:
            yield first._replace(targets=last)


_PAIR = ("model", "layer", "step", "property", "probe", "split", "image", "metric")


def selectivity(scores: pd.DataFrame) -> pd.DataFrame:
    """Real scores less those with shuffled labels (Hewitt and Liang 2019): mean over images with a paired interval.

    An error is better the lower, so its selectivity is negative. Returns a table as `summarise`'s with control
    'selectivity', a row for each key of the rows of control 'labels'; `n` counts the images where both scores are
    defined. Raises UserError for no scores with shuffled labels, or some without a real score of the same image.
    """
    keys = row_keys(scores, _PAIR)
    is_real, is_shuffled = ((scores["control"] == name).to_numpy() for name in ("none", "labels"))
    real, shuffled = scores[is_real], scores[is_shuffled]
    if not len(shuffled):
        raise UserError("no scores with shuffled labels to compare with: run with the control 'labels'.")
    places = pd.Index(keys[is_real]).get_indexer(pd.Index(keys[is_shuffled]))
    alone = shuffled[places < 0]
    if len(alone):
        first = " / ".join(str(alone[name].iloc[0]) for name in _PAIR)
        raise UserError(
            f"{len(alone)} scores with shuffled labels have no real score beside them, the first is {first}."
        )
    paired = real.iloc[places]
    differences = paired["value"].to_numpy() - shuffled["value"].to_numpy()
    control = pd.Categorical(["selectivity"]).repeat(len(paired))
    return summarise(paired.assign(control=control, value=differences), differences=True)


def position_scores(
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str | Property],
    *,
    names: Sequence[str],
    model: str,
    threshold: Threshold = "validation",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """Scores of `PositionMap` on every validation and test image, of label maps by property.

    Images are called `names`. Raises UserError for a bad threshold, an unknown property, or label maps that do not fit.
    """
    items = as_properties(properties)
    maps = {name: target_maps(targets, item, names) for name, item in items.items()}
    learner, keys = PositionLearner(list(items.values())), (model, probe, POSITION)
    one_pass = OnePass(learner, list(items.values()), threshold, keys, {NO_STEP: None})
    for part in PARTS:
        rows = split.rows(part)
        wanted = {name: values[rows] for name, values in maps.items()}
        sizes = next(iter(wanted.values()))[None, :, None]
        one_pass.take(part, LabeledBatch({POSITION: sizes}, wanted, [names[row] for row in rows]))
        one_pass.conclude(part, lambda total: total, lambda items: items)
    return one_pass.blocks(names)
