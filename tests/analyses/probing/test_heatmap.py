"""What the heat map shows; its content, not its pixels."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from diffprobe.analyses.probing.figures import layer_step_heatmap
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.report.choices import HEADLINE_LAYER
from tests.reference.score_rows import summary_table
from tests.report.made_up_run import BEST, LAYERS, make_choices, make_summaries

SALIENCY, DEPTH, _ = make_choices()


def texts(labels):
    return [label.get_text() for label in labels]


def marks(figure: Figure) -> dict[str, int]:
    """Row of each mark beside the heat map, by its label in the legend."""
    return {item.get_label(): int(item.get_offsets()[0, 1]) for item in figure.axes[0].collections[1:]}


def cells(figure: Figure) -> np.ma.MaskedArray:
    return figure.axes[0].collections[0].get_array()


class TestHeatmap:
    def test_rows_are_layers_in_network_order_and_columns_steps_from_one(self, summaries):
        axes, bar = layer_step_heatmap(summary_table(summaries), DEPTH).axes

        assert texts(axes.get_yticklabels())[:2] == ["down 0.0", "down 0.1"]
        assert texts(axes.get_yticklabels())[-1] == "up 3.2"
        assert axes.yaxis_inverted()
        assert texts(axes.get_xticklabels()) == ["1", "3", "5", "7", "9", "11", "13", "15"]
        assert (axes.get_xlabel(), bar.get_ylabel()) == ("denoising step", "rank correlation")

    def test_cells_hold_the_test_scores_of_the_network_itself(self, summaries):
        shown = cells(layer_step_heatmap(summary_table(summaries), SALIENCY))
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

        labels = texts(layer_step_heatmap(summary_table(summaries), DEPTH, layers=layers).axes[0].get_yticklabels())

        assert labels[0] == "up 3.2  4\N{MULTIPLICATION SIGN}16"
        assert labels[-1] == "down 0.0  4\N{MULTIPLICATION SIGN}16"

    def test_best_and_papers_layer_are_marked_at_their_rows(self, summaries):
        figure = layer_step_heatmap(summary_table(summaries), DEPTH)

        assert marks(figure) == {
            "best layer on validation": LAYERS.index(BEST),
            "the papers' layer": LAYERS.index(HEADLINE_LAYER),
        }
        assert texts(figure.legends[0].get_texts()) == ["best layer on validation", "the papers' layer"]

    def test_another_probe_of_the_same_table_is_not_drawn(self, summaries):
        other = [replace(row, probe="ridge", mean=0.01) for row in summaries]

        assert cells(layer_step_heatmap(summary_table([*summaries, *other]), DEPTH)).min() > 0.02

    def test_a_papers_layer_that_was_not_probed_is_not_marked(self):
        figure = layer_step_heatmap(summary_table(make_summaries(LAYERS[10:12], range(3))), DEPTH)

        assert marks(figure) == {"best layer on validation": 1}

    def test_cells_without_a_score_are_empty_over_hatching_and_explained(self, summaries):
        rows = [replace(r, mean=None) if (r.layer, r.step) == (LAYERS[2], 0) else r for r in summaries]

        figure = layer_step_heatmap(summary_table(rows), DEPTH)

        assert np.argwhere(cells(figure).mask).tolist() == [[2, 0]]
        assert figure.axes[0].patch.get_hatch()
        assert texts(figure.legends[0].get_texts())[-1] == "no score"

    def test_a_choice_of_steps_keeps_their_numbers(self, summaries):
        axes = layer_step_heatmap(summary_table([r for r in summaries if r.step in (0, 7, 14)]), DEPTH).axes[0]

        assert texts(axes.get_xticklabels()) == ["1", "8", "15"]

    def test_nothing_to_draw_is_refused(self, summaries):
        with pytest.raises(UserError, match="'rmse' of property 'depth'"):
            layer_step_heatmap(summary_table(summaries), replace(DEPTH, metric="rmse"))
