"""What report.html shows, as plain data that any door can fill."""

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
