"""The main study: probe the activations of a generation at every layer and step, and hold them against controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from diffprobe.backbone.layers import Layer
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.features.extraction import Extraction, extract, extract_replayed
from diffprobe.probes.controls import permute_weights, position_scores
from diffprobe.probes.properties import property_named
from diffprobe.probes.scoring import Threshold, check_threshold, choose_thresholds, score_bank
from diffprobe.probes.splits import Split, split_images
from diffprobe.probes.summaries import summarise
from diffprobe.probes.tables import Score, Summary
from diffprobe.probes.training import train_bank

if TYPE_CHECKING:
    import lightning

    from diffprobe.backbone.load import Backbone
    from diffprobe.features.activations import Activations
    from diffprobe.probes.bank import ProbeBank

Labeler = Callable[[Tensor, Sequence[str], Sequence[str]], dict[str, Tensor]]
CONTROLS = ("permuted", "position")


@dataclass(frozen=True)
class Question:
    """What is asked of the network, and how carefully.

    Attributes:
        layers: whose activations are probed.
        steps: 0-based steps of the trajectory at which they are.
        properties: 'saliency', 'depth', 'shading'.
        controls: 'permuted' (the U-Net's weights permuted) and 'position' (pixel position alone).
        sampling_steps: length of the trajectory.
        half: of the guidance batch that is probed.
        fractions: of the images, to train, select and test on.
        epochs, batch_size, bias, validate_every: of the probes' training.
        threshold: at which a saliency probability is foreground: 'validation' or a number.
        seed: of split, probes, shuffling and permutation; images have their own.
    """

    layers: Sequence[Layer]
    steps: Sequence[int]
    properties: Sequence[str] = ("saliency", "depth", "shading")
    controls: Sequence[str] = CONTROLS
    sampling_steps: int = 15
    half: str = "conditional"
    fractions: Sequence[float] = (0.6, 0.2, 0.2)
    epochs: int = 30
    batch_size: int = 4
    bias: bool = False
    validate_every: int = 2
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

    `shown` test images are decoded after every step, for pictures. `trainer` makes the Lightning trainer of a stage:
    'generate', 'replay', 'train' or 'train_control'. `tell` takes one line when a stage begins.
    """

    batch_size: int = 8
    dtype: str = "float16"
    folder: Path | None = None
    shown: int = 0
    trainer: Callable[[str], lightning.Trainer | None] = field(default=lambda stage: None)
    tell: Callable[[str], None] = field(default=lambda line: None)


@dataclass(frozen=True)
class Findings:
    """What the study leaves: tables first, and what the pictures are made from."""

    scores: list[Score]
    summaries: list[Summary]
    bank: ProbeBank
    extraction: Extraction
    targets: dict[str, Tensor]
    split: Split
    evaluations: int


def study_emergence(
    backbone: Backbone, prompts: Sequence[Prompt], labeler: Labeler, question: Question, means: Means | None = None
) -> Findings:
    """Generates the prompts' images once, trains every probe, scores probes and controls.

    The permuted control sees the very latents and prompts that the network saw, and its probes are trained, selected
    and scored like the others. Test images are used for the scores alone.

    Raises:
        UserError: the question does not fit the network, the images or the labels.
    """
    means = means or Means()
    names = [prompt.name for prompt in prompts]
    split = split_images(names, question.fractions, question.seed)

    means.tell(f"generating {len(prompts)} images in {question.sampling_steps} steps")
    extraction = extract(
        backbone,
        prompts,
        question.layers,
        question.steps,
        sampling_steps=question.sampling_steps,
        half=question.half,
        batch_size=means.batch_size,
        dtype=means.dtype,
        folder=means.folder,
        shown=split.test[: means.shown],
        trainer=means.trainer("generate"),
    )
    evaluations = len(prompts) * question.sampling_steps
    targets = labeler(extraction.images, names, question.properties)

    probes = len(question.layers) * len(question.steps) * len(question.properties)
    means.tell(f"training {probes} probes on {len(split.train)} images")
    bank, scores = _train_and_score(extraction.activations, targets, split, question, means, backbone.name, "none")

    if "permuted" in question.controls:
        means.tell("control: the same for the network with permuted weights")
        control = extract_replayed(
            backbone,
            permute_weights(backbone.denoiser, question.seed),
            prompts,
            extraction,
            sampling_steps=question.sampling_steps,
            batch_size=means.batch_size,
            folder=means.folder,
            trainer=means.trainer("replay"),
        )
        evaluations += len(prompts) * len(question.steps)
        scores += _train_and_score(control, targets, split, question, means, backbone.name, "permuted")[1]
    if "position" in question.controls:
        scores += position_scores(
            targets,
            split,
            question.properties,
            names=names,
            model=backbone.name,
            threshold=question.threshold,
        )
    return Findings(scores, summarise(scores, seed=question.seed), bank, extraction, targets, split, evaluations)


def _train_and_score(
    activations: Activations,
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
        epochs=question.epochs,
        batch_size=question.batch_size,
        bias=question.bias,
        seed=question.seed,
        validate_every=question.validate_every,
        trainer=means.trainer("train" if control == "none" else "train_control"),
    )
    bank.thresholds = choose_thresholds(bank, activations, targets, split, question.threshold)
    return bank, score_bank(bank, activations, targets, split, model=model, control=control)
