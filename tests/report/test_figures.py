"""What the heat map and the curves show; their content, not their pixels."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.probes.summaries import Emergence
from diffprobe.report.choices import HEADLINE_LAYER
from diffprobe.report.figures import layer_step_heatmap, scores_over_steps
from diffprobe.report.style import ORANGE
from tests.report.made_up_run import BEST, LAYERS, make_choices, make_summaries


def texts(labels):
    return [label.get_text() for label in labels]


def marks(figure: Figure) -> dict[str, int]:
    """Row of each mark beside the heat map, by its label in the legend."""
    return {item.get_label(): int(item.get_offsets()[0, 1]) for item in figure.axes[0].collections[1:]}


def cells(figure: Figure) -> np.ma.MaskedArray:
    return figure.axes[0].collections[0].get_array()


class TestHeatmap:
    def test_rows_are_layers_in_network_order_and_columns_steps_from_one(self, summaries):
        axes, bar = layer_step_heatmap(summaries, "depth", "spearman").axes

        assert texts(axes.get_yticklabels())[:2] == ["down 0.0", "down 0.1"]
        assert texts(axes.get_yticklabels())[-1] == "up 3.2"
        assert axes.yaxis_inverted()
        assert texts(axes.get_xticklabels()) == ["1", "3", "5", "7", "9", "11", "13", "15"]
        assert (axes.get_xlabel(), bar.get_ylabel()) == ("denoising step", "rank correlation")

    def test_cells_hold_the_test_scores_of_the_network_itself(self, summaries):
        shown = cells(layer_step_heatmap(summaries, "saliency", "dice"))
        expected = {
            (r.layer, r.step): r.mean
            for r in summaries
            if (r.property, r.split, r.control) == ("saliency", "test", "none")
        }

        assert shown.shape == (16, 15)
        assert shown[LAYERS.index(BEST), 14] == expected[BEST, 14]
        assert shown[0, 3] == expected[LAYERS[0], 3]

    def test_layers_give_the_resolution_and_the_order(self, summaries):
        layers = [Layer(name, "self_attention", "decoder", 8, 4, 16) for name in reversed(LAYERS)]

        labels = texts(layer_step_heatmap(summaries, "depth", "spearman", layers=layers).axes[0].get_yticklabels())

        assert labels[0] == "up 3.2  4\N{MULTIPLICATION SIGN}16"
        assert labels[-1] == "down 0.0  4\N{MULTIPLICATION SIGN}16"

    def test_best_and_papers_layer_are_marked_at_their_rows(self, summaries):
        figure = layer_step_heatmap(summaries, "depth", "spearman")

        assert marks(figure) == {
            "best layer on validation": LAYERS.index(BEST),
            "the papers' layer": LAYERS.index(HEADLINE_LAYER),
        }
        assert texts(figure.legends[0].get_texts()) == ["best layer on validation", "the papers' layer"]

    def test_the_best_layer_is_the_one_of_validation_whatever_the_test_says(self, summaries):
        rows = [replace(r, mean=0.99) if (r.layer, r.split) == (LAYERS[0], "test") else r for r in summaries]

        assert marks(layer_step_heatmap(rows, "depth", "spearman"))["best layer on validation"] == LAYERS.index(BEST)

    def test_a_papers_layer_that_was_not_probed_is_not_marked(self):
        figure = layer_step_heatmap(make_summaries(LAYERS[10:12], range(3)), "depth", "spearman")

        assert marks(figure) == {"best layer on validation": 1}

    def test_cells_without_a_score_are_empty_over_hatching_and_explained(self, summaries):
        rows = [replace(r, mean=None) if (r.layer, r.step) == (LAYERS[2], 0) else r for r in summaries]

        figure = layer_step_heatmap(rows, "depth", "spearman")

        assert np.argwhere(cells(figure).mask).tolist() == [[2, 0]]
        assert figure.axes[0].patch.get_hatch()
        assert texts(figure.legends[0].get_texts())[-1] == "no score"

    def test_a_choice_of_steps_keeps_their_numbers(self, summaries):
        axes = layer_step_heatmap([r for r in summaries if r.step in (0, 7, 14)], "depth", "spearman").axes[0]

        assert texts(axes.get_xticklabels()) == ["1", "8", "15"]

    def test_nothing_to_draw_is_refused(self, summaries):
        with pytest.raises(UserError, match="'rmse' of property 'depth'"):
            layer_step_heatmap(summaries, "depth", "rmse")


class TestCurves:
    def test_one_panel_a_property_with_its_metric_and_best_layer(self, summaries, choices):
        figure = scores_over_steps(summaries, choices)

        assert [axes.get_title() for axes in figure.axes] == ["saliency: up 2.1", "depth: up 2.1", "shading: up 2.1"]
        assert [axes.get_ylabel() for axes in figure.axes] == ["Dice", "rank correlation", "rank correlation"]
        assert figure.get_supxlabel() == "denoising step"

    def test_lines_are_best_papers_layer_and_both_controls_explained_once(self, summaries, choices):
        figure = scores_over_steps(summaries, choices)

        assert len(figure.legends) == 1
        assert texts(figure.legends[0].get_texts()) == [
            "best layer on validation",
            "the papers' layer, up 3.0",
            "permuted network, best layer",
            "pixel position only",
            "95 % of the last score reached",
        ]

    def test_steps_count_from_one_and_bands_are_the_intervals(self, summaries, choices):
        axes = scores_over_steps(summaries, choices).axes[0]
        rows = [r for r in summaries if (r.property, r.layer, r.split, r.control) == ("saliency", BEST, "test", "none")]

        best = axes.get_lines()[0]
        band = axes.collections[0].get_paths()[0].vertices

        assert list(best.get_xdata()) == list(range(1, 16))
        assert list(best.get_ydata()) == [r.mean for r in rows]
        assert band[:, 1].min() == pytest.approx(rows[0].low)
        assert band[:, 1].max() == pytest.approx(rows[-1].high)

    def test_the_emergence_step_is_a_vertical_line_at_its_number_from_one(self, summaries, choices):
        lines = scores_over_steps(summaries, choices).axes[1].get_lines()

        (vertical,) = [line for line in lines if to_rgba(line.get_color()) == to_rgba(ORANGE)]
        assert set(vertical.get_xdata()) == {5}

    def test_no_emergence_no_vertical_line(self, summaries, choices):
        never = [replace(choice, emergence=Emergence(None, None, None)) for choice in choices]

        assert not any("reached" in text for text in texts(scores_over_steps(summaries, never).legends[0].get_texts()))

    def test_a_best_layer_that_is_the_papers_layer_is_drawn_once(self, summaries):
        same = [replace(choice, best=HEADLINE_LAYER) for choice in make_choices()]

        labels = texts(scores_over_steps(summaries, same).legends[0].get_texts())

        assert "best layer on validation" in labels
        assert not any(label.startswith("the papers' layer") for label in labels)

    def test_controls_that_were_not_run_are_left_out(self, summaries, choices):
        figure = scores_over_steps([r for r in summaries if r.control == "none"], choices[:1])

        labels = texts(figure.legends[0].get_texts())
        assert len(figure.axes) == 1
        assert "pixel position only" not in labels
        assert "permuted network, best layer" not in labels

    def test_a_negative_score_is_inside_the_panel(self, summaries, choices):
        rows = [replace(r, mean=-0.4, low=-0.5, high=-0.3) if r.control == "permuted" else r for r in summaries]

        assert scores_over_steps(rows, choices).axes[1].get_ylim()[0] <= -0.5
