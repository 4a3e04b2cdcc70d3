"""Interventions: does the image follow when a probe is made to report another map?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan

import torch
from torch import Tensor

from diffprobe.analyses.intervention.edits import Covariances, Editing, Lengths, TokenMoments, final_images, intervene
from diffprobe.analyses.intervention.tables import (
    EDITED,
    RANDOM,
    UNEDITED,
    InterventionGain,
    InterventionScore,
    InterventionSummary,
    summarise_interventions,
)
from diffprobe.analyses.intervention.target_maps import Move, draw_moves, move
from diffprobe.backbone.finite import naming_images
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep, generate
from diffprobe.data.prompts import Prompt
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.scoring import METRICS, dice
from diffprobe.probes.study.question import Labeler

# From images [images, 3, H, W] and their prompts to how much of the prompt is seen, in [0, 1], NaN where unknown.
Agreement = Callable[[Tensor, Sequence[str]], Tensor]


@dataclass(frozen=True)
class Targets:
    """What the maps shall become: `kind` of `target_maps.KINDS`, a move of `low` to `high`, or the one given `mask`.

    Each image has `trials` moves.
    """

    kind: str = "translation"
    low: float = 11
    high: float = 15
    trials: int = 1
    mask: Tensor | None = None


@dataclass(frozen=True)
class InterventionExample:
    """One image for the pictures: `original` and edited [3, H, W] by method, with label maps [H, W].

    `edited` and `edited_labels` are by method; `move` is None where the target is a given mask.
    """

    prompt: Prompt
    original: Tensor
    label: Tensor
    target: Tensor
    move: Move | None
    edited: dict[str, Tensor]
    edited_labels: dict[str, Tensor]


@dataclass(frozen=True)
class InterventionResults:
    """Tables, pictures of the first images, what 'pattern' edits with, and evaluations of the denoiser."""

    scores: list[InterventionScore]
    summaries: list[InterventionSummary]
    gains: list[InterventionGain]
    examples: list[InterventionExample]
    covariances: Covariances
    evaluations: int


@dataclass(frozen=True)
class InterventionExecution:
    """How it is run: images at once, length of the trajectory, images for pictures, progress."""

    batch_size: int = 20
    sampling_steps: int = 15
    example_count: int = 6
    agreement: Agreement | None = None
    log: Callable[[str], None] = field(default=lambda line: None)


def edited_name(name: str, method: str, trial: int, random: bool) -> str:
    """What an edited picture is called, for its labels: '<image>_<method>[_random]_trial_<trial from 0>'."""
    return f"{name}_{method}{'_random' * random}_trial_{trial}"


def study_intervention(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    labeler: Labeler,
    bank: ProbeBank,
    editings: Sequence[Editing],
    targets: Targets,
    execution: InterventionExecution | None = None,
    seed: int = 0,
) -> InterventionResults:
    """Generates every image as it is, then with each editing and with its control, and scores all against the target.

    The editings differ in method alone. Labels of new images are the labeler's, as those of the old ones. Moves are
    drawn from `seed` and the images' names; a map without foreground stays as it is.

    Raises:
        UserError: editings do not fit the probes or the network, or the targets are impossible.
    """
    execution = execution or InterventionExecution()
    for editing in editings:
        editing.check(bank)
    name = editings[0].property
    execution.log(f"generating {len(prompts)} images as they are")
    originals, covariances = _originals(backbone, prompts, editings[0], execution)
    labels = labeler(originals, [prompt.name for prompt in prompts], [name])[name]
    scores: list[InterventionScore] = []
    pictured: list[InterventionExample] = []
    for trial in range(targets.trials):
        moves, wanted = _wanted(labels, prompts, bank, name, targets, seed + trial)
        scene = _Scene(
            backbone, prompts, labeler, bank, originals, labels, wanted, covariances, targets.kind, trial, execution
        )
        edited: dict[str, tuple[Tensor, Tensor]] = {}
        for editing in editings:
            edited[editing.method], lengths = scene.edited(editing)
            controls = {EDITED: edited[editing.method], RANDOM: scene.moved_at_random(editing, lengths)}
            controls[UNEDITED] = (originals, labels)
            for control, (images, maps) in controls.items():
                scores += scene.scores(editing, control, images, maps)
        if trial == 0:
            pictured = [scene.example(row, moves, edited) for row in range(min(execution.example_count, len(prompts)))]
    summaries, gains = summarise_interventions(scores, seed=seed)
    runs = 1 + 2 * len(editings) * targets.trials
    evaluations = len(prompts) * execution.sampling_steps * runs
    return InterventionResults(scores, summaries, gains, pictured, covariances, evaluations)


def _originals(
    backbone: Backbone, prompts: Sequence[Prompt], editing: Editing, execution: InterventionExecution
) -> tuple[Tensor, Covariances]:
    """The images without intervention, and the covariances of what is to be edited."""
    moments, images = TokenMoments(), []
    for batch in _batches(prompts, execution.batch_size):
        texts, seeds = [prompt.text for prompt in batch], [prompt.seed for prompt in batch]
        trajectory = generate(backbone, texts, seeds, steps=execution.sampling_steps, layers=editing.layers)
        with naming_images([prompt.name for prompt in batch]):
            images.append(final_images(backbone, _with_moments(trajectory, moments, editing.steps)))
    return torch.cat(images), moments.covariances()


def _with_moments(
    trajectory: Iterable[TrajectoryStep], moments: TokenMoments, steps: Sequence[int]
) -> Iterator[TrajectoryStep]:
    """The trajectory, with the activations of some steps added to the moments as it goes by."""
    for step in trajectory:
        if step.index in steps:
            moments.add(step.index, step.activations)
        yield step


def _wanted(
    labels: Tensor, prompts: Sequence[Prompt], bank: ProbeBank, name: str, targets: Targets, seed: int
) -> tuple[list[Move | None], Tensor]:
    """The move of each image, None without one, and the target maps [images, H, W]."""
    if targets.mask is not None:
        return [None] * len(labels), targets.mask.expand_as(labels)
    binary, names = bank.properties[name].binary, [prompt.name for prompt in prompts]
    # What is nearer than most takes the place of the mask that shall stay in the picture
    regions = labels > 0 if binary else labels > labels.flatten(1).median(1).values[:, None, None]
    moves = draw_moves(list(regions.float()), targets.kind, targets.low, targets.high, seed, names)
    return list(moves), torch.stack([move(one, how, mask=binary) for one, how in zip(labels, moves, strict=True)])


@dataclass(frozen=True)
class _Scene:
    """The images of one trial."""

    backbone: Backbone
    prompts: Sequence[Prompt]
    labeler: Labeler
    bank: ProbeBank
    originals: Tensor
    labels: Tensor
    target_maps: Tensor
    covariances: Covariances
    kind: str
    trial: int
    execution: InterventionExecution

    def edited(self, editing: Editing) -> tuple[tuple[Tensor, Tensor], list[Lengths]]:
        """Edited images with their labels, and how far each batch's tokens were moved."""
        self.execution.log(f"generating {len(self.prompts)} images with edits: {editing.method}")
        lengths: list[Lengths] = [{} for _ in self._batches()]
        images = [
            self._intervene(editing, rows, record=moved) for rows, moved in zip(self._batches(), lengths, strict=True)
        ]
        return self._labelled(editing, torch.cat(images), random=False), lengths

    def moved_at_random(self, editing: Editing, lengths: Sequence[Lengths]) -> tuple[Tensor, Tensor]:
        """The control's images with their labels: every token moved by the lengths that `edited` gives."""
        self.execution.log(f"generating {len(self.prompts)} images with edits: {editing.method}, in random directions")
        images = [
            self._intervene(editing, rows, random=moved) for rows, moved in zip(self._batches(), lengths, strict=True)
        ]
        return self._labelled(editing, torch.cat(images), random=True)

    def _batches(self) -> Sequence[Tensor]:
        """The rows of the images, some at a time."""
        return torch.arange(len(self.prompts)).split(self.execution.batch_size)

    def _intervene(
        self, editing: Editing, rows: Tensor, *, record: Lengths | None = None, random: Lengths | None = None
    ) -> Tensor:
        batch = [self.prompts[row] for row in rows.tolist()]
        with naming_images(
            [edited_name(prompt.name, editing.method, self.trial, random is not None) for prompt in batch]
        ):
            return intervene(
                self.backbone,
                [prompt.text for prompt in batch],
                [prompt.seed for prompt in batch],
                self.target_maps[rows],
                self.bank,
                editing,
                covariances=self.covariances,
                record=record,
                random=random,
                sampling_steps=self.execution.sampling_steps,
            )

    def _labelled(self, editing: Editing, images: Tensor, *, random: bool) -> tuple[Tensor, Tensor]:
        names = [edited_name(prompt.name, editing.method, self.trial, random) for prompt in self.prompts]
        return images, self.labeler(images, names, [editing.property])[editing.property]

    def scores(self, editing: Editing, control: str, images: Tensor, maps: Tensor) -> Iterator[InterventionScore]:
        item = self.bank.properties[editing.property]
        difference = (images - self.originals).abs().mean(1)
        values = {item.headline: METRICS[item.headline](maps, self.target_maps), "pixels": difference.mean((1, 2))}
        if item.binary:
            outside = ((self.labels == 0) & (self.target_maps == 0)).float()
            values["dice_source"] = dice(maps, self.labels)
            values["pixels_outside"] = (difference * outside).sum((1, 2)) / outside.sum((1, 2))
        if self.execution.agreement is not None:
            values["prompt"] = self.execution.agreement(images, [prompt.text for prompt in self.prompts])
        for metric, numbers in values.items():
            for prompt, value in zip(self.prompts, numbers.tolist(), strict=True):
                cell = None if isnan(value) else value
                keys = (self.backbone.name, item.name, self.kind, editing.method, control, prompt.name)
                yield InterventionScore(*keys, self.trial, metric, cell)

    def example(
        self, row: int, moves: Sequence[Move | None], edited: dict[str, tuple[Tensor, Tensor]]
    ) -> InterventionExample:
        return InterventionExample(
            prompt=self.prompts[row],
            original=self.originals[row],
            label=self.labels[row],
            target=self.target_maps[row],
            move=moves[row],
            edited={method: images[row] for method, (images, _) in edited.items()},
            edited_labels={method: maps[row] for method, (_, maps) in edited.items()},
        )


def _batches(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def animate(
    backbone: Backbone,
    example: InterventionExample,
    bank: ProbeBank,
    editing: Editing,
    covariances: Covariances,
    *,
    frames: int,
    mask: bool,
    sampling_steps: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """One image as its map moves step by step: images [frames, 3, H, W], and the maps that they are made for.

    Args:
        example: one whose map moves. mask: whether it is a mask.
    """
    assert example.move is not None
    parts = [example.move.share(frame / (frames - 1)) for frame in range(frames)]
    targets = torch.stack([move(example.label, part, mask=mask) for part in parts])
    images = []
    for some in targets.split(batch_size):
        with naming_images([f"{example.prompt.name} in the animation"] * len(some)):
            images.append(
                intervene(
                    backbone,
                    [example.prompt.text] * len(some),
                    [example.prompt.seed] * len(some),
                    some,
                    bank,
                    editing,
                    covariances=covariances,
                    sampling_steps=sampling_steps,
                )
            )
    return torch.cat(images), targets
