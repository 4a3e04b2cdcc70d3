"""The main study: probe the activations of a generation at every layer and step, and hold them against controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.features.extraction import Extraction, extract, extract_replayed
from diffprobe.features.sources.source import Source
from diffprobe.probes.controls import permute_weights, position_scores
from diffprobe.probes.properties import property_named
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.scoring import Threshold, check_threshold, choose_thresholds, score_bank
from diffprobe.probes.splits import Split, split_images
from diffprobe.probes.summaries import summarise
from diffprobe.probes.tables import Score, Summary
from diffprobe.probes.training import train_bank

if TYPE_CHECKING:
    import lightning

    from diffprobe.backbone.load import Backbone
    from diffprobe.features.activations import Activations
    from diffprobe.features.store.reader import StoredActivations
    from diffprobe.probes.bank import ProbeBank

Labeler = Callable[[Tensor, Sequence[str], Sequence[str]], dict[str, Tensor]]
CONTROLS = ("permuted", "position")


@dataclass(frozen=True)
class Question:
    """What is asked of the network, and how carefully.

    Attributes:
        layers: whose activations are probed.
        steps: which of the source's steps, from 0, they are at.
        properties: 'saliency', 'depth', 'shading'.
        controls: 'permuted' (the U-Net's weights permuted) and 'position' (pixel position alone).
        fractions: of the images, to train, select and test on.
        recipe: what probes, and how they are trained.
        threshold: at which a saliency probability is foreground: 'validation' or a number.
        seed: of split, probes, shuffling and permutation; images have their own.
    """

    layers: Sequence[Layer]
    steps: Sequence[int]
    properties: Sequence[str] = ("saliency", "depth", "shading")
    controls: Sequence[str] = CONTROLS
    fractions: Sequence[float] = (0.6, 0.2, 0.2)
    recipe: Recipe = field(default_factory=Recipe)
    threshold: Threshold = "validation"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError for an unknown control, property or threshold."""
        for name in self.properties:
            property_named(name)
        if self.threshold != "validation":
            check_threshold(self.threshold)
        unknown = [name for name in self.controls if name not in CONTROLS]
        if unknown:
            raise UserError(f"unknown control {unknown[0]!r}: choose from {', '.join(CONTROLS)}")


@dataclass(frozen=True)
class Means:
    """How the frozen network is run: images at once, precision and place of the activations, trainers, progress.

    `stores` is the folder of activation stores; without one, activations stay in memory. `shown` test images are
    decoded after every step, for pictures. `trainer` makes the Lightning trainer of a stage: 'generate', 'replay',
    'train' or 'train_control'. `tell` takes one line when a stage begins.
    """

    batch_size: int = 8
    dtype: str = "float16"
    stores: Path | None = None
    images_per_shard: int = 16
    shown: int = 0
    trainer: Callable[[str], lightning.Trainer | None] = field(default=lambda stage: None)
    tell: Callable[[str], None] = field(default=lambda line: None)


@dataclass(frozen=True)
class Findings:
    """What the study leaves: tables first, and what the pictures are made from.

    `shown` are test images by row, decoded after every probed step: [steps, 3, H, W] in [0, 1].
    """

    scores: list[Score]
    summaries: list[Summary]
    bank: ProbeBank
    extraction: Extraction
    images: Tensor
    shown: dict[int, Tensor]
    targets: dict[str, Tensor]
    split: Split
    evaluations: int


def replayed_controls(question: Question) -> list[dict[str, Any]]:
    """What the control networks are called that see the latents again, see `describe_replay`."""
    return [{"control": "permuted", "seed": question.seed}] if "permuted" in question.controls else []


def study_emergence(
    backbone: Backbone, source: Source, labeler: Labeler, question: Question, means: Means | None = None
) -> Findings:
    """Takes the source's images through the network once, trains every probe, scores probes and controls.

    The permuted control sees the very latents and prompts that the network saw, and its probes are trained, selected
    and scored like the others. Test images are used for the scores alone.

    Raises:
        UserError: the question does not fit the network, the images or the labels.
    """
    means = means or Means()
    split = split_images(source.names, question.fractions, question.seed)

    means.tell(f"running {len(source.names)} images through {len(source.timesteps(backbone))} steps")
    extraction = extract(
        backbone,
        source,
        question.layers,
        question.steps,
        batch_size=means.batch_size,
        dtype=means.dtype,
        stores=means.stores,
        images_per_shard=means.images_per_shard,
        trainer=means.trainer("generate"),
        tell=means.tell,
    )
    evaluations = extraction.computed * source.evaluations(backbone, question.steps)
    images = extraction.images
    targets = labeler(images, source.names, question.properties)

    probes = len(question.layers) * len(question.steps) * len(question.properties)
    means.tell(f"training {probes} probes on {len(split.train)} images")
    bank, scores = _train_and_score(extraction.activations, targets, split, question, means, backbone.name, "none")

    for called in replayed_controls(question):
        means.tell("control: the same for the network with permuted weights")
        control = extract_replayed(
            backbone,
            permute_weights(backbone.denoiser, question.seed),
            extraction,
            called,
            batch_size=means.batch_size,
            stores=means.stores,
            trainer=means.trainer("replay"),
        )
        evaluations += control.computed * len(question.steps) * source.draws
        scores += _train_and_score(control.activations, targets, split, question, means, backbone.name, "permuted")[1]
    if "position" in question.controls:
        scores += position_scores(
            targets,
            split,
            question.properties,
            names=source.names,
            model=backbone.name,
            threshold=question.threshold,
            probe=question.recipe.name,
        )
    shown = {row: extraction.decoded(backbone, row) for row in split.test[: means.shown]}
    summaries = summarise(scores, seed=question.seed)
    return Findings(scores, summaries, bank, extraction, images, shown, targets, split, evaluations)


def _train_and_score(
    activations: Activations | StoredActivations,
    targets: dict[str, Tensor],
    split: Split,
    question: Question,
    means: Means,
    model: str,
    control: str,
) -> tuple[ProbeBank, list[Score]]:
    bank = train_bank(
        activations,
        targets,
        split,
        question.properties,
        question.recipe,
        seed=question.seed,
        trainer=means.trainer("train" if control == "none" else "train_control"),
    )
    bank.thresholds = choose_thresholds(bank, activations, targets, split, question.threshold)
    probe = question.recipe.name
    return bank, score_bank(bank, activations, targets, split, model=model, control=control, probe=probe)
