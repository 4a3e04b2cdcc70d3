"""The figures of shortcuts, of a small study."""

from __future__ import annotations

import pandas as pd
import torch

from diffprobe.analyses.shortcuts.fixed import fixed_steps, summarise_agreement
from diffprobe.analyses.shortcuts.report import picture_grid, quality_curves, step_curves
from diffprobe.analyses.shortcuts.study import UNRELATED, ShortcutExample
from diffprobe.analyses.shortcuts.ways import DEEP, GUIDANCE_OFF, NAMES
from tests.analyses.shortcuts.test_fixed import CHOICE, EARLY, GRID, LATE, STEPS, agreement, scores

TABLE = agreement({GUIDANCE_OFF: EARLY, DEEP: LATE})
FIXED = fixed_steps(TABLE, scores(1), [CHOICE], tolerance=0.02)
FLOOR = TABLE[TABLE["full_steps"] == 1].head(12).assign(shortcut=UNRELATED, full_steps=pd.NA, value=0.25)
SUMMARIES = summarise_agreement(
    pd.concat([TABLE, FLOOR, TABLE.assign(property="picture", metric="psnr", value=TABLE["value"] * 30)]), "tiny", STEPS
)
COSTS = pd.DataFrame(
    [(way, taken, (taken + STEPS) / 2) for way in (GUIDANCE_OFF, DEEP) for taken in GRID],
    columns=["shortcut", "full_steps", "work"],
)


def labels(figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_quality_is_drawn_over_work_with_the_probes_step_marked() -> None:
    figure = quality_curves(SUMMARIES, FIXED, COSTS, 0.02)
    depth, picture = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["depth: rank correlation", "picture: PSNR (dB)"]
    assert labels(figure) == {
        NAMES[GUIDANCE_OFF], NAMES[DEEP], "begun at the probe's step", "unrelated pictures", "within 0.02",
    }  # fmt: skip
    curves = {line.get_label(): line for line in depth.get_lines()}
    assert list(curves[NAMES[GUIDANCE_OFF]].get_xdata()) == [4, 4.5, 5, 6, 7, 8]
    assert list(curves[NAMES[DEEP]].get_xdata()) == [4.5, 5, 6, 7, 8]  # not begun before the first step
    rings = [line for line in depth.get_lines() if line.get_label() == "begun at the probe's step"]
    assert [list(ring.get_xdata()) for ring in rings] == [[5], [5]]  # after 2 full steps
    assert picture.get_ylim()[1] > 20


def test_over_steps_the_probes_step_and_the_fixed_one_stand_as_lines() -> None:
    figure = step_curves(SUMMARIES, FIXED, 0.02)
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xdata()[0] for line in axes.get_lines()}
    assert (lines["probe could read it"], lines["fixed, whatever shortcut"]) == (2, 6)


def test_pictures_stand_by_shortcut_and_step_with_the_whole_run_at_the_end() -> None:
    pictures = {(way, taken): torch.rand(3, 4, 4) for way in (GUIDANCE_OFF, DEEP) for taken in GRID}
    del pictures[DEEP, 0]
    figure = picture_grid(ShortcutExample("a $5 ball", torch.zeros(3, 4, 4), pictures), STEPS)
    drawn = [bool(axes.get_images()) for axes in figure.axes]
    assert drawn == [True] * 6 + [False] + [True] * 5
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == ["after 0", "after 1", "after 2", "after 4", "after 6", "whole run"]
