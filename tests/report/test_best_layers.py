"""The table of best layers in three formats."""

from dataclasses import replace

from diffprobe.report.best_layers import BestLayerRow, best_layer_rows, write_best_layers
from diffprobe.tables import read_rows
from tests.reference.score_rows import summary_table
from tests.report.made_up_run import BEST, make_comparison


def test_best_layer_papers_layer_and_controls_have_a_line_each(summaries, choices):
    rows = best_layer_rows(summary_table(summaries), choices[1:2])

    assert [(row.what, row.step) for row in rows] == [
        ("best layer on validation", 14),
        ("the papers' layer", 14),
        ("permuted network", 14),
        ("pixel position", -1),
    ]
    assert (rows[0].layer, round(rows[0].mean or 0, 2), rows[0].n) == (BEST, 0.80, 100)


def test_paired_differences_stand_beside_what_they_are_from(summaries, choices):
    choice = replace(choices[1], comparisons=(make_comparison("position", 0.5),))

    differences = {row.what: row.difference for row in best_layer_rows(summary_table(summaries), [choice])}

    assert differences["pixel position"] == 0.5
    assert differences["permuted network"] is None


def test_the_csv_comes_back_and_the_others_show_what_it_says(tmp_path, summaries, choices):
    choice = replace(choices[1], comparisons=(make_comparison("position", 0.5, p=0.004),))

    paths = write_best_layers(tmp_path / "tables", summary_table(summaries), [choice])

    assert read_rows(paths["csv"], BestLayerRow) == best_layer_rows(summary_table(summaries), [choice])
    markdown = paths["md"].read_text().splitlines()
    assert markdown[-1] == (
        "| depth, rank correlation | pixel position | position |  "
        "| 0.300 [0.260, 0.340] | 0.500 [0.480, 0.520] | 0.004 |"
    )
    assert {line.count("|") for line in markdown} == {8}
    latex = paths["tex"].read_text()
    assert "0.300 [0.260, 0.340] & 0.500 [0.480, 0.520] & 0.004" in latex
    assert latex.count(r"\\") == 5


def test_latex_is_not_broken_by_names_and_probes_become_a_column(tmp_path, summaries, choices):
    rows = [replace(row, probe="l1_50%") for row in summaries]

    both = write_best_layers(
        tmp_path, summary_table([*summaries, *rows]), [choices[0], replace(choices[0], probe="l1_50%")]
    )

    assert r"l1\_50\% & saliency, Dice" in both["tex"].read_text()
    assert both["md"].read_text().startswith("| probe | property |")
