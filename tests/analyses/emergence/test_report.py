"""What is said and drawn of probes and image models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffprobe.analyses.emergence.image_models import IMAGE_MODEL
from diffprobe.analyses.emergence.report import emergence_curves, emergence_figures
from diffprobe.analyses.emergence.tables import (
    Lead,
    PropertySummary,
    emergence_lines,
    emergence_tables,
    lead_text,
)
from diffprobe.files import NO_STEP
from diffprobe.probes.comparisons import ScoreDifference
from diffprobe.report.grid import PredictionExample, prediction_grid
from diffprobe.report.publish import report_text, write_tables
from diffprobe.report.report import Report
from diffprobe.report.wording import steps_text
from tests.reference.score_rows import summary_table
from tests.report.made_up_run import BEST, STEPS, make_choices, make_example, make_summaries

CHOICE = make_choices()[1]
LEAD = Lead(
    "pocket", BEST, "depth", "linear", "spearman", "own", 0.95, 0.76, 0.95, 3, 2, 4, 9, 8, 10, 6, 5, 8, 40
)  # fmt: skip


def differences(above: range, below: range) -> list[ScoreDifference]:
    rows = []
    for step in range(STEPS):
        sign = (step in above) - (step in below)
        key, other = ("pocket", BEST, step, "linear", "none"), ("pocket", IMAGE_MODEL, step, "linear", IMAGE_MODEL)
        ends = (sign * 0.2, sign * 0.2 - 0.1, sign * 0.2 + 0.1, 0.001 if sign else 0.5)
        rows.append(ScoreDifference(IMAGE_MODEL, "depth", "spearman", "test", *key, *other, *ends, ends[-1], 40, 0))
    return rows


def told(own: Lead = LEAD, common: Lead = LEAD, above: range = range(7), below: range = range(9, STEPS)):
    common = replace(common, definition="common", image_model_level=0.76)
    return [PropertySummary(CHOICE, [own, common], differences(above, below))]


def lines(summaries, property_summaries):
    """The sentences on the only property."""
    (found,) = emergence_lines(summary_table(summaries), property_summaries).values()
    return found


@pytest.fixture
def summaries():
    rows = [row for row in make_summaries() if row.control == "none"]
    seen = [replace(row, layer=IMAGE_MODEL, control=IMAGE_MODEL) for row in rows if row.layer == BEST]
    return [*rows, *(row for row in seen if row.split == "test")]


def test_the_verdict_names_both_steps_the_lead_and_their_intervals_from_one(summaries):
    first, second, third = lines(summaries, told())
    assert "by step 4 [3, 5] of 15, the image model 95 % of its own by step 10 [9, 11]" in first
    assert first.endswith("the probe leads by 6 [5, 8] steps.")
    assert "at one level for both, 0.76" in second
    assert third.endswith(
        "the probe is above the image model at steps 1 to 7, the image model is above the probe at steps 10 to 15."
    )


@pytest.mark.parametrize(
    ("lead", "words"),
    [
        ((2, 0, 4), "no lead is shown (2 [0, 4] steps)"),
        ((-3, -5, -1), "the image model leads by 3 [1, 5] steps"),
        ((None, 4, None), "the probe leads by more [4, more] steps"),
        ((None, None, None), "no lead was determined"),
    ],
)
def test_a_lead_is_claimed_only_where_the_interval_is_on_one_side_of_nothing(summaries, lead, words):
    row = replace(LEAD, lead=lead[0], lead_low=lead[1], lead_high=lead[2])
    assert lines(summaries, told(row))[0].endswith(f"{words}.")


def test_a_probe_without_a_final_score_above_0_has_no_step(summaries):
    nothing = replace(LEAD, probe_level=None, image_model_level=None, probe_step=NO_STEP, image_model_step=NO_STEP)
    first, second = lines(summaries, told(nothing, nothing))
    assert first == (
        f"depth: no step is told, since the probe on {BEST} or the image model has no final score above 0 "
        "(rank correlation 0.80 [0.77, 0.83])."
    )
    assert "on the same images" in second
    levels = emergence_tables(summary_table(summaries), told(nothing))["closing"].data["level"]
    assert levels[0] == "95 % of its own final score: none"


def test_one_step_is_told_as_one(summaries):
    assert lines(summaries, told(above=range(3, 4), below=range(0)))[2].endswith("above the image model at step 4.")


def test_no_step_at_which_one_is_ahead_is_said_so(summaries):
    assert "neither is shown" in lines(summaries, told(above=range(0), below=range(0)))[2]


def test_what_is_not_reached_is_later_or_more_and_never_a_number():
    assert steps_text(3, 2, NO_STEP) == "4 [3, later]"
    assert steps_text(NO_STEP, NO_STEP, NO_STEP) == "later"
    assert lead_text(replace(LEAD, lead_high=None)) == "6 [5, more]"
    assert lead_text(replace(LEAD, lead=None, lead_low=None, lead_high=None)) == "not determined"


def test_the_closing_table_fits_a_terminal_of_100_columns_with_every_interval(summaries):
    text = report_text(Report("", tables=emergence_tables(summary_table(summaries), told())))
    assert max(map(len, text.splitlines())) <= 100
    for cell in ("4 [3, 5]", "10 [9, 11]", "6 [5, 8]", "Probes on up 2.1"):
        assert cell in text


def test_the_tables_have_numbers_and_text_of_every_level_and_step(summaries, tmp_path):
    paths = write_tables(Report("", tables=emergence_tables(summary_table(summaries), told())), tmp_path)
    assert {path.name for path in paths} == {
        f"{name}.{kind}" for name in ("emergence", "scores_by_step") for kind in ("csv", "md", "tex")
    }
    header, first, *_ = (tmp_path / "tables" / "emergence.csv").read_text().splitlines()
    assert header.startswith("property,level,probe,probe low,probe high,image model,")
    assert first.endswith("4.0,3.0,5.0,10.0,9.0,11.0,6,5,8")
    lines = (tmp_path / "tables" / "scores_by_step.md").read_text().splitlines()
    assert lines[2] == "| step | depth, probe | depth, image model |"
    assert len(lines) == 4 + STEPS


def test_each_panel_has_both_curves_both_steps_and_the_common_level(summaries):
    figure = emergence_curves(summary_table(summaries), told())
    (axes,) = figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [
        "probe, on activations",
        "image model, on the decoded image",
        "probe at 95 % of the last score",
        "image model at 95 % of the last score",
        "95 % of the last score of the probe",
    ]
    verticals = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert verticals == [4, 10]


def test_a_step_that_is_not_reached_has_no_line(summaries):
    never = replace(LEAD, image_model_step=NO_STEP, image_model_low=8, image_model_high=NO_STEP)
    labels = emergence_curves(summary_table(summaries), told(never)).axes[0].get_legend_handles_labels()[1]
    assert "image model at 95 % of the last score" not in labels


def made_up_example(steps: int = STEPS) -> PredictionExample:
    example = make_example(steps)
    maps = {name: np.repeat(maps, 2, 1) for name, maps in example.predictions.items()}
    return replace(example, image_models=maps)


def test_the_grid_has_a_row_of_the_image_and_two_of_every_property():
    example = made_up_example()
    panels = np.reshape(prediction_grid(example).axes, (7, 8))
    assert [axes.get_ylabel() for axes in panels[:, 0]] == [
        "decoded image",
        *(f"{name}\n{who}" for name in ("saliency", "depth", "shading") for who in ("probe", "image model")),
    ]
    assert [axes.get_title() for axes in panels[0][:-1]] == [f"step {n}" for n in (1, 2, 3, 5, 8, 11, 15)]
    np.testing.assert_array_equal(panels[3, 1].images[0].get_array(), example.predictions["depth"][1])
    np.testing.assert_array_equal(panels[4, 1].images[0].get_array(), example.image_models["depth"][1])
    assert panels[3, 1].images[0].get_clim() == panels[4, 1].images[0].get_clim() == panels[4, 7].images[0].get_clim()


def test_the_full_grid_shows_every_step():
    example = made_up_example()
    titles = [axes.get_title() for axes in prediction_grid(example, example.steps).axes[: STEPS + 1]]
    assert titles == ["step 1", *map(str, range(2, STEPS + 1)), ""]


def test_there_are_curves_and_both_grids_of_every_example(summaries):
    figures = emergence_figures(summary_table(summaries), told(), [made_up_example(3)])
    assert set(figures) == {"emergence", "example_1", "example_1_all_steps"}
    assert all(figure.draw().axes and figure.caption for figure in figures.values())


def test_errors_are_told_as_errors_that_come_down(summaries):
    rows = [replace(row, metric="mean_angle") for row in summaries if row.property == "depth"]
    own = replace(LEAD, metric="mean_angle", probe_level=21.0, image_model_level=31.0)
    common = replace(own, definition="common", image_model_level=21.0)
    choice = replace(CHOICE, metric="mean_angle")
    told_errors = [PropertySummary(choice, [own, common], differences(range(0), range(7)))]
    first, second, third = lines(rows, told_errors)
    assert f"the probe on {BEST} comes down to 105 % of its final error (mean angular error (°)" in first
    assert "the image model 105 % of its own by step 10" in first
    assert "at one level for both, 21.00 (105 % of the probe's final error)" in second
    assert third.startswith("depth: on the same images (lower is better) the image model is above the probe at steps 1")
    levels = emergence_tables(summary_table(rows), told_errors)["closing"].data["level"]
    assert list(levels) == ["105 % of its own final error: 21.00, 31.00", "105 % of the probe's: 21.00"]
