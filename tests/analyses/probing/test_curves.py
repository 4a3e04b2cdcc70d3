"""What the curves show; their content, not their pixels."""

from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from diffprobe.analyses.probing.figures import learning_curves, scores_over_steps
from diffprobe.probes.summaries import EmergenceStep
from diffprobe.report.choices import HEADLINE_LAYER, control_name
from diffprobe.report.style import CONTROL_STYLES, ORANGE
from tests.reference.score_rows import summary_table
from tests.report.made_up_run import BEST, make_choices, make_summaries


def texts(labels):
    return [label.get_text() for label in labels]


@pytest.fixture(scope="module")
def figure():
    return scores_over_steps(summary_table(make_summaries()), make_choices())


class TestCurves:
    def test_one_panel_a_property_with_its_metric_and_best_layer(self, figure):
        assert [axes.get_title() for axes in figure.axes] == ["saliency: up 2.1", "depth: up 2.1", "shading: up 2.1"]
        assert [axes.get_ylabel() for axes in figure.axes] == ["Dice", "rank correlation", "rank correlation"]
        assert figure.get_supxlabel() == "denoising step"

    def test_lines_are_best_papers_layer_and_both_controls_explained_once(self, figure):
        assert len(figure.legends) == 1
        assert texts(figure.legends[0].get_texts()) == [
            "best layer on validation",
            "the papers' layer, up 3.0",
            "permuted network",
            "pixel position",
            "95 % of the last score reached",
        ]

    def test_steps_count_from_one_and_bands_are_the_intervals(self, figure, summaries):
        axes = figure.axes[0]
        rows = [r for r in summaries if (r.property, r.layer, r.split, r.control) == ("saliency", BEST, "test", "none")]

        best = axes.get_lines()[0]
        band = axes.collections[0].get_paths()[0].vertices

        assert list(best.get_xdata()) == list(range(1, 16))
        assert list(best.get_ydata()) == [r.mean for r in rows]
        assert band[:, 1].min() == pytest.approx(rows[0].low)
        assert band[:, 1].max() == pytest.approx(rows[-1].high)

    def test_the_emergence_step_is_a_vertical_line_at_its_number_from_one(self, figure):
        lines = figure.axes[1].get_lines()

        (vertical,) = [line for line in lines if to_rgba(line.get_color()) == to_rgba(ORANGE)]
        assert set(vertical.get_xdata()) == {5}

    def test_no_emergence_no_vertical_line(self, summaries, choices):
        never = [replace(choice, emergence=EmergenceStep(None, None, None)) for choice in choices]

        assert not any(
            "reached" in text
            for text in texts(scores_over_steps(summary_table(summaries), never).legends[0].get_texts())
        )

    def test_a_best_layer_that_is_the_papers_layer_is_drawn_once(self, summaries):
        same = [replace(choice, best=HEADLINE_LAYER) for choice in make_choices()]

        labels = texts(scores_over_steps(summary_table(summaries), same).legends[0].get_texts())

        assert "best layer on validation" in labels
        assert not any(label.startswith("the papers' layer") for label in labels)

    def test_controls_that_were_not_run_are_left_out(self, summaries, choices):
        figure = scores_over_steps(summary_table([r for r in summaries if r.control == "none"]), choices[:1])

        labels = texts(figure.legends[0].get_texts())
        assert len(figure.axes) == 1
        assert "pixel position" not in labels
        assert "permuted network" not in labels

    def test_any_number_of_controls_is_drawn_with_bands_and_told_apart(self, figure, summaries, choices):
        permuted = [row for row in summaries if row.control == "permuted"]
        more = [
            replace(row, control=name)
            for name in CONTROL_STYLES
            if name not in ("permuted", "position")
            for row in permuted
        ]

        crowded = scores_over_steps(summary_table([*summaries, *more]), choices)

        drawn = {line.get_label(): line for line in crowded.axes[0].get_lines()}
        looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in drawn.values()}
        assert {control_name(name) for name in CONTROL_STYLES} < set(drawn)
        assert len(looks) == len(drawn)
        assert (
            len(crowded.axes[0].collections) == 2 + len(CONTROL_STYLES) - 1
        )  # two layers, controls; position is a span
        assert crowded.get_figheight() > figure.get_figheight()

    def test_no_two_controls_share_colour_dashes_or_marker(self):
        for field in ("colour", "dashes", "marker"):
            assert len({getattr(look, field) for look in CONTROL_STYLES.values()}) == len(CONTROL_STYLES)

    def test_a_negative_score_is_inside_the_panel(self, summaries, choices):
        rows = [replace(r, mean=-0.4, low=-0.5, high=-0.3) if r.control == "permuted" else r for r in summaries]

        assert scores_over_steps(summary_table(rows), choices).axes[1].get_ylim()[0] <= -0.5


class TestLearningCurves:
    @staticmethod
    def points(summaries, sizes=(40, 10, 20)):
        kept = [row for row in summaries if (row.layer, row.control) in ((BEST, "none"), ("position", "position"))]
        table = summary_table(kept)
        return pd.concat([table.assign(mean=table["mean"] * size / 40, images=size) for size in sizes])

    def test_the_last_step_is_drawn_over_the_number_of_images(self, summaries, choices):
        axes = learning_curves(self.points(summaries), choices).axes[1]

        best, position = axes.get_lines()
        final = next(r.mean for r in summaries if (r.property, r.layer, r.step) == ("depth", BEST, 14))
        assert list(best.get_xdata()) == list(position.get_xdata()) == [10, 20, 40]
        assert list(best.get_ydata()) == pytest.approx([final / 4, final / 2, final])
        assert list(position.get_ydata()) == pytest.approx([0.075, 0.15, 0.3])
        assert texts(axes.get_xticklabels()) == ["10", "20", "40"]
        assert axes.get_title() == "depth: up 2.1, step 15"

    def test_controls_of_the_whole_run_are_levels_unless_measured_at_every_size(self, summaries, choices):
        figure = learning_curves(self.points(summaries), choices, summary_table(summaries))

        labels = texts(figure.legends[0].get_texts())
        assert labels == ["best layer on validation", "pixel position", "permuted network, all images"]
