"""Figures of runs side by side."""

from diffprobe.analyses.comparison.report import RunScore, labels_of, run_curves, run_scores
from diffprobe.probes.summaries import Summary
from tests.reference.score_rows import summary_table


def score(run, what="depth", probe="linear", mean=0.5):
    return RunScore(run, "pocket", probe, what, "spearman", "a", 1, mean, mean - 0.1, mean + 0.1, 20)


def test_every_run_is_a_dot_with_its_interval_in_the_panel_of_its_property():
    rows = [score("one"), score("two"), score("one", "shading")]
    figure = run_scores(rows)
    assert [axes.get_title() for axes in figure.axes] == ["depth", "shading"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["one", "two"]
    interval, dot = figure.axes[0].lines[:2]
    assert list(interval.get_xdata()) == [0.4, 0.6]
    assert list(dot.get_xdata()) == [0.5]


def test_rows_of_one_run_are_told_apart_by_model_and_probe():
    assert labels_of([score("one"), score("one", probe="mlp"), score("two")]) == [
        "one, pocket, linear",
        "one, pocket, mlp",
        "two",
    ]


def test_curves_are_of_the_chosen_layers_over_the_steps():
    def summary(step, layer):
        return Summary("pocket", layer, step, 1.0, "depth", "linear", "none", "test", "spearman", 0.1 * step, 0, 1, 20)

    rows = {
        run: summary_table(summary(step, layer) for layer in ("a", "b") for step in (1, 0)) for run in ("one", "two")
    }
    (axes,) = run_curves([score("one"), score("two")], rows).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2], [1, 2]]
