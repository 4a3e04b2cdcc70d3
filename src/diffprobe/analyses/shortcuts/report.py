"""What is reported of shortcuts: how good they are for how much work, and which pictures come of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.analyses.shortcuts.findings import beside, shortcut_label, shortcut_lines, shortcut_tables
from diffprobe.analyses.shortcuts.fixed import ANY, AgreementSummary, FixedStep, fixed_steps, summarise_agreement
from diffprobe.analyses.shortcuts.study import UNRELATED, ShortcutExample, ShortcutResults
from diffprobe.analyses.shortcuts.ways import DEEP, EMPTY, GUIDANCE_OFF, HALF, OTHER, THIRD
from diffprobe.probes.bank import save_bank
from diffprobe.probes.summaries import summarise
from diffprobe.properties.metrics import metric_named
from diffprobe.report.choices import choose, metric_name, or_nan
from diffprobe.report.report import Example, Frames, Plot, Report, Table, scalars_over_steps, with_headings
from diffprobe.report.style import (
    BLACK,
    BLUE,
    DOUBLE_COLUMN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    CurveStyle,
    curve_panels,
    draw_curve,
    draw_level,
    label_scores,
    shared_legend,
    style,
)

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.probes.bank import ProbeBank

STYLES = {
    GUIDANCE_OFF: CurveStyle(BLUE, "-", "o", band=0.1),
    HALF: CurveStyle(GREEN, "-.", "s", band=0.1),
    THIRD: CurveStyle(SKY, (0, (4, 1, 1, 1)), "^", band=0.1),
    DEEP: CurveStyle(VERMILION, "--", "D", band=0.1),
    EMPTY: CurveStyle(ORANGE, (0, (5, 2)), "v", band=0.1),
    OTHER: CurveStyle(PURPLE, (0, (1, 1)), "P", band=0.1),
}
FLOOR = CurveStyle(GREY, ":", "", band=0.25)
PROBE, FIXED = CurveStyle("#882255", (0, (6, 1, 1, 1)), ""), CurveStyle("#999933", "-", "")
SHOWN = 8  # columns of pictures
TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "classifier", "seed")


def report(
    model: str,
    bank: ProbeBank,
    scores: pd.DataFrame,
    results: ShortcutResults,
    *,
    sampling_steps: int,
    tolerance: float,
    fraction: float,
    left_out: Sequence[str] = (),
    seed: int = 0,
) -> Report:
    """From which step on shortcuts change little, beside the step by which probes could read what is fixed.

    Args:
        scores: of the probes; the best layer of each is the one that is told of.
        tolerance, fraction: see `Shortcuts`.
        left_out: sentences on shortcuts that cannot be taken.
    """
    probed = summarise(scores)
    choices = choose(probed, scores, fraction=fraction)
    fixed = fixed_steps(results.agreement, scores, choices, tolerance=tolerance, seed=seed)
    summaries = summarise_agreement(results.agreement, model, sampling_steps)
    whole = summaries_of_steps(summaries)
    return Report(
        title=f"Shortcuts from a step on in {model}",
        findings=with_headings(shortcut_lines(fixed, summaries, sampling_steps), [f"{line}." for line in left_out]),
        topics=TOPICS,
        tables={
            **shortcut_tables(fixed, results.costs, results.seconds, sampling_steps),
            "fixed": Table.of(FixedStep, fixed, title="steps from which on the outcome is fixed", columns=COLUMNS),
            "agreement": Table.of(AgreementSummary, summaries, title="agreement with the whole run", columns=COLUMNS),
            "agreement_per_image": Table(results.agreement.assign(model=model), show=["csv"]),
            "costs": Table(results.costs, title="work of a shortcut", columns=COLUMNS),
            "seconds": Table(results.seconds, title="measured times", columns=COLUMNS),
            "summary": Table(probed, title="scores of the probes"),
            "scores": Table(scores, show=["parquet"]),
        },
        figures=_figures(summaries, fixed, results, tolerance, sampling_steps),
        examples=[_over_steps(example, list(bank.steps)) for example in results.examples],
        scalars=scalars_over_steps(
            (row.full_steps - 1, f"shortcuts/{row.shortcut}/{row.property}/{row.metric}", row.mean, row.low, row.high)
            for row in whole
            if row.full_steps
        ),
        artifacts={"probes": partial(save_bank, bank)},
        evaluations=results.evaluations,
    )


COLUMNS = {
    "property": "what is compared: a property of the label maps, the class, or the picture",
    "shortcut": "how the sampler does less; any: whatever shortcut, any_same_prompt: whatever one keeps the prompt; "
    "unrelated: pictures of other prompts and seeds",
    "full_steps": "full steps before the shortcut is begun",
    "layer": "the layer of the probe",
    "tolerance": "a change below which a property counts as fixed, in units of the metric",
    "fixed": "full steps after which a shortcut changes the property by less than the tolerance, with its interval",
    "probe": "step by which the probe has reached its share of its last score, with its interval",
    "later": "by how many steps fixed is after probe, paired over images, with its interval",
    "evaluations": "of the denoiser, for one image",
    "work": "operations of the denoiser for one image, in evaluations of the whole run",
    "seconds": "measured time of the denoising, as a share of the whole run's: the median over batches",
}


def summaries_of_steps(summaries: Sequence[AgreementSummary]) -> list[AgreementSummary]:
    """Those of shortcuts, without unrelated pictures."""
    return [row for row in summaries if row.shortcut != UNRELATED]


def _figures(
    summaries: Sequence[AgreementSummary],
    fixed: Sequence[FixedStep],
    results: ShortcutResults,
    tolerance: float,
    sampling_steps: int,
) -> dict[str, Plot]:
    figures = {
        "shortcuts": Plot(
            partial(quality_curves, summaries, fixed, results.costs, tolerance),
            "Agreement with the whole run's picture for the work of the denoiser, one curve a shortcut, one marker for "
            "each step after which it is begun, with 95 % intervals. Rings: begun when the probe could read it.",
        ),
        "shortcuts_over_steps": Plot(
            partial(step_curves, summaries, fixed, tolerance),
            "The same over the full steps before the shortcut, with the probe's step of emergence and the step from "
            "which on no shortcut changes more than the tolerance, and their intervals.",
        ),
    }
    for number, example in enumerate(results.examples, 1):
        caption = "Pictures of one prompt and seed: of the whole run, and by each shortcut after some of the steps."
        figures[f"shortcut_example_{number}"] = Plot(partial(picture_grid, example, sampling_steps), caption)
    return figures


def _panels(summaries: Sequence[AgreementSummary], fixed: Sequence[FixedStep]) -> list[tuple[str, str]]:
    """(property, metric) of each panel: the properties, then class and pictures."""
    return [*dict.fromkeys((row.property, row.metric) for row in fixed), *beside(summaries)]


@style()
def quality_curves(
    summaries: Sequence[AgreementSummary], fixed: Sequence[FixedStep], costs: pd.DataFrame, tolerance: float
) -> Figure:
    """One panel a property, the class and each measure of pictures: agreement over the work of the denoiser."""
    work = {
        (way, taken): value for way, taken, value in costs[["shortcut", "full_steps", "work"]].itertuples(index=False)
    }
    keys = _panels(summaries, fixed)
    figure, panels = curve_panels(len(keys), xlabel="work of the denoiser, in evaluations of the whole run")
    for axes, (name, metric) in zip(panels, keys, strict=True):
        probe = next((row.probe for row in fixed if row.property == name), None)
        for way, rows in _by_way(summaries, name, metric).items():
            draw_curve(axes, [work[way, row.full_steps or 0] for row in rows], rows, shortcut_label(way), STYLES[way])
            at = next((row for row in rows if probe is not None and row.full_steps == probe), None)
            if at is not None:
                axes.plot(
                    [work[way, at.full_steps or 0]], [or_nan(at.mean)], linestyle="", marker="o", markersize=8,
                    markerfacecolor="none", markeredgecolor=BLACK, label="begun at the probe's step", zorder=4,
                    clip_on=False,
                )  # fmt: skip
        _finish(axes, summaries, name, metric, tolerance if any(row.property == name for row in fixed) else None)
    shared_legend(figure)
    return figure


@style()
def step_curves(summaries: Sequence[AgreementSummary], fixed: Sequence[FixedStep], tolerance: float) -> Figure:
    """One panel a property: agreement over the full steps before the shortcut."""
    keys = list(dict.fromkeys((row.property, row.metric) for row in fixed))
    figure, panels = curve_panels(len(keys), xlabel="full steps before the shortcut")
    for axes, (name, metric) in zip(panels, keys, strict=True):
        for way, rows in _by_way(summaries, name, metric).items():
            draw_curve(axes, [row.full_steps or 0 for row in rows], rows, shortcut_label(way), STYLES[way])
        own = next(row for row in fixed if row.property == name and row.shortcut == ANY)
        _finish(axes, summaries, name, metric, tolerance)
        _draw_at(axes, own.probe, own.probe_low, own.probe_high, "probe could read it", PROBE)
        _draw_at(axes, own.fixed, own.fixed_low, own.fixed_high, "fixed, whatever shortcut", FIXED)
    shared_legend(figure)
    return figure


def _by_way(summaries: Sequence[AgreementSummary], name: str, metric: str) -> dict[str, list[AgreementSummary]]:
    """Rows of each shortcut that have a value, in the order of full steps."""
    found: dict[str, list[AgreementSummary]] = {}
    for row in summaries_of_steps(summaries):
        if (row.property, row.metric) == (name, metric) and row.n:
            found.setdefault(row.shortcut, []).append(row)
    return {way: sorted(rows, key=lambda row: row.full_steps or 0) for way, rows in found.items()}


def _finish(axes: Axes, summaries: Sequence[AgreementSummary], name: str, metric: str, tolerance: float | None) -> None:
    floor = next(
        (row for row in summaries if (row.shortcut, row.property, row.metric) == (UNRELATED, name, metric)), None
    )
    draw_level(axes, floor, shortcut_label(UNRELATED), FLOOR)
    known = metric_named(metric)
    if tolerance is not None:
        level = known.high * (1 - tolerance if known.higher_is_better else tolerance)
        axes.axhline(level, color=BLACK, linewidth=0.6, zorder=1, label=f"within {tolerance:g}")
    axes.set_title(f"{name}: {metric_name(metric)}")
    if metric == "psnr":
        axes.set_ylabel(metric_name(metric))
    else:
        label_scores(axes, metric)


def _draw_at(axes: Axes, at: int | None, low: int | None, high: int | None, label: str, look: CurveStyle) -> None:
    """A number of full steps as a vertical line, its interval as a shade, half a step wider on either side."""
    if low is not None and high is not None:
        axes.axvspan(low - 0.5, high + 0.5, color=look.colour, alpha=0.15, linewidth=0, zorder=0)
    if at is not None:
        axes.axvline(at, color=look.colour, linestyle=look.dashes, linewidth=1, zorder=1, label=label)


@style()
def picture_grid(example: ShortcutExample, sampling_steps: int) -> Figure:
    """A row a shortcut, a column a number of full steps before it; the last column is the whole run."""
    ways = list(dict.fromkeys(way for way, _ in example.pictures))
    every = sorted({taken for _, taken in example.pictures if taken < sampling_steps})
    shown = [every[round(place)] for place in np.linspace(0, len(every) - 1, min(len(every), SHOWN))] if every else []
    side = DOUBLE_COLUMN / (max(len(shown), 4) + 2)
    figure = Figure(figsize=(side * (len(shown) + 1) + 1.2, side * len(ways) + 0.5), layout="compressed")
    panels = figure.subplots(len(ways), len(shown) + 1, squeeze=False)
    for line, way in zip(panels, ways, strict=True):
        for axes, taken in zip(line, [*shown, None], strict=True):
            picture = example.whole if taken is None else example.pictures.get((way, taken))
            if picture is not None:
                axes.imshow(_drawn(picture))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(shortcut_label(way), rotation=0, ha="right", va="center")
    for axes, taken in zip(panels[0], shown, strict=False):
        axes.set_title(f"after {taken}")
    panels[0][-1].set_title("whole run")
    figure.suptitle(fill(example.title, 100), parse_math=False)
    return figure


def _drawn(picture: Tensor) -> np.ndarray:
    """[..., 3, H, W] -> [..., H, W, 3] in [0, 1]."""
    return picture.movedim(-3, -1).clamp(0, 1).numpy()


def _over_steps(example: ShortcutExample, steps: Sequence[int]) -> Example:
    """The picture of each shortcut, over the last full step before it."""
    frames = {"whole run": Frames(_drawn(example.whole)[None])}
    for way in dict.fromkeys(way for way, _ in example.pictures):
        frames[shortcut_label(way)] = Frames(np.stack([_drawn(example.pictures[way, step + 1]) for step in steps]))
    return Example(f"{example.title}: shortcuts begun after this step", steps, frames)
