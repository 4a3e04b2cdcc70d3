"""What an analysis found, as data. `publish` writes it to the run folder, prints it, draws the page and logs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import numpy as np
from pandas import DataFrame, Series

from diffprobe.files import NO_STEP, Step
from diffprobe.ranges import Count, Items, Keys, Number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of `diffprobe.properties.metrics`, as plain text, for checks of settings, which import nothing
PUBLISHED = (
    *("dice", "dice_background", "spearman", "pearson", "rmse", "ssi_error", "abs_rel", "delta1"),
    *("mean_iou", "accuracy", "mean_angle", "median_angle", "within_11.25", "within_22.5", "within_30", "step"),
)
UNHEADED = 4  # so many groups of findings need no headings
STEP = "denoising_step"  # what curves of the tracker go over
WIDEST = 8  # columns of cells in a paper's table
Numbers = dict[str, float]
PaperCell = tuple[str, Mapping[str, float | str | None]]
Place = Literal["csv", "parquet", "markup", "console", "page", "tracker"]
_TYPES: dict[Any, str] = {
    str: "str",
    int: "int64",
    int | None: "Int64",
    Step: "Int64",
    float: "float64",
    float | None: "float64",
}


@dataclass(frozen=True)
class ReportConfig:
    """What a report shows beside the scores.

    Attributes:
        examples: images that are drawn.
        learning_curve: numbers of training images, for the best layers' probes; none draws no curve.
        published: property -> metric, or 'step' -> number of a paper, to print beside the run's.
    """

    examples: Annotated[int, Number(0, 1000)] = 3
    learning_curve: Annotated[list[Count], Items()] = field(default_factory=list)
    published: Annotated[dict[str, Annotated[Numbers, Keys(*PUBLISHED, noun="score")]], Items()] = field(
        default_factory=dict
    )


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of results, and where they are shown.

    Attributes:
        data: at full precision; what is missing is None, NaN or NA. Steps count from 0.
        title: what the rows are; the page takes the table's name where it is empty.
        show: 'csv', a file; 'parquet', scores.parquet, of a table of scores; 'markup', Markdown and LaTeX beside the
            CSV file; 'console', which report.txt repeats; 'page'; 'tracker'.
        text: the cells as they are read on the console, in Markdown and in LaTeX; made from `data` by default.
        notes: sentences below the table.
        columns: column -> what it is, where `tables.DESCRIPTIONS` does not say it.
        steps: the columns that hold steps. People see them counted from 1.
    """

    data: DataFrame
    title: str = ""
    show: Collection[Place] = ("csv", "page", "tracker")
    text: DataFrame | None = None
    notes: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    steps: Collection[str] = ("step",)

    @staticmethod
    def of(kind: type, rows: Sequence[Any], **options: Any) -> Table:
        """A table of the rows of a data class; `options` as of the constructor."""
        hints = get_type_hints(kind, include_extras=True)
        steps = [item.name for item in fields(kind) if hints[item.name] == Step]
        return Table(frame_of(kind, rows), steps=steps, **options)

    @staticmethod
    def of_cells(rows: Sequence[tuple[Mapping[str, str], Mapping[str, PaperCell]]], **options: Any) -> Table:
        """A table as papers print it: what each row is of, and cells that are text to read beside their numbers.

        The text of a table that is too wide to be read is transposed.

        Args:
            rows: (heading -> what the row is of, heading -> (text, name -> number)); all have the same headings. The
                column of a number is '<heading> <name>', with no name for the only number of a cell.
        """
        data = [
            {**keys}
            | {f"{head} {name}".strip(): number for head, (_, cell) in cells.items() for name, number in cell.items()}
            for keys, cells in rows
        ]
        lines = [[*rows[0][0], *rows[0][1]]]
        lines += [[*keys.values(), *(text for text, _ in cells.values())] for keys, cells in rows]
        if len(rows[0][1]) > WIDEST:
            lines = [list(line) for line in zip(*lines, strict=True)]
        return Table(DataFrame(data), text=DataFrame(lines[1:], columns=lines[0]), **options)


def frame_of(kind: type, rows: Sequence[Any]) -> DataFrame:
    """The rows of a data class as columns of its fields; NO_STEP is missing."""
    hints = get_type_hints(kind, include_extras=True)
    data: dict[str, Series] = {}
    for item in fields(kind):
        values = [getattr(row, item.name) for row in rows]
        if hints[item.name] == Step:
            values = [None if value == NO_STEP else value for value in values]
        data[item.name] = Series(values, dtype=_TYPES[hints[item.name]])
    return DataFrame(data)


def scalars_over_steps(points: Iterable[tuple[int, str, float | None, float | None, float | None]]) -> DataFrame:
    """Points (step, key, mean, low, high) as curves: 'denoising_step' (from 1), '<key>', '<key>_low', '<key>_high'.

    One row for each step, in order; what has no value is NaN, and so is NO_STEP.
    """
    rows: dict[int, dict[str, float]] = {}
    for step, key, *values in points:
        row = rows.setdefault(step, {STEP: math.nan if step == NO_STEP else step + 1})
        named = zip((key, f"{key}_low", f"{key}_high"), values, strict=True)
        row |= {name: value for name, value in named if value is not None and math.isfinite(value)}
    return DataFrame([rows[step] for step in sorted(rows)], columns=None if rows else [STEP])


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure, drawn when it is wanted, and a sentence on what it shows."""

    draw: Callable[[], Figure]
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Animation:
    """Frames [frames, H, W, 3] in [0, 255] that go forth and back."""

    frames: np.ndarray
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Frames:
    """Pictures [steps, H, W, 3] in [0, 1], or maps [steps, H, W]; of one step where it stays the same.

    Attributes:
        colours: a colour map of matplotlib, for maps, from `low` to `high`.
    """

    values: np.ndarray
    colours: str = "gray"
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, eq=False)
class Overlay:
    """Regions to lay over a picture: predicted [steps, h, w] and labelled [h, w], both above 0.5 inside."""

    predicted: np.ndarray
    labelled: np.ndarray


@dataclass(frozen=True, eq=False)
class Example:
    """One image over its steps (from 0).

    Attributes:
        frames: what is shown of it, by name. The first is the image itself.
        overlays: property -> regions over the image.
    """

    title: str
    steps: Sequence[int]
    frames: Mapping[str, Frames]
    overlays: Mapping[str, Overlay] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A score with its interval and number of images, and sentences that belong to it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Scores of layers (rows, in the order given) and steps (columns); a cell opens what belongs to it.

    Attributes:
        title: what is mapped.
        metric: what the numbers are, by its name: 'dice'; or another text.
        cells: (layer, step) -> its score; steps count from 0, NO_STEP is that of all steps.
        frames: layer -> what its probe shows of an image, over the steps of the map.
        beside: what to compare it with, by name; over the steps, or one picture.
        caption: what the opened pictures are of.
    """

    title: str
    metric: str
    cells: Mapping[tuple[str, int], Cell]
    frames: Mapping[str, Frames] = field(default_factory=dict)
    beside: Mapping[str, Frames] = field(default_factory=dict)
    caption: str = ""

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(layer for layer, _ in self.cells))

    @property
    def steps(self) -> list[int]:
        return sorted({step for _, step in self.cells})


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Heat maps of one score in several runs, in one scale of colours; a cell is marked in all of them.

    Attributes:
        title: what is mapped.
        maps: one a run, with its name as title; all of one metric.
        notes: (layer, step) -> sentences that belong to all runs there.
        caption: what belongs to all cells.
    """

    title: str
    maps: Sequence[HeatMap]
    notes: Mapping[tuple[str, int], Sequence[str]] = field(default_factory=dict)
    caption: str = ""


@dataclass(frozen=True)
class Headed:
    """Findings under a heading."""

    heading: str
    lines: Sequence[str]


def with_headings(findings: Mapping[str, Sequence[str]], of_all: Sequence[str] = ()) -> list[str | Headed]:
    """Sentences by heading, and at the end those on all of them; the headings are left out where there are few."""
    if len(findings) <= UNHEADED:
        return [*(line for lines in findings.values() for line in lines), *of_all]
    headed: list[str | Headed] = [Headed(heading, lines) for heading, lines in findings.items()]
    return [*headed, Headed("all of them", of_all)] if of_all else headed


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that an analysis found.

    Attributes:
        title: the heading of the page.
        findings: sentences, with their intervals, some under a heading; what the intervals do not support is not
            claimed.
        topics: the groups of the configuration that the analysis reads, such as 'model' and 'layers'.
        questions: what was asked beside the configuration, as (what, answer).
        tables: by the name of the file, without its ending: 'summary', 'tables/means'.
        figures: by the name of the files, without their ending.
        heatmaps, side_by_side, examples: what the page shows of layers and steps, of those of several runs, and of
            single images.
        scalars: curves for the tracker, as of `scalars_over_steps`.
        artifacts: name -> what saves it into a folder of that name and returns the files: probe banks, prototypes.
        evaluations: how often the network was evaluated.
    """

    title: str
    findings: Sequence[str | Headed] = ()
    topics: Sequence[str] = ()
    questions: Sequence[tuple[str, str]] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Plot | Animation] = field(default_factory=dict)
    heatmaps: Sequence[HeatMap] = ()
    side_by_side: Sequence[SideBySide] = ()
    examples: Sequence[Example] = ()
    scalars: DataFrame | None = None
    artifacts: Mapping[str, Callable[[Path], Sequence[Path]]] = field(default_factory=dict)
    evaluations: int = 0
