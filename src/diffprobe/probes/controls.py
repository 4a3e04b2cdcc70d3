"""What a probe has to beat: the network with its weights permuted or new, and shuffled labels.

How much of a score is the activations' own: the score less what the same probe gets with shuffled labels.

Shuffled labels while images pass by: every image has those of the image before it, and the first those of the last.

So all images of a part of the split are on one cycle, whatever the size of the batches: each label map is used once,
and no image has its own unless it is alone. The images come in an order that is random already. It is the control of
`probes.controls.shuffled_targets` where nothing can be looked up later.

What pixel position alone predicts: the control that sees no image.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.probes.one_pass import OnePass
from diffprobe.probes.properties import Property, Standardisation
from diffprobe.probes.ridge import PixelSums
from diffprobe.probes.score_table import ScoreBlock, row_keys
from diffprobe.probes.scoring import Threshold, target_maps
from diffprobe.probes.splits import PARTS, Split
from diffprobe.probes.summaries import summarise

Denoiser = TypeVar("Denoiser", bound=nn.Module)


@torch.no_grad()
def permute_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser whose every weight and bias tensor has its own elements in a random order.

    Each tensor keeps its distribution and the network its architecture; what training arranged is gone. Drawn on the
    CPU in the order of `named_parameters`, so it depends on nothing but the seed. The original is left as it is.
    """
    permuted = copy.deepcopy(denoiser)
    generator = torch.Generator().manual_seed(seed)
    for parameter in permuted.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return permuted


@torch.no_grad()
def fresh_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser, a network of diffusers, whose every parameter is as its class makes it: never trained.

    Tables of positions and other buffers, which nobody trained, are the original's, and so are precision and place.
    Drawn on the CPU in float32, so it depends on nothing but class, configuration and seed; torch's own random state
    is not touched. The original is left as it is.
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


def shuffled_targets(targets: Mapping[str, Tensor], split: Split, seed: int = 0) -> dict[str, Tensor]:
    """Label maps [images, H, W] by property, dealt out anew among the images of each part of the split.

    No image keeps its own, unless it is alone in its part; all properties are dealt alike. A probe that is trained,
    selected and scored with these is the control of Hewitt and Liang (2019, "Designing and Interpreting Probes with
    Control Tasks"), where as there it is judged by the shuffled labels, not by the true ones: what is left is what all
    label maps share, such as how often and where there is an object, read from the activations as they are. Their
    control labels belong to word types, which training and test have in common; images are not, so here a probe cannot
    score by learning labels by heart, and the control asks for less capacity than theirs.

    The training labels stay the same set, so standardisation and the unit of rmse stay the same too.
    """
    generator = torch.Generator().manual_seed(seed)
    source = torch.arange(len(next(iter(targets.values()))))
    for part in PARTS:
        rows = torch.tensor(getattr(split, part))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        source[shuffled] = shuffled.roll(1)  # one cycle through all of them
    return {name: maps[source] for name, maps in targets.items()}


REAL, SHUFFLED = "none", "labels"  # values of the column `control`
_PAIR = ("model", "layer", "step", "property", "probe", "split", "image", "metric")


def selectivity(scores: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Real scores less those with shuffled labels: mean over images with a paired interval.

    Selectivity of Hewitt and Liang (2019), each score judged by the labels that its own probe was trained for (see
    `controls.shuffled_targets`). The difference is taken image by image, which takes out how hard an image is.
    `n` counts the images where both scores are defined; rmse is better the lower, so its selectivity is negative.

    Args:
        scores: those of the real probes and of control 'labels'; others do not matter.

    Returns:
        A table as `summarise`'s with control 'selectivity', a row for each key of the rows of control 'labels'.

    Raises:
        UserError: no scores with shuffled labels, or some without a real score of the same image beside them.
    """
    keys = row_keys(scores, _PAIR)
    is_real, is_shuffled = (scores["control"] == REAL).to_numpy(), (scores["control"] == SHUFFLED).to_numpy()
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
    return summarise(paired.assign(control=control, value=differences), level=level, differences=True)


Targets = dict[str, Tensor]


class LabeledBatch(NamedTuple):
    """Activations {layer: [steps, images, C, h, w]} and target maps {property: [images, H, W]} of images."""

    values: dict[str, Tensor]
    targets: Targets
    names: Sequence[str]


class ShuffledLabels:
    """Deals labels on from image to image. The first image waits, with its activations, until the last has passed."""

    def __init__(self) -> None:
        self._first: LabeledBatch | None = None
        self._last: Targets = {}

    def shift(self, batch: LabeledBatch) -> Iterator[LabeledBatch]:
        """The images of a batch with the labels of those before them; all but the first image of the part."""
        before, self._last = self._last, {name: maps[-1:] for name, maps in batch.targets.items()}
        if self._first is None:
            waiting = {layer: values[:, :1].clone() for layer, values in batch.values.items()}
            self._first = LabeledBatch(waiting, {}, batch.names[:1])
            dealt = {name: maps[:-1] for name, maps in batch.targets.items()}
            batch = LabeledBatch(
                {layer: values[:, 1:] for layer, values in batch.values.items()}, dealt, batch.names[1:]
            )
        else:
            dealt = {name: torch.cat([before[name], maps[:-1]]) for name, maps in batch.targets.items()}
            batch = batch._replace(targets=dealt)
        if batch.names:
            yield batch

    def close(self, from_neighbour: Callable[[Targets], Targets]) -> Iterator[LabeledBatch]:
        """The first image, with the last labels of the process before this one. The next part may begin."""
        first, last, self._first, self._last = self._first, from_neighbour(self._last), None, {}
        if first is not None:
            yield first._replace(targets=last)


POSITION = "position"


def position_scores(
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    *,
    names: Sequence[str],
    model: str,
    threshold: Threshold = "validation",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """Scores of `PositionMap` on every validation and test image, treated as the probes are (threshold, units).

    targets: label maps [images, H, W] by property, in the order of `names`. Rows have layer 'position', control
    'position' and no step. Raises UserError for a bad threshold, an unknown property, or label maps that do not fit.
    """
    maps = {name: target_maps(targets, name, names) for name in properties}
    once = OnePass(PositionLearner(properties), properties, threshold, (model, probe, POSITION), {NO_STEP: None})

    def part(rows: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        wanted = {name: values[list(rows)] for name, values in maps.items()}
        return {POSITION: next(iter(wanted.values()))[None, :, None]}, wanted

    once.fit(*part(split.train))
    once.solve(_alone)
    once.validate(*part(split.validation), [names[row] for row in split.validation])
    once.choose(_alone, _alone)
    once.test(*part(split.test), [names[row] for row in split.test])
    return once.blocks(names)


def _alone(whole: Any) -> Any:
    """One process has seen all."""
    return whole


class PositionLearner:
    """Sums the training labels at every pixel, while images pass by, for `OnePass` on the one layer 'position'."""

    def __init__(self, properties: Sequence[str]) -> None:
        self.pixels = PixelSums(properties)
        self.sums: dict[str, Tensor] = {}
        self.count = torch.zeros(())

    def add(self, values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        self.pixels.add(targets)
        for name, maps in targets.items():
            self.sums[name] = self.sums.get(name, 0) + maps.double().sum(0)
            self.count = self.count.to(maps.device)
        self.count = self.count + len(next(iter(targets.values())))

    def merge(self, reduce: Callable[[Tensor], Tensor]) -> None:
        self.pixels.merge(reduce)
        self.sums = {name: reduce(total) for name, total in self.sums.items()}
        self.count = reduce(self.count)

    def solve(self) -> PositionMap:
        standardisations = self.pixels.standardisations()
        maps = [standardisations[name].apply(self.sums[name] / self.count) for name in self.pixels.properties]
        return PositionMap(torch.stack(maps).float(), standardisations)


class PositionMap:
    """The mean training label at every pixel [properties, H, W], standardised, or a probability. It minimises squared
    error and cross entropy on the training images among all functions of position, so there is no control with a linear
    probe on the coordinates (x, y) beside it: that is one such function, and a weaker one."""

    def __init__(self, maps: Tensor, standardisations: dict[str, Standardisation]) -> None:
        self.maps, self.standardisations = maps, standardisations

    def outputs(self, layer: str, activation: Tensor) -> Tensor:
        """[1, batch, any, H, W], of which only the size is looked at -> [1, properties, 1, batch, H, W]"""
        return self.maps[None, :, None, None].expand(-1, -1, -1, activation.shape[1], -1, -1)

    def errors(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        wanted = torch.stack([one.apply(targets[name]) for name, one in self.standardisations.items()])
        return (outputs - wanted[:, None].to(outputs)).square().mean((-2, -1))

    def decode(self, item: Property, outputs: Tensor) -> Tensor:
        return outputs

    def take(self, chosen: object) -> PositionMap:
        return self
