"""What is reported of a probing study: closing tables, best layers, heat maps, examples."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from diffprobe.analyses.probing.findings import verdict
from diffprobe.analyses.probing.report import best_layers, closing_tables, report
from diffprobe.files import NO_STEP
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.probes.summaries import EmergenceStep, summarise
from diffprobe.report.publish import report_text, write_tables
from diffprobe.report.report import Report, with_headings
from diffprobe.report.tables import lines_of
from tests.reference.score_rows import summary_table
from tests.report.made_up_run import BEST, FINAL, LAYERS, make_choices, make_comparison, make_example, make_summaries

STEPS = 15
IMAGES = [f"image{number}" for number in range(8)]


@pytest.fixture(scope="module")
def scored():
    """Scores of eight images at two layers and 15 steps, beside a permuted network and pixel position; their means."""
    noise = np.random.default_rng(0)
    rising = 1 - 0.6 * np.exp(-np.arange(STEPS) / 1.5)
    moments = [(step, 999.0 - 66 * step) for step in range(STEPS)]
    blocks = []
    for name, (metric, final) in FINAL.items():
        for split in ("validation", "test"):
            for layer, control in product(LAYERS[10:12], ("none", "permuted")):
                mean = final * rising * (1 if layer == BEST else 0.9) * (1 if control == "none" else 0.45)
                values = mean[:, None] + 0.01 * noise.normal(size=(STEPS, len(IMAGES)))
                blocks.append(
                    ScoreBlock("pocket", layer, name, "linear", control, split, metric, moments, IMAGES, values)
                )
            values = 0.3 + 0.01 * noise.normal(size=(1, len(IMAGES)))
            nowhere = [(NO_STEP, None)]
            blocks.append(
                ScoreBlock("pocket", "position", name, "linear", "position", split, metric, nowhere, IMAGES, values)
            )
    scores = score_table(blocks)
    return scores, summarise(scores)


def text_of(summaries, choices):
    tables = summary_table(summaries)
    return report_text(
        Report("", findings=with_headings(verdict(tables, choices)), tables=closing_tables(tables, choices))
    )


def closing(summaries, choices):
    """The lines of the only closing table by their first cell."""
    (table,) = closing_tables(summary_table(summaries), choices).values()
    return {line[0]: line for line in lines_of(table)}


def test_every_step_has_a_line_with_intervals_for_each_property(summaries, choices):
    lines = closing(summaries, choices)

    assert lines["15"] == ["15", "0.88 [0.85, 0.91]", "0.80 [0.77, 0.83]", "0.62 [0.59, 0.65]"]
    assert lines["1"][1] == "0.35 [0.32, 0.38]"
    assert "0" not in lines


def test_best_layer_emergence_papers_layer_and_controls_are_listed(summaries, choices):
    lines = closing(summaries, choices)

    assert lines["best layer"] == ["best layer", "up 2.1", "up 2.1", "up 2.1"]
    assert lines["emerged by step"][2] == "5 [4, 7]"
    assert lines["papers' layer (up 3.0), step 15"][2] == "0.74 [0.71, 0.77]"
    assert lines["permuted network, step 15"][2] == "0.35 [0.31, 0.39]"
    assert lines["pixel position"][3] == "0.30 [0.26, 0.34]"


def test_nothing_is_cut_or_broken_at_100_columns(summaries, choices):
    lines = text_of(summaries, choices).splitlines()

    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


def test_the_verdicts_follow_the_table(summaries, choices):
    text = " ".join(text_of(summaries, choices).split())

    assert f"- By step 5 [4, 7] of 15 the probe on {BEST} reaches 95 % of its final saliency score" in text
    assert text.count("is above both controls with separated intervals") == 3


def test_a_papers_layer_that_was_not_probed_and_no_emergence_are_said():
    choices = [replace(choice, emergence=EmergenceStep(None, None, None)) for choice in make_choices()]

    lines = closing(make_summaries(LAYERS[10:12]), choices)

    assert lines["papers' layer (not probed), step 15"][1] == "no score"
    assert lines["emerged by step"][1] == "not determined"


def test_of_one_step_alone_no_emergence_is_listed():
    lines = closing(make_summaries([BEST, *LAYERS[:1]], [14]), make_choices())
    assert lines["best layer"][1] == "up 2.1"
    assert "emerged by step" not in lines


def test_every_control_that_was_run_has_a_line(summaries, choices):
    pixels = [replace(row, layer="pixels", control="pixels") for row in summaries if row.layer == LAYERS[3]]

    lines = closing([*summaries, *(row for row in pixels if row.control != "none")], choices)

    assert lines["raw pixels, step 15"][1].startswith("0.6")
    assert "pixel position" in lines


def test_two_probes_have_a_table_each(summaries, choices):
    second = [replace(row, probe="ridge") for row in summaries]

    text = text_of([*summaries, *second], [*choices, *(replace(choice, probe="ridge") for choice in choices)])

    assert "linear: Scores on test images" in text
    assert "ridge: Scores on test images" in text
    assert "- ridge: By step 5 [4, 7] of 15" in text


def test_best_layer_papers_layer_and_controls_have_a_line_each(summaries, choices):
    data = best_layers(summary_table(summaries), choices[1:2]).data

    assert data["what"].tolist() == [
        "best layer on validation",
        "the papers' layer",
        "permuted network",
        "pixel position",
    ]
    assert data["step"].isna().tolist() == [False, False, False, True]
    assert (data["layer"][0], round(data["mean"][0], 2), data["n"][0]) == (BEST, 0.80, 100)


def test_paired_differences_stand_beside_what_they_are_from(tmp_path, summaries, choices):
    choice = replace(choices[1], comparisons=(make_comparison("position", 0.5, p=0.004),))
    table = best_layers(summary_table(summaries), [choice])

    assert table.data["difference"].tolist()[2:] == [pytest.approx(float("nan"), nan_ok=True), 0.5]
    write_tables(Report("", tables={"tables/best_layers": table}), tmp_path)
    csv, markdown, latex = ((tmp_path / "tables" / f"best_layers.{kind}").read_text() for kind in ("csv", "md", "tex"))
    assert "| pixel position | position |  | 0.300 [0.260, 0.340] | 100 | 0.500 [0.480, 0.520] | 0.004 |" in markdown
    assert "In all rows: model pocket, probe linear, property depth, metric spearman." in markdown
    assert "0.300 [0.260, 0.340] & 100 & 0.500 [0.480, 0.520] & 0.004" in latex
    assert csv.splitlines()[0] == (
        "model,probe,property,metric,what,layer,step,mean,low,high,n,difference,difference_low,difference_high,p_holm"
    )


def test_a_cell_of_the_map_opens_its_controls_and_what_the_probe_there_sees(scored):
    scores, summaries = scored
    example = make_example()
    maps = {name: dict.fromkeys(LAYERS, values) for name, values in example.predictions.items()}
    found = report(scores, summaries, examples=[example], maps=maps)

    heat = found.heatmaps[1]
    assert (heat.title, heat.metric, heat.layers) == ("depth", "spearman", LAYERS[10:12])
    assert heat.cells[BEST, 14].n == 8
    assert "permuted network" in heat.cells[BEST, 14].notes[0]
    assert set(heat.frames) == set(LAYERS)
    assert heat.frames[BEST].low < heat.frames[BEST].high
    (shown,) = found.examples
    assert list(shown.frames)[:3] == ["decoded image", "finished image", "saliency: probe"]
    assert list(shown.overlays) == ["saliency"]


def test_a_run_folder_gets_the_same_tables_and_figures_whatever_was_probed(scored):
    scores, summaries = scored
    found = report(scores, summaries, more={"selectivity": summaries}, warnings=["Two images are alike."])

    assert found.title == "Saliency, depth, shading in pocket"
    assert {name for name, table in found.tables.items() if {"csv", "parquet"} & set(table.show)} == {
        "scores", "summary", "comparisons", "selectivity", "tables/best_layers", "emergence_order",
    }  # fmt: skip
    assert set(found.figures) == {"scores_over_steps", "layers_saliency", "layers_depth", "layers_shading"}
    assert found.findings[-1] == "Two images are alike."
    assert found.tables["scores on test images"].data["split"].unique().tolist() == ["test"]


def test_curves_hold_best_headline_and_every_control_over_the_steps(scored):
    scalars = report(*scored).scalars

    assert scalars["denoising_step"].tolist() == list(range(1, 16))
    assert scalars["depth/spearman/position"].nunique() == 1  # the same at every step
    assert (scalars["saliency/dice/best_low"] <= scalars["saliency/dice/best"]).all()
    assert "saliency/dice/headline" not in scalars  # was not probed


def test_many_properties_are_in_tables_that_fit_a_terminal(summaries, choices):
    several = [*choices, replace(choices[0], property="depth"), replace(choices[1], property="shading")]
    first, second = closing_tables(summary_table(summaries), several).values()
    assert [len(table.data.columns) for table in (first, second)] == [5, 2]
    assert second.data.columns[1].startswith("shading")
    assert (first.notes, len(second.notes)) == ([], 1)
