"""What report.html shows, as plain data that any door can fill.

What figures show, in a sentence, by the beginning of their names.

What was asked, in plain words, from the composed configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffprobe.tables import Step


@dataclass(frozen=True)
class Film:
    """Pictures over steps, or one picture that stays the same.

    Attributes:
        frames: [steps or 1, H, W, 3] in [0, 1], or maps [steps or 1, H, W].
        colours: a colour map of matplotlib, for maps.
        low, high: the values of the ends of the colour map.
    """

    frames: np.ndarray
    colours: str = "gray"
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Example:
    """One image as it is denoised, under a slider: `films` by what they show, each of one frame a step or of one."""

    title: str
    steps: Sequence[Step]
    films: Mapping[str, Film]


@dataclass(frozen=True)
class Cell:
    """A score with its interval and number of images, and sentences that belong to it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class HeatMap:
    """Scores of layers (rows, in the order given) and steps (columns); a cell opens what belongs to it.

    Attributes:
        title: what is mapped.
        score: what the numbers are, 'Dice'.
        cells: (layer, step) -> its score; steps count from 0.
        films: layer -> what its probe shows of an image, one frame for each step of the map, in order.
        beside: what to compare it with, by name; of one frame a step, or of one.
        caption: what the opened pictures are of.
    """

    title: str
    score: str
    cells: Mapping[tuple[str, Step], Cell]
    films: Mapping[str, Film] = field(default_factory=dict)
    beside: Mapping[str, Film] = field(default_factory=dict)
    caption: str = ""

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(layer for layer, _ in self.cells))

    @property
    def steps(self) -> list[Step]:
        return sorted({step for _, step in self.cells})


@dataclass(frozen=True)
class Page:
    """
    Attributes:
        title: the heading.
        asked: what was asked, as (what, answer), in plain words; see `asked`.
        verdict: sentences, with their intervals.
        tables: name -> rows of a data class; what is shown is the fields with values.
        figures: name -> (PNG file, caption).
        examples: images under step sliders.
        heat_maps: maps of layers and steps.
        reproduce: (what, answer) such as the command; see `reproduce`.
    """

    title: str
    asked: Sequence[tuple[str, str]] = ()
    verdict: Sequence[str] = ()
    tables: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    figures: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    heat_maps: Sequence[HeatMap] = ()
    reproduce: Sequence[tuple[str, str]] = ()


CAPTIONS = {
    "scores_over_steps": "Scores on test images over denoising steps with 95 % intervals, of the best layer (chosen on "
    "validation images), the papers' layer and the controls. The vertical line is where the best layer has come near "
    "its last score.",
    "layers_": "Scores on test images of every layer and step.",
    "learning_curves": "Scores on test images over the number of images that probes were trained on.",
    "example_": "One test image as it is denoised, and what the best layer's probes see in its activations.",
    "separation": "How far apart the classes are at every layer and step.",
    "distributions": "The distances of the four sets of pairs of objects.",
    "drift": "How far objects move when their image changes, beside other pairs of objects.",
    "video": "How far objects of a video move from frame to frame, beside other instances.",
    "retrieval": "Objects and those that are nearest to them.",
    "emergence": "Scores over denoising steps of probes and of image models that look at the unfinished picture, with "
    "95 % intervals; vertical lines where each has come near its last score.",
    "intervention_scores": "How well the map of the new image agrees with the target, with 95 % intervals: edited, "
    "edited at random, and not edited.",
    "intervention_examples": "Images, their maps, the maps asked for, and what came of it.",
    "class_over_steps": "How many images the classifier names right after each step, and how sure it is.",
    "class_example": "One image after some of the steps, and the classifier's first five answers; the right one in "
    "colour.",
    "runs_scores": "Scores of several runs with 95 % intervals, each at its chosen layer and last step.",
    "runs_over_steps": "Scores of several runs over denoising steps with 95 % intervals.",
}


def captioned(figures: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Figures with what is known to be in them; one that is not known has its name, in words."""
    return {name: (path, caption_of(name)) for name, path in figures.items()}


def caption_of(name: str) -> str:
    found = next((text for start, text in CAPTIONS.items() if name.startswith(start)), "")
    return found or name.replace("_", " ")
