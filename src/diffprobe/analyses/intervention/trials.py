"""Interventions: does the image follow when a probe is made to report another map?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffprobe.analyses.intervention.edits import (
    Covariances,
    Editing,
    Lengths,
    TokenMoments,
    final_images,
    replacements,
)
from diffprobe.analyses.intervention.target_maps import Move, draw_moves, move
from diffprobe.backbone.finite import naming_images
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep, generate
from diffprobe.data.prompts import Prompt
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.study.study import Labeler
from diffprobe.properties.binary import dice
from diffprobe.properties.continuous import spearman
from diffprobe.properties.metrics import metric_named
from diffprobe.statistics.differences import holm, paired_differences
from diffprobe.statistics.intervals import mean_intervals

UNEDITED, RANDOM, EDITED = "unedited", "random", "none"
KEYS = ["model", "property", "target", "method", "control", "metric"]
GAIN_COLUMNS = [*KEYS, "difference", "low", "high", "n", "p"]

Agreement = Callable[[Tensor, Sequence[str]], Tensor]
"""From images [images, 3, H, W] and their prompts to how much of the prompt is seen, in [0, 1], NaN where unknown."""
Labelled = tuple[Tensor, Tensor]
"""Images [images, 3, H, W] and their label maps [images, H, W], or one of each."""


@dataclass(frozen=True)
class Targets:
    """What the maps shall become: a move of `low` to `high` of a kind of `draw_moves`, or of kind 'file' the `mask`.

    Each image has `trials` moves.
    """

    kind: str = "translation"
    low: float = 11
    high: float = 15
    trials: int = 1
    mask: Tensor | None = None


@dataclass(frozen=True)
class InterventionExample:
    """One image for the pictures, as it is and edited by each method; `move` is None where the target is a mask."""

    prompt: Prompt
    original: Labelled
    target: Tensor
    move: Move | None
    edited: dict[str, Labelled]


@dataclass(frozen=True)
class InterventionResults:
    """
    Attributes:
        scores: one metric of one image of one trial a row, with the columns `KEYS`, image, trial and value. `control`
            is 'none' for the edit itself, 'unedited' for the image without intervention, 'random' for changes of equal
            length in random directions; `value` is missing where the metric is undefined.
        summaries, gains: see `summarise_interventions`.
        covariances: what 'pattern' edits with.
        evaluations: of the denoiser.
        animation: of `animate`, where one was asked for.
    """

    scores: pd.DataFrame
    summaries: pd.DataFrame
    gains: pd.DataFrame
    examples: list[InterventionExample]
    covariances: Covariances
    evaluations: int
    animation: tuple[Tensor, Tensor] | None = None


def edited_name(name: str, method: str, trial: int, random: bool) -> str:
    """What an edited picture is called, for its labels: '<image>_<method>[_random]_trial_<trial from 0>'."""
    return f"{name}_{method}{'_random' * random}_trial_{trial}"


@dataclass(frozen=True)
class InterventionStudy:
    """Generates every image as it is, then with each editing and with its control, and scores all against the target.

    Attributes:
        labeler: of the images as they are and of the edited ones.
        editings: differ in method alone; the bank has their probes.
        batch_size: images at once.
        sampling_steps: length of the trajectory.
        example_count: images for pictures.
        agreement: how much of its prompt an image shows, if that is to be scored.
        log: takes lines on the progress.
    """

    backbone: Backbone
    prompts: Sequence[Prompt]
    labeler: Labeler
    bank: ProbeBank
    editings: Sequence[Editing]
    targets: Targets
    batch_size: int = 20
    sampling_steps: int = 15
    example_count: int = 6
    agreement: Agreement | None = None
    log: Callable[[str], None] = field(default=lambda line: None)

    @property
    def name(self) -> str:
        """Of the property that the edits are about."""
        return self.editings[0].property

    def run(self, seed: int = 0) -> InterventionResults:
        """Moves are drawn from `seed` and the images' names; a map without foreground stays as it is.

        Raises:
            UserError: editings do not fit the probes or the network, or make an image infinite.
        """
        self.log(f"generating {len(self.prompts)} images as they are")
        images, covariances = self._originals()
        originals = images, self.labeler(images, [prompt.name for prompt in self.prompts], [self.name])[self.name]
        scores, examples = [], []
        for trial in range(self.targets.trials):
            moves, maps = self._targets(originals[1], seed + trial)
            by_method: dict[str, Labelled] = {}
            for editing in self.editings:
                moved: list[Lengths] = [{} for _ in self._batches()]
                edited = self._edited(editing, maps, trial, covariances, moved, random=False)
                by_random = self._edited(editing, maps, trial, covariances, moved, random=True)
                by_method[editing.method] = edited
                for control, labelled in ((EDITED, edited), (RANDOM, by_random), (UNEDITED, originals)):
                    keys = {"method": editing.method, "control": control, "trial": trial}
                    scores.append(self._scores(labelled, originals, maps).assign(**keys))
            if trial == 0:
                for row, prompt in enumerate(self.prompts[: self.example_count]):
                    pairs = {method: (pictures[row], own[row]) for method, (pictures, own) in by_method.items()}
                    original = originals[0][row], originals[1][row]
                    examples.append(InterventionExample(prompt, original, maps[row], moves[row], pairs))
        table = pd.concat(scores, ignore_index=True)
        table = table.assign(model=self.backbone.name, property=self.name, target=self.targets.kind)
        table = table[[*KEYS[:-1], "image", "trial", "metric", "value"]]
        runs = 1 + 2 * len(self.editings) * self.targets.trials
        evaluations = len(self.prompts) * self.sampling_steps * runs
        return InterventionResults(
            table, *summarise_interventions(table, seed=seed), examples, covariances, evaluations
        )

    def _batches(self) -> Sequence[Tensor]:
        """The rows of the images, some at a time."""
        return torch.arange(len(self.prompts)).split(self.batch_size)

    def _originals(self) -> tuple[Tensor, Covariances]:
        """The images without intervention, and the covariances of what is to be edited."""
        moments, images, editing = TokenMoments(), [], self.editings[0]

        def observed(trajectory: Iterable[TrajectoryStep]) -> Iterator[TrajectoryStep]:
            for step in trajectory:
                if step.index in editing.steps:
                    moments.add(step.index, step.activations)
                yield step

        for rows in self._batches():
            batch = [self.prompts[row] for row in rows.tolist()]
            texts, seeds = [prompt.text for prompt in batch], [prompt.seed for prompt in batch]
            trajectory = generate(self.backbone, texts, seeds, steps=self.sampling_steps, layers=editing.layers)
            with naming_images([prompt.name for prompt in batch]):
                images.append(final_images(self.backbone, observed(trajectory)))
        return torch.cat(images), moments.covariances()

    def _targets(self, labels: Tensor, seed: int) -> tuple[Sequence[Move | None], Tensor]:
        """The move of each image, None without one, and the target maps [images, H, W]."""
        targets = self.targets
        if targets.mask is not None:
            return [None] * len(labels), targets.mask.expand_as(labels)
        binary = self.bank.properties[self.name].binary
        # What is nearer than most takes the place of the mask that shall stay in the picture
        regions = labels > 0 if binary else labels > labels.flatten(1).median(1).values[:, None, None]
        names = [prompt.name for prompt in self.prompts]
        moves = draw_moves(list(regions.float()), targets.kind, targets.low, targets.high, seed, names)
        return moves, torch.stack([move(one, how, mask=binary) for one, how in zip(labels, moves, strict=True)])

    def _edited(
        self,
        editing: Editing,
        maps: Tensor,
        trial: int,
        covariances: Covariances,
        moved: Sequence[Lengths],
        *,
        random: bool,
    ) -> Labelled:
        """Edited images; `moved`, one a batch, is filled with how far tokens are moved, and read by the control."""
        where = ", in random directions" if random else ""
        self.log(f"generating {len(self.prompts)} images with edits: {editing.method}{where}")
        names = [edited_name(prompt.name, editing.method, trial, random) for prompt in self.prompts]
        images = []
        for rows, lengths in zip(self._batches(), moved, strict=True):
            prompts = [self.prompts[row] for row in rows.tolist()]
            record, control = (None, lengths) if random else (lengths, None)
            with naming_images([names[row] for row in rows.tolist()]):
                images.append(self._intervene(prompts, maps[rows], editing, covariances, record, control))
        whole = torch.cat(images)
        return whole, self.labeler(whole, names, [self.name])[self.name]

    def _intervene(
        self,
        prompts: Sequence[Prompt],
        maps: Tensor,
        editing: Editing,
        covariances: Covariances,
        record: Lengths | None = None,
        random: Lengths | None = None,
    ) -> Tensor:
        texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
        edits = replacements(
            self.backbone, seeds, maps, self.bank, editing, covariances=covariances, record=record, random=random
        )
        trajectory = generate(self.backbone, texts, seeds, steps=self.sampling_steps, replace=edits)
        return final_images(self.backbone, trajectory)

    def _scores(self, labelled: Labelled, originals: Labelled, targets: Tensor) -> pd.DataFrame:
        """The columns image, metric and value of these images."""
        images, maps = labelled
        item = self.bank.properties[self.name]
        difference = (images - originals[0]).abs().mean(1)
        agree = dice if item.binary else spearman
        values = {item.headline: agree(maps, targets), "pixels": difference.mean((1, 2))}
        if item.binary:
            outside = ((originals[1] == 0) & (targets == 0)).float()
            values["dice_source"] = dice(maps, originals[1])
            values["pixels_outside"] = (difference * outside).sum((1, 2)) / outside.sum((1, 2))
        if self.agreement is not None:
            values["prompt"] = self.agreement(images, [prompt.text for prompt in self.prompts])
        names = [prompt.name for prompt in self.prompts]
        columns = [
            pd.DataFrame({"image": names, "metric": metric, "value": numbers.double().numpy()})
            for metric, numbers in values.items()
        ]
        return pd.concat(columns, ignore_index=True)

    def animate(self, example: InterventionExample, covariances: Covariances, frames: int) -> tuple[Tensor, Tensor]:
        """One image as its map moves step by step, by the first editing: images [frames, 3, H, W], and the maps that
        they are made for."""
        assert example.move is not None
        parts = [example.move.share(frame / (frames - 1)) for frame in range(frames)]
        binary = self.bank.properties[self.name].binary
        targets = torch.stack([move(example.original[1], part, mask=binary) for part in parts])
        images = []
        for some in targets.split(self.batch_size):
            with naming_images([f"{example.prompt.name} in the animation"] * len(some)):
                images.append(self._intervene([example.prompt] * len(some), some, self.editings[0], covariances))
        return torch.cat(images), targets


def summarise_interventions(scores: pd.DataFrame, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means of every method, control and metric, and the gains of each method over its controls.

    An image counts once, with the mean of its trials.

    Returns:
        The columns `KEYS`, mean, low, high and n: the mean over `n` images with its 95 % interval.
        The columns `GAIN_COLUMNS` and p_holm: by how much the edit's metric is above a control's on the same images,
        with its 95 % interval and p (`statistics.paired_differences`, with `seed` for its random flips). `p_holm` is
        adjusted for all methods and controls by the same metric.
    """
    means = scores.groupby([*KEYS, "image"], sort=False)["value"].mean().unstack("image", sort=False)
    intervals = mean_intervals(means.to_numpy())
    summaries = means.index.to_frame(index=False)
    metrics = [metric_named(metric) for metric in summaries["metric"]]
    least, most = np.array([(metric.low, metric.high) for metric in metrics]).T
    low, high = np.maximum(intervals.low, least), np.minimum(intervals.high, most)
    summaries = summaries.assign(mean=intervals.mean, low=low, high=high, n=intervals.n)
    by_key = dict(zip(means.index, means.to_numpy(), strict=True))
    gains = []
    for (*before, control, metric), edited in by_key.items():
        for other in (UNEDITED, RANDOM) if control == EDITED else ():
            both = edited - by_key.get((*before, other, metric), np.nan)
            both = both[~np.isnan(both)]
            if len(both):
                paired = paired_differences(both[None], seed=seed)
                values = (paired.difference[0], paired.low[0], paired.high[0], len(both), paired.p[0])
                gains.append((*before, other, metric, *values))
    table = pd.DataFrame(gains, columns=GAIN_COLUMNS)
    by_metric = table.groupby(["model", "property", "target", "metric"], sort=False)["p"]
    return summaries, table.assign(p_holm=by_metric.transform(lambda p: holm(p.tolist())))
