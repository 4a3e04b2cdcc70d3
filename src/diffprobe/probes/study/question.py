"""What is asked of a network, how it is run, and what comes out: what travels through the studies of probes.

What finds the probes of a recipe on activations that are kept: in memory, or in a store.

What is done and said about labels that a probe can hardly be wrong about, whatever it sees.

Pictures that are equal although their names are not, such as a model makes of two long prompts that begin alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import torch
from torch import Tensor

from diffprobe.activations.activations import GroupedActivations, LayerGroup, ReadableActivations
from diffprobe.activations.control_inputs import CONTROL_INPUTS
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.labels.labeler import eight_bit
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.controls import POSITION, fresh_weights, permute_weights
from diffprobe.probes.exact import solve_bank
from diffprobe.probes.properties import property_named
from diffprobe.probes.ridge import ridge_bank
from diffprobe.probes.score_table import select
from diffprobe.probes.scoring import Threshold, check_threshold
from diffprobe.probes.splits import PARTS, Split, split_images
from diffprobe.ranges import Choice, Items

if TYPE_CHECKING:
    import lightning

    from diffprobe.activations.extraction import Extraction, StoreFolder
    from diffprobe.probes.bank import ProbeBank


def fit_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    probe_config: ProbeConfig,
    *,
    seed: int = 0,
    images: Any = None,
    trainer: lightning.Trainer | None = None,
) -> ProbeBank:
    """All probes by `probe_config.solver`; see `train_bank`, `ridge_bank` and `solve_bank`, also for what they
    raise."""
    if probe_config.solver == "ridge":
        return ridge_bank(activations, targets, split, properties, probe_config)
    if probe_config.solver == "exact":
        device = "cuda" if torch.cuda.is_available() else "cpu"  # Apple's GPUs have no float64
        return solve_bank(activations, targets, split, properties, probe_config, device=device)
    return train_bank(activations, targets, split, properties, probe_config, seed=seed, trainer=trainer, images=images)


Labeler = Callable[[Tensor, Sequence[str], Sequence[str]], dict[str, Tensor]]
# Control networks, as people call them and as they are made, given denoiser and seed.
CONTROL_NETWORKS: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "permuted": ("permuted weights", permute_weights),
    "fresh": ("new, untrained weights", fresh_weights),
}
CONTROLS = (*CONTROL_NETWORKS, *CONTROL_INPUTS, "labels", "position")


@dataclass(frozen=True)
class ControlSelection:
    """What results must beat, see docs/controls.md."""

    names: Annotated[list[Annotated[str, Choice(*CONTROLS)]], Items()]


@dataclass(frozen=True)
class ProbingConfig:
    """What is asked of the network, and how carefully.

    Attributes:
        layers: whose activations are probed.
        groups: layers that are probed together, as one input each, beside `layers`.
        steps: which of the source's steps, from 0, they are at.
        properties: 'saliency', 'depth', 'shading'.
        controls: of `CONTROLS`: the network with 'permuted' or 'fresh' weights; its input ('latent'), the intermediate
            image ('pixels') and the VAE's attention while it decodes that ('decoder'); the real activations with
            shuffled 'labels'; pixel 'position' alone.
        fractions: of the images, to train, select and test on.
        test: names of the images to test on, if they are given; the others train and select.
        probe_config: what probes, and how they are trained.
        threshold: at which a saliency probability is foreground: 'validation' or a number.
        seed: of split, probes, shuffling and permutation; images have their own.

    Raises:
        UserError: an unknown control, property or threshold.
    """

    layers: Sequence[Layer]
    steps: Sequence[int]
    groups: Sequence[LayerGroup] = ()
    properties: Sequence[str] = ("saliency", "depth", "shading")
    controls: Sequence[str] = ("permuted", "position")
    fractions: Sequence[float] = (0.6, 0.2, 0.2)
    test: Sequence[str] = ()
    probe_config: ProbeConfig = field(default_factory=ProbeConfig)
    threshold: Threshold = "validation"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.properties:
            property_named(name)
        if self.threshold != "validation":
            check_threshold(self.threshold)
        unknown = [name for name in self.controls if name not in CONTROLS]
        if unknown:
            raise UserError(f"unknown control {unknown[0]!r}: choose from {', '.join(CONTROLS)}")
        for group in self.groups:
            if group.name in CONTROLS:
                raise UserError(f"layers.groups.{group.name}: a control has that name; call the group something else")

    @property
    def inputs(self) -> list[Layer]:
        """All that probes are trained on: layers, then groups as layers."""
        return [*self.layers, *(group.layer for group in self.groups)]

    @property
    def recorded(self) -> list[Layer]:
        """The layers whose activations are needed, each once."""
        every = (*self.layers, *(layer for group in self.groups for layer in group.layers))
        return list({layer.name: layer for layer in every}.values())

    def split(self, names: Sequence[str]) -> Split:
        """Which of these images train, select and test. Raises UserError as `split_images`."""
        return split_images(names, self.fractions, self.seed, self.test)

    def read(self, activations: ReadableActivations) -> ReadableActivations:
        """Activations of the `recorded` layers as those of the `inputs`."""
        return GroupedActivations(activations, self.groups, self.layers) if self.groups else activations


@dataclass(frozen=True)
class ExecutionConfig:
    """How the frozen network is run: images at once, precision and place of the activations, trainers, progress.

    `stores` is the folder of activation stores; without one, activations stay in memory, or, if `one_pass`, are used
    while they are computed and not kept. `example_count` test images are decoded after every step, for pictures.
    `make_trainer` makes the Lightning trainer of a stage: 'generate', 'replay', 'train' or 'train_control'. `log` takes
    one line when a stage begins.
    """

    batch_size: int = 8
    dtype: str = "float16"
    stores: StoreFolder | Path | None = None
    one_pass: bool = False
    images_per_shard: int = 16
    example_count: int = 0
    make_trainer: Callable[[str], lightning.Trainer | None] = field(default=lambda stage: None)
    log: Callable[[str], None] = field(default=lambda line: None)


@dataclass(frozen=True)
class ExampleImage:
    """One test image for the pictures.

    Attributes:
        row: its number in the source.
        steps: as it looks after every probed step, [steps, 3, H, W] in [0, 1].
        final: as it is at the end, [3, H, W].
        labels: its label maps, {property: [H, W]}.
        predictions: what the probes say in the labels' units, {property: {layer: [steps, h, w]}}.
    """

    row: int
    steps: Tensor
    final: Tensor
    labels: dict[str, Tensor]
    predictions: dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class ProbingResults:
    """What the study leaves: tables of `score_table` and `summarise`, and what the pictures are made from.

    `extraction` and `targets` (label maps [images, H, W] by property) are None where nothing of the images was kept.
    `warnings` are sentences about the labels, and about penalties at the edge of their grid.
    """

    scores: pd.DataFrame
    summaries: pd.DataFrame
    bank: ProbeBank
    examples: list[ExampleImage]
    split: Split
    evaluations: int
    extraction: Extraction | None = None
    targets: dict[str, Tensor] | None = None
    warnings: list[str] = field(default_factory=list)


def probe_config_for(probing_config: ProbingConfig, control: str) -> ProbeConfig:
    """How the probes of a control (or 'none') are made. Those on no layer of a network have a bias: without one, the
    brightness that is zero would be a prediction of zero, and raw pixels would be too easy to beat."""
    return replace(probing_config.probe_config, bias=True) if control in CONTROL_INPUTS else probing_config.probe_config


def replayed_controls(probing_config: ProbingConfig) -> list[dict[str, Any]]:
    """What the control networks are called that see the latents again, see `describe_replay`."""
    return [
        {"control": name, "seed": probing_config.seed} for name in probing_config.controls if name in CONTROL_NETWORKS
    ]


EASY = 0.95  # a score of the mean training label from which on labels are taken to be nearly the same in every image
SHOWN = 3


def one_valued(targets: Mapping[str, Tensor], names: Sequence[str]) -> list[tuple[str, str]]:
    """(property, image) of every target map [images, H, W] that has one value everywhere."""
    found = []
    for name, maps in targets.items():
        flat = maps.flatten(1)
        alike = (flat.amax(1) == flat.amin(1)).tolist()
        found += [(name, image) for image, same in zip(names, alike, strict=True) if same]
    return found


def skip_flat(scores: pd.DataFrame, flat: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The scores, missing where the image's mask lacks one class: its Dice says little of what was seen.

    Args:
        flat: from `one_valued`. Quantities of one value have no correlation anyway, and an rmse that means something.
    """
    value = scores["value"]
    for name in dict.fromkeys(name for name, _ in flat if property_named(name).binary):
        images = [image for item, image in flat if item == name]
        value = value.mask((scores["property"] == name) & scores["image"].isin(images))
    return scores.assign(value=value)


def warnings_of(scores: pd.DataFrame, flat: Sequence[tuple[str, str]], images: int) -> list[str]:
    """Sentences for people; none where the labels are such as they should be.

    Args:
        scores: those of the position control are looked at.
        flat: from `one_valued`, of all images.
    """
    lines = []
    for name in dict.fromkeys(name for name, _ in flat):
        whose = [image for item, image in flat if item == name]
        shown = ", ".join(whose[:SHOWN]) + (", ..." if len(whose) > SHOWN else "")
        binary = property_named(name).binary
        what = "no salient pixel, or no background" if binary else "the same value everywhere"
        means = "their Dice is left out of all scores" if binary else "they have no rank correlation"
        lines.append(f"the {name} labels of {len(whose)} of {images} images have {what}, so {means}: {shown}")
    for name in scores["property"].unique():
        headline = property_named(name).headline
        mean = select(scores, layer=POSITION, split="test", property=name, metric=headline)["value"].mean()
        if mean > EASY:
            lines.append(
                f"the {name} labels are nearly the same in every image: a map that sees no image, the mean training "
                f"label, reaches {headline} {mean:.2f} on test images, so that high scores show nothing; look at "
                "the label maps"
            )
    return [f"Warning: {line}." for line in lines]


class SplitOverlapCheck:
    """Remembers of each picture which part of the split it is in, and lets none into a second one."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, str]] = {}  # (part, name) by what is to be seen at 8 bits

    def add(self, images: Tensor, names: Sequence[str], part: str) -> None:
        """Images [images, 3, H, W] in [0, 1] of one part.

        Raises:
            UserError: another part has an equal picture, so that scores on test images would say nothing.
        """
        for image, name in zip(eight_bit(images).contiguous(), names, strict=True):
            before, other = self._first.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), (part, name))
            if before != part:
                raise UserError(
                    f"the image {name}, which is to be in the part {part!r}, is the very picture of {other}, which is "
                    f"in {before!r}; leave one of the two out"
                )


def check_parts(images: Tensor, names: Sequence[str], split: Split) -> None:
    """Raises UserError if images [images, 3, H, W] of two parts are equal."""
    seen = SplitOverlapCheck()
    rows: Mapping[str, Sequence[int]] = {part: list(getattr(split, part)) for part in PARTS}
    for part, of_part in rows.items():
        for row in of_part:
            seen.add(images[row : row + 1], [names[row]], part)
