"""The closing table at 100 columns."""

from dataclasses import replace

from diffprobe.probes.summaries import Emergence
from diffprobe.report.console import report_text
from tests.reference.score_rows import summary_table
from tests.report.made_up_run import BEST, LAYERS, make_choices, make_summaries


def line_of(text: str, start: str) -> list[str]:
    """Cells of the table row that begins with `start`."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {start} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_every_step_has_a_line_with_intervals_for_each_property(summaries, choices):
    text = report_text(summary_table(summaries), choices)

    assert line_of(text, "15") == ["15", "0.88 [0.85, 0.91]", "0.80 [0.77, 0.83]", "0.62 [0.59, 0.65]"]
    assert line_of(text, "1")[1] == "0.35 [0.32, 0.38]"
    assert "│ 0 " not in text


def test_best_layer_emergence_papers_layer_and_controls_are_listed(summaries, choices):
    text = report_text(summary_table(summaries), choices)

    assert line_of(text, "best layer") == ["best layer", "up 2.1", "up 2.1", "up 2.1"]
    assert line_of(text, "emerged by step")[2] == "5 [4, 7]"
    assert line_of(text, "papers' layer (up 3.0), step 15")[2] == "0.74 [0.71, 0.77]"
    assert line_of(text, "permuted network, step 15")[2] == "0.35 [0.31, 0.39]"
    assert line_of(text, "pixel position")[3] == "0.30 [0.26, 0.34]"


def test_nothing_is_cut_or_broken_at_100_columns(summaries, choices):
    lines = report_text(summary_table(summaries), choices).splitlines()

    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


def test_the_verdicts_follow_the_table(summaries, choices):
    text = " ".join(report_text(summary_table(summaries), choices).split())

    assert f"- By step 5 of 15 [4, 7] the probe on {BEST} reaches 95 % of its final saliency score" in text
    assert text.count("is above both controls with separated intervals") == 3


def test_a_papers_layer_that_was_not_probed_and_no_emergence_are_said():
    choices = [replace(choice, emergence=Emergence(None, None, None)) for choice in make_choices()]

    text = report_text(summary_table(make_summaries(LAYERS[10:12])), choices)

    assert line_of(text, "papers' layer (not probed), step 15")[1] == "no score"
    assert line_of(text, "emerged by step")[1] == "not determined"


def test_of_one_step_alone_no_emergence_is_listed():
    text = report_text(summary_table(make_summaries([BEST, *LAYERS[:1]], [14])), make_choices())
    assert line_of(text, "best layer")[1] == "up 2.1"
    assert "emerged by step" not in text


def test_every_control_that_was_run_has_a_line(summaries, choices):
    pixels = [replace(row, layer="pixels", control="pixels") for row in summaries if row.layer == LAYERS[3]]

    text = report_text(summary_table([*summaries, *(row for row in pixels if row.control != "none")]), choices)

    assert line_of(text, "raw pixels, step 15")[1].startswith("0.6")
    assert "pixel position, step" not in text


def test_two_probes_have_a_table_each(summaries, choices):
    second = [replace(row, probe="ridge") for row in summaries]

    text = report_text(
        summary_table([*summaries, *second]), [*choices, *(replace(choice, probe="ridge") for choice in choices)]
    )

    assert "linear: Scores on test images" in text
    assert "ridge: Scores on test images" in text
    assert "- ridge: By step 5 of 15" in text
