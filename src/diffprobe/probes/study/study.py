"""What both ways of the probing study share: its configuration, how probes are fitted, and its results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import torch
from torch import Tensor

from diffprobe.activations.activations import GroupedActivations, LayerGroup, ReadableActivations
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.labels.labeler import eight_bit
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.controls import CONTROL_NAMES, CONTROLS, NETWORK, POSITION, Control
from diffprobe.probes.exact import solve_bank
from diffprobe.probes.one_pass import LabeledBatch
from diffprobe.probes.ridge import Strengths, edge_lines, ridge_bank
from diffprobe.probes.score_table import ScoreBlock, score_table, select
from diffprobe.probes.scoring import Threshold, check_threshold
from diffprobe.probes.splits import PARTS, Split, split_images
from diffprobe.properties import PAPERS, Property, as_properties
from diffprobe.properties.metrics import metric_named
from diffprobe.ranges import Choice, Items

if TYPE_CHECKING:
    import lightning

    from diffprobe.activations.extraction import Extraction, StoreFolder

Labeler = Callable[[Tensor, Sequence[str], Sequence[str]], dict[str, Tensor]]
"""(images [images, 3, H, W], their names, names of properties) -> label maps {property: [images, H, W]}, of vectors
[images, channels, H, W]."""


@dataclass(frozen=True)
class ControlSelection:
    """What results must beat, see docs/controls.md."""

    names: Annotated[list[Annotated[str, Choice(*CONTROL_NAMES)]], Items()]


@dataclass(frozen=True)
class ProbingConfig:
    """What is asked of the network. Raises UserError for an unknown control, property or threshold."""

    layers: Sequence[Layer]
    steps: Sequence[int]  # of the source's steps, from 0
    groups: Sequence[LayerGroup] = ()  # layers that are probed together, as one input each, beside `layers`
    properties: Sequence[str | Property] = PAPERS
    controls: Sequence[str] = ("permuted", "position")  # names of `CONTROLS`
    fractions: Sequence[float] = (0.6, 0.2, 0.2)  # of the images, to train, select and test on
    test: Sequence[str] = ()  # names of the images to test on, if they are given; the others train and select
    probe_config: ProbeConfig = field(default_factory=ProbeConfig)
    threshold: Threshold = "validation"  # of the probability of a binary property
    seed: int = 0  # of split, probes, shuffling and permutation; images have their own

    def __post_init__(self) -> None:
        as_properties(self.properties)
        if self.threshold != "validation":
            check_threshold(self.threshold)
        unknown = [name for name in self.controls if name not in CONTROLS]
        if unknown:
            raise UserError(f"unknown control {unknown[0]!r}: choose from {', '.join(CONTROLS)}")
        for group in self.groups:
            if group.name in CONTROLS:
                raise UserError(f"layers.groups.{group.name}: a control has that name; call the group something else")

    @property
    def items(self) -> dict[str, Property]:
        """The properties by name. Raises UserError for an unknown name, and for one twice."""
        return as_properties(self.properties)

    @property
    def inputs(self) -> list[Layer]:
        """All that probes are trained on: layers, then groups as layers."""
        return [*self.layers, *(group.layer for group in self.groups)]

    @property
    def recorded(self) -> list[Layer]:
        """The layers whose activations are needed, each once."""
        every = (*self.layers, *(layer for group in self.groups for layer in group.layers))
        return list({layer.name: layer for layer in every}.values())

    @property
    def probe_sets(self) -> list[Control]:
        """All sets of probes that are trained, in the order of the score table: the network's, then those of controls.

        'position' is always the last one: its scores tell whether labels are nearly the same in every image.
        """
        return [NETWORK, *(control for name, control in CONTROLS.items() if name in (*self.controls, POSITION))]

    @property
    def control_inputs(self) -> list[str]:
        """Names of the controls that are inputs of the denoiser, see `extract_control_inputs`."""
        return [control.name for control in self.probe_sets if control.kind == "input"]

    @property
    def replayed(self) -> dict[str, dict[str, Any]]:
        """Of each control network, by its name, what determines it, see `describe_replay`."""
        networks = [control.name for control in self.probe_sets if control.kind == "other_network"]
        return {name: {"control": name, "seed": self.seed} for name in networks}

    def split(self, names: Sequence[str]) -> Split:
        """Which of these images train, select and test. Raises UserError as `split_images`."""
        return split_images(names, self.fractions, self.seed, self.test)

    def read(self, activations: ReadableActivations) -> ReadableActivations:
        """Activations of the `recorded` layers as those of the `inputs`."""
        return GroupedActivations(activations, self.groups, self.layers) if self.groups else activations


@dataclass(frozen=True)
class ExecutionConfig:
    """How the frozen network is run."""

    batch_size: int = 8  # images at once
    dtype: str = "float16"  # of stored activations
    stores: StoreFolder | Path | None = None  # the folder of stores; without one, activations stay in memory
    one_pass: bool = False  # activations are used while they are computed, and not stored
    images_per_shard: int = 16
    example_count: int = 0  # test images that are decoded after every step, for pictures
    # The trainer of a stage: 'generate', 'replay', 'train' or 'train_control'
    make_trainer: Callable[[str], lightning.Trainer | None] = field(default=lambda stage: None)
    log: Callable[[str], None] = field(default=lambda line: None)
    # Takes the network's probes, once they are chosen, and the test images, a batch at a time
    on_test: Callable[[ProbeBank, LabeledBatch], None] | None = None


@dataclass(frozen=True)
class ExampleImage:
    """One test image for the pictures."""

    row: int
    steps: Tensor  # as it looks after every probed step, [steps, 3, H, W] in [0, 1]
    final: Tensor  # as it is at the end, [3, H, W]
    labels: dict[str, Tensor]  # its label maps, {property: [H, W]}
    predictions: dict[str, dict[str, Tensor]]  # in the labels' units, {property: {layer: [steps, h, w]}}
    # Both of vectors with channels: [channels, H, W] and [steps, channels, h, w]


@dataclass(frozen=True)
class ProbingResults:
    """Tables of `score_table` and `summarise`, and what the pictures are made from.

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


def fit_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str | Property],
    probe_config: ProbeConfig,
    *,
    seed: int = 0,
    images: Any = None,
    trainer: lightning.Trainer | None = None,
) -> ProbeBank:
    """All probes by `probe_config.solver`; arguments and errors as of `train_bank`, `ridge_bank` and `solve_bank`."""
    if probe_config.solver == "ridge":
        return ridge_bank(activations, targets, split, properties, probe_config)
    if probe_config.solver == "exact":
        device = "cuda" if torch.cuda.is_available() else "cpu"  # Apple's GPUs have no float64
        return solve_bank(activations, targets, split, properties, probe_config, device=device)
    return train_bank(activations, targets, split, properties, probe_config, seed=seed, trainer=trainer, images=images)


SHOWN = 3  # names of images in a warning


def one_valued(
    targets: Mapping[str, Tensor], names: Sequence[str], items: Mapping[str, Property]
) -> list[tuple[str, str]]:
    """(property, image) of every target that has one value everywhere."""
    found = []
    for name, maps in targets.items():
        constant = items[name].one_valued(maps).tolist()
        found += [(name, image) for image, is_constant in zip(names, constant, strict=True) if is_constant]
    return found


def skip_flat(scores: pd.DataFrame, flat: Sequence[tuple[str, str]], items: Mapping[str, Property]) -> pd.DataFrame:
    """The scores, without those of masks that are `flat` (of `one_valued`), whose Dice says little."""
    value = scores["value"]
    for name in dict.fromkeys(name for name, _ in flat if items[name].binary):
        images = [image for item, image in flat if item == name]
        value = value.mask((scores["property"] == name) & scores["image"].isin(images))
    return scores.assign(value=value)


def scores_of_blocks(
    blocks: Sequence[ScoreBlock], targets: Mapping[str, Tensor], names: Sequence[str], items: Mapping[str, Property]
) -> pd.DataFrame:
    """The scores of images called `names`, as `skip_flat` leaves them.

    Args:
        targets: label maps of these images, {property: [images, H, W]}.
    """
    maps = {key: item.target(targets[key]) for key, item in items.items()}
    return skip_flat(score_table(blocks), one_valued(maps, names, items), items)


def label_warnings(
    scores: pd.DataFrame, flat: Sequence[tuple[str, str]], items: Mapping[str, Property], images: int
) -> list[str]:
    """Sentences on labels that are flat (of `one_valued`) or, by the position control's scores, nearly the same in all
    of so many images."""
    lines = []
    for name in dict.fromkeys(name for name, _ in flat):
        names = [image for item, image in flat if item == name]
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        what, means = items[name].flat
        lines.append(f"the {name} labels of {len(names)} of {images} images have {what}{means}: {shown}")
    for name in scores["property"].unique():
        metric = metric_named(items[name].headline)
        mean = select(scores, layer=POSITION, split="test", property=name, metric=metric.name)["value"].mean()
        if metric.sign * (mean - metric.easy) > 0:
            lines.append(
                f"the {name} labels are nearly the same in every image: a map that sees no image, what suits the "
                f"training labels best, reaches {metric.label} {mean:.2f} on test images, so that good "
                "scores show nothing; look at the label maps"
            )
    return [f"Warning: {line}." for line in lines]


def scores_and_warnings(
    probing_config: ProbingConfig,
    blocks: Mapping[str, Sequence[ScoreBlock]],
    strengths: Mapping[str, Strengths],
    flat: Sequence[tuple[str, str]],
    images: int,
) -> tuple[pd.DataFrame, list[str]]:
    """The score table of the network and the controls that are asked for, and sentences for people.

    `blocks` and chosen `strengths` are by the name of each of `probe_sets`, in their order; `flat` is of `one_valued`.
    """
    asked, items = (NETWORK.name, *probing_config.controls), probing_config.items
    scores = score_table([block for name, several in blocks.items() if name in asked for block in several])
    warnings = label_warnings(skip_flat(score_table(blocks[POSITION]), flat, items), flat, items, images)
    return skip_flat(scores, flat, items), warnings + edge_lines(strengths, probing_config.probe_config.strengths)


class SplitOverlapCheck:
    """Refuses equal pictures in two parts of the split, such as a model makes of two prompts that begin alike."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, str]] = {}  # (part, name) by the picture at 8 bits

    def add(self, images: Tensor, names: Sequence[str], part: str) -> None:
        """Images [images, 3, H, W] in [0, 1] of one part. Raises UserError if another part has an equal picture."""
        for image, name in zip(eight_bit(images).contiguous(), names, strict=True):
            before, other = self._first.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), (part, name))
            if before != part:
                raise UserError(
                    f"the image {name}, which is to be in the part {part!r}, is the very picture of {other}, which is "
                    f"in {before!r}; leave one of the two out"
                )


def check_parts(images: Tensor, names: Sequence[str], split: Split) -> None:
    """Raises UserError if images [images, 3, H, W] of two parts are equal."""
    check = SplitOverlapCheck()
    for part in PARTS:
        for row in split.rows(part):
            check.add(images[row : row + 1], [names[row]], part)
