"""From which step on the outcome is fixed, against a probe that is ready at a known one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from diffprobe.analyses.shortcuts.agreement import CLASS, SAME_CLASS
from diffprobe.analyses.shortcuts.findings import shortcut_lines, shortcut_tables, shown
from diffprobe.analyses.shortcuts.fixed import ANY, ANY_SAME_PROMPT, FixedStep, fixed_steps, summarise_agreement
from diffprobe.analyses.shortcuts.study import AGREEMENT_COLUMNS, UNRELATED
from diffprobe.analyses.shortcuts.ways import DEEP, GUIDANCE_OFF, OTHER
from diffprobe.probes.summaries import EmergenceStep
from diffprobe.report.choices import LayerChoice
from tests.reference.score_rows import Score, table_of

GRID, STEPS = (0, 1, 2, 4, 6, 8), 8
CHOICE = LayerChoice("tiny", "ridge", "depth", "spearman", "layer", EmergenceStep(1, 1, 1, 12))


def names(count: int) -> list[str]:
    return [f"image_{number}" for number in range(count)]


def agreement(off: dict[str, dict[int, float]], count: int = 12, spread: float = 0.002) -> pd.DataFrame:
    """Of each shortcut by how far pictures are off on average, by full steps; images differ by `spread`."""
    draw, rows = np.random.default_rng(0), []
    for way, steps in off.items():
        for taken in GRID:
            if taken in steps:
                noise = spread * draw.standard_normal(count) * (steps[taken] > 0)
                for name, each in zip(names(count), noise, strict=True):
                    rows.append((way, taken, "depth", "spearman", name, 1 - steps[taken] - each))
    table = pd.DataFrame(rows, columns=AGREEMENT_COLUMNS)
    return table.astype({"full_steps": "Int64"})


def scores(ready: int, count: int = 12) -> pd.DataFrame:
    """The probe scores 0.9 from the step `ready` on, counted from 0, and 0.5 before."""
    return table_of(
        Score("tiny", "layer", step, None, "depth", "ridge", "none", "test", name, "spearman",
              (0.9 if step >= ready else 0.5) + number / 1000)
        for step in range(STEPS) if step + 1 in GRID
        for number, name in enumerate(names(count))
    )  # fmt: skip


def found(off: dict[str, dict[int, float]], count: int = 12, ready: int = 1) -> dict[str, FixedStep]:
    choice = replace(CHOICE, emergence=EmergenceStep(ready, ready, ready, count))
    rows = fixed_steps(agreement(off, count), scores(ready, count), [choice], tolerance=0.02)
    return {row.shortcut: row for row in rows}


EARLY = {0: 0.3, 1: 0.2, 2: 0.01, 4: 0.005, 6: 0.001, 8: 0.0}
LATE = {1: 0.4, 2: 0.3, 4: 0.1, 6: 0.005, 8: 0.0}


def test_each_shortcut_has_its_step_and_whatever_shortcut_the_latest() -> None:
    rows = found({GUIDANCE_OFF: EARLY, DEEP: LATE})
    assert list(rows) == [ANY, GUIDANCE_OFF, DEEP]
    steps = {way: (row.fixed, row.fixed_low, row.fixed_high) for way, row in rows.items()}
    assert steps == {ANY: (6, 6, 6), GUIDANCE_OFF: (2, 2, 2), DEEP: (6, 6, 6)}


def test_it_is_set_beside_the_probe_in_numbers_of_steps_on_an_uneven_grid() -> None:
    """The probe is ready in its second evaluation; between 2 and 6 steps two numbers of steps were tried."""
    row = found({GUIDANCE_OFF: EARLY, DEEP: LATE})[ANY]
    assert (row.probe, row.later, row.later_low, row.later_high) == (2, 4, 4, 4)
    assert (row.n, shown(row)) == (12, 1)
    assert row.p_holm is not None
    assert row.p_holm < 0.01
    before = found({GUIDANCE_OFF: EARLY}, ready=7)[ANY]
    assert (before.later, shown(before)) == (-6, -1)


def test_a_change_that_comes_back_later_leaves_it_open() -> None:
    rows = found({GUIDANCE_OFF: EARLY | {4: 0.05}})
    assert rows[GUIDANCE_OFF].fixed == 6


def test_whatever_shortcut_counts_the_worst_of_each_image() -> None:
    """Each shortcut changes other images, so that together they change more than each."""
    table = agreement({GUIDANCE_OFF: dict.fromkeys(GRID, 0.0), OTHER: dict.fromkeys(GRID, 0.0)})
    half = {name: place % 2 for place, name in enumerate(names(12))}
    for way, part in ((GUIDANCE_OFF, 0), (OTHER, 1)):
        rows = (table["shortcut"] == way) & (table["full_steps"] < 4) & (table["image"].map(half) == part)
        table.loc[rows, "value"] = 0.97
    rows = {row.shortcut: row for row in fixed_steps(table, scores(1), [CHOICE], tolerance=0.02)}
    assert (rows[GUIDANCE_OFF].fixed, rows[OTHER].fixed, rows[ANY].fixed) == (0, 0, 4)


def test_what_keeps_the_prompt_is_told_apart_from_what_replaces_it() -> None:
    rows = found({GUIDANCE_OFF: EARLY, OTHER: LATE})
    assert list(rows) == [ANY, ANY_SAME_PROMPT, GUIDANCE_OFF, OTHER]
    assert (rows[ANY].fixed, rows[ANY_SAME_PROMPT].fixed) == (6, 2)
    lines = shortcut_lines(list(rows.values()), [], STEPS)["depth"]
    assert "whatever shortcut with the same prompt is taken" in lines[1]
    assert ANY_SAME_PROMPT not in found({GUIDANCE_OFF: EARLY, DEEP: LATE})


def test_where_only_the_whole_run_is_left_it_is_said() -> None:
    row = found({OTHER: dict.fromkeys(GRID, 0.1) | {STEPS: 0.0}})[ANY]
    assert row.fixed == STEPS
    assert shortcut_lines([row], [], STEPS)["depth"][0].startswith("depth: only after step 8 [8, 8] of 8 the final")


def test_few_images_have_no_interval_and_no_verdict() -> None:
    row = found({GUIDANCE_OFF: EARLY}, count=4)[ANY]
    assert (row.fixed, row.fixed_low, row.later_low, shown(row)) == (2, None, None, 0)
    choice = replace(CHOICE, emergence=EmergenceStep(1, None, None, 4))
    rows = fixed_steps(agreement({GUIDANCE_OFF: EARLY}, 4), scores(1, 4), [choice], tolerance=0.02)
    line, _ = shortcut_lines(rows, [], STEPS)["depth"]
    assert "4 images are too few to say whether this is before or after the probe on layer" in line
    assert "[" not in line


def test_a_probe_that_never_emerges_is_not_compared() -> None:
    choice = replace(CHOICE, emergence=EmergenceStep(None, None, None, 12))
    rows = fixed_steps(agreement({GUIDANCE_OFF: EARLY}), scores(1), [choice], tolerance=0.02)
    assert [(row.fixed, row.later, row.p) for row in rows] == [(2, None, None)] * 2
    assert "has no step by which it could read it" in shortcut_lines(rows, [], STEPS)["depth"][0]


def test_the_sentence_says_after_before_or_neither() -> None:
    after = found({GUIDANCE_OFF: EARLY, DEEP: LATE})
    lines = shortcut_lines(list(after.values()), [], STEPS)["depth"]
    assert lines == [
        "depth: after step 6 [6, 6] of 8 the final picture's depth changes by less than 0.02 rank correlation whatever "
        "shortcut is taken, on average over 12 images; this is 4 [4, 4] steps after the probe on layer could read it "
        "(step 2 [2, 2]).",
        "depth, by shortcut, after step: guidance off 2 [2, 2], deep features reused 6 [6, 6].",
    ]
    before = found({GUIDANCE_OFF: EARLY}, ready=7)
    assert "this is 6 [6, 6] steps before the probe" in shortcut_lines(list(before.values()), [], STEPS)["depth"][0]
    same = found({GUIDANCE_OFF: EARLY}, ready=1)
    line = shortcut_lines(list(same.values()), [], STEPS)["depth"][0]
    assert "it is not shown whether this is before or after the probe on layer" in line
    assert line.endswith("could read it (step 2 [2, 2]): 0 [0, 0] steps, p = 1 after Holm.")


def test_pictures_that_are_all_equal_are_no_share_but_classes_are() -> None:
    table = agreement({GUIDANCE_OFF: dict.fromkeys(GRID, 0.0)})
    classes = table.assign(property=CLASS, metric=SAME_CLASS)
    rows = summarise_agreement(pd.concat([table, classes]), "tiny", STEPS)
    ends = {(row.property, row.full_steps): (row.low, row.high) for row in rows}
    assert ends["depth", 4] == ends["depth", 8] == ends[CLASS, 8] == (1, 1)
    assert ends[CLASS, 4] == (pytest.approx(0.735, abs=0.001), 1)


def test_unrelated_pictures_and_pictures_at_half_of_the_steps_are_told() -> None:
    table = agreement({GUIDANCE_OFF: EARLY})
    floor = table[table["full_steps"] == 0].assign(shortcut=UNRELATED, full_steps=pd.NA, value=0.25)
    pictures = table.assign(property="picture", metric="ssim")
    summaries = summarise_agreement(pd.concat([table, floor, pictures]), "tiny", STEPS)
    rows = fixed_steps(pd.concat([table, floor]), scores(1), [CHOICE], tolerance=0.02)
    lines = shortcut_lines(rows, summaries, STEPS)
    assert lines["depth"][1].endswith("Unrelated pictures agree by rank correlation 0.25 [0.25, 0.25].")
    (line,) = lines["the pictures"]
    assert line.startswith("SSIM with the whole run's picture, begun after 4 of 8 steps: guidance off 0.9")


def test_tables_say_what_is_spared_there_and_only_the_closing_one_how_long_it_took() -> None:
    rows = list(found({GUIDANCE_OFF: EARLY}).values())
    costs = pd.DataFrame({"shortcut": [GUIDANCE_OFF], "full_steps": [2], "work": [5.0]})
    seconds = pd.DataFrame({"shortcut": [GUIDANCE_OFF], "full_steps": [2], "seconds": [0.66]})
    tables = shortcut_tables(rows, costs, seconds, STEPS)
    assert "time" not in str(tables["tables/fixed_steps"].text)
    text = tables["closing"].text
    assert text is not None
    assert text.iloc[1].tolist() == [
        "depth, rank correlation", "guidance off", "2 [2, 2]", "2 [2, 2]", "0 [0, 0]", "38 %", "0.66",
    ]  # fmt: skip
