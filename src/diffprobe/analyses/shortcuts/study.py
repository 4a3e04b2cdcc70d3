"""Whole runs of images, and from their steps on every shortcut: what the pictures that come of it have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffprobe.analyses.shortcuts.agreement import Agreement, Seen, Values, unrelated
from diffprobe.analyses.shortcuts.ways import (
    DEEP,
    begins,
    evaluations,
    finish,
    other_prompts,
    work,
    work_of,
)
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import in_parts, naming_images
from diffprobe.backbone.less_work import DeepFeatures
from diffprobe.backbone.trajectory import SamplingState, sample_steps

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers import Classifier
    from diffprobe.probes.study.study import Labeler

UNRELATED = "unrelated"  # in the column `shortcut`: pictures of other prompts and seeds
AGREEMENT_COLUMNS = ["shortcut", "full_steps", "property", "metric", "image", "value"]
Place = tuple[str, int]
"""A shortcut, and after how many full steps it is begun."""


@dataclass(frozen=True)
class ShortcutExample:
    """One image's pictures [3, H, W]: of the whole run, and of each shortcut by where it is begun."""

    title: str
    whole: Tensor
    pictures: dict[Place, Tensor]


@dataclass(frozen=True)
class ShortcutResults:
    """
    Attributes:
        agreement: of each image, the columns `AGREEMENT_COLUMNS`. `full_steps` is missing for unrelated pictures.
        costs: by shortcut and full steps, of one image: `evaluations` of the denoiser, and `work` in evaluations of the
            whole run, by operations.
        seconds: the same with `seconds`, measured: the time of the denoising of one image, as a share of the whole
            run's of the same batch; the median over batches.
        evaluations: of the denoiser.
    """

    agreement: pd.DataFrame
    costs: pd.DataFrame
    seconds: pd.DataFrame
    examples: list[ShortcutExample]
    evaluations: int


def shortcut_name(name: str, way: str, taken: int) -> str:
    """What a picture is called, for its labels: '<image>_<shortcut>_after_<full steps>'."""
    return f"{name}_{way}_after_{taken}"


@dataclass(frozen=True)
class _Batch:
    """Last latents of a batch of whole runs and of the shortcuts, and the seconds that each took."""

    whole: Tensor
    latents: Mapping[Place, Tensor]
    seconds: Mapping[Place, float]
    whole_seconds: float


@dataclass(frozen=True)
class ShortcutStudy:
    """Every image is made once as it is; after each of `full_steps` each shortcut goes on from there.

    Attributes:
        ways: names of the shortcuts.
        full_steps: after how many full steps they are begun; all of the steps is the whole run.
        labeler: of the whole run's pictures and of the others.
        agree: what is compared, and how.
        batch_size: images at once.
        example_count: images for pictures.
        advance: takes how many images are done.
    """

    backbone: Backbone
    prompts: Sequence[Prompt]
    ways: Sequence[str]
    full_steps: Sequence[int]
    labeler: Labeler
    agree: Agreement
    classifier: Classifier | None = None
    sampling_steps: int = 15
    batch_size: int = 8
    example_count: int = 0
    advance: Callable[[int], None] = field(default=lambda done: None)

    def run(self) -> ShortcutResults:
        """Raises NotFinite if a shortcut makes a picture infinite."""
        others = other_prompts([prompt.text for prompt in self.prompts])
        wholes: list[Seen] = []
        parts: dict[Place, list[Values]] = {place: [] for place in self._places}
        clocks: dict[Place, list[float]] = {place: [] for place in self._places}
        examples: list[ShortcutExample] = []
        for start in range(0, len(self.prompts), self.batch_size):
            batch = self.prompts[start : start + self.batch_size]
            found = self._denoised(batch, others[start : start + self.batch_size])
            whole = self._seen(found.whole, [prompt.name for prompt in batch])
            shown, pictures = batch[: max(0, self.example_count - start)], {}
            for way, taken in self._places:
                names = [shortcut_name(prompt.name, way, taken) for prompt in batch]
                is_whole = taken == self.sampling_steps
                seen = whole if is_whole else self._seen(found.latents[way, taken], names)
                parts[way, taken].append(self.agree(whole, seen))
                clocks[way, taken].append(found.seconds[way, taken] / found.whole_seconds)
                pictures[way, taken] = seen.pictures[: len(shown)]
            for row, prompt in enumerate(shown):
                own = {place: several[row] for place, several in pictures.items()}
                examples.append(ShortcutExample(prompt.text, whole.pictures[row], own))
            wholes.append(whole)
            self.advance(start + len(batch))
        return self._results(Seen.joined(wholes), parts, clocks, examples)

    def _results(
        self,
        whole: Seen,
        parts: Mapping[Place, Sequence[Values]],
        clocks: Mapping[Place, Sequence[float]],
        examples: list[ShortcutExample],
    ) -> ShortcutResults:
        steps, shares = self.sampling_steps, work_of(self.backbone, self.ways)
        rows = [self._rows(way, taken, _joined(several)) for (way, taken), several in parts.items()]
        texts, seeds = [prompt.text for prompt in self.prompts], [prompt.seed for prompt in self.prompts]
        rows.append(self._rows(UNRELATED, None, unrelated(self.agree, whole, texts, seeds)))
        rests = [evaluations(*place, steps) for place in parts]
        cost = [
            (way, taken, taken + rest, work(way, taken, steps, shares))
            for (way, taken), rest in zip(parts, rests, strict=True)
        ]
        seconds = [(*place, float(np.median(ratios))) for place, ratios in clocks.items()]
        keys = ["shortcut", "full_steps"]
        return ShortcutResults(
            pd.concat(rows, ignore_index=True),
            pd.DataFrame(cost, columns=[*keys, "evaluations", "work"]),
            pd.DataFrame(seconds, columns=[*keys, "seconds"]),
            examples,
            (steps + sum(rests)) * len(self.prompts),
        )

    @property
    def _places(self) -> list[Place]:
        """All shortcuts, each at all the steps after which it is begun."""
        return [(way, taken) for way in self.ways for taken in begins(way, self.full_steps)]

    def _denoised(self, batch: Sequence[Prompt], others: Sequence[str]) -> _Batch:
        """All trajectories of a batch. Steps are timed where their numbers have been read, so the device is done."""
        texts, seeds, steps = [prompt.text for prompt in batch], [prompt.seed for prompt in batch], self.sampling_steps
        deep = DeepFeatures(self.backbone.denoiser) if DEEP in self.ways else None
        latents: dict[Place, Tensor] = {}
        seconds: dict[Place, float] = {}

        def branch(state: SamplingState, way: str, taken: int) -> None:
            names = [shortcut_name(prompt.name, way, taken) for prompt in batch]
            started = time.perf_counter()
            with naming_images(names):
                latents[way, taken] = finish(self.backbone, way, state, taken, texts, others, deep)
            seconds[way, taken] = spent + time.perf_counter() - started

        spent = 0.0
        for way, taken in self._places:
            if not taken:
                branch(SamplingState.at_start(self.backbone, seeds, steps), way, 0)
        state = SamplingState.at_start(self.backbone, seeds, steps)
        trajectory = sample_steps(
            self.backbone,
            state.scheduler,
            state.latents,
            texts,
            (),
            range(steps),
            state.generators,
            guided=self.backbone.guided,
            within=nullcontext if deep is None else deep.keeping,
        )
        while True:
            started = time.perf_counter()
            with naming_images([prompt.name for prompt in batch]):
                step = next(trajectory, None)
            if step is None:
                break
            spent += time.perf_counter() - started
            whole = step.latents
            for way, taken in self._places:
                if taken == step.index + 1:
                    branch(state.after(step), way, taken)
        return _Batch(whole, latents, seconds, spent)

    @torch.no_grad()
    def _seen(self, latents: Tensor, names: Sequence[str]) -> Seen:
        """Pictures of last latents, decoded one by one, with their maps and classes."""
        with naming_images(names):
            pictures = torch.cat(in_parts(lambda one: decode_latents(self.backbone, one).cpu(), latents))
        maps = self.labeler(pictures, names, list(self.agree.items))
        classes = None if self.classifier is None else self.classifier(pictures).argmax(1)
        return Seen(pictures, maps, classes)

    def _rows(self, way: str, taken: int | None, values: Values) -> pd.DataFrame:
        names = [prompt.name for prompt in self.prompts]
        tables = [
            pd.DataFrame({"property": name, "metric": metric, "image": names, "value": numbers.numpy()})
            for (name, metric), numbers in values.items()
        ]
        whole = pd.concat(tables, ignore_index=True)
        return whole.assign(shortcut=way, full_steps=pd.array([taken] * len(whole), "Int64"))[AGREEMENT_COLUMNS]


def _joined(several: Sequence[Values]) -> Values:
    """The values of batches one after the other."""
    return {key: torch.cat([values[key] for values in several]) for key in several[0]}
