"""What the figures of an analysis show; their content, not their pixels."""

from dataclasses import replace

import numpy as np
import pytest

from diffprobe.analyses.separation.figures import (
    RIGHT,
    WRONG,
    retrieval_grid,
    separation_figures,
    separation_heatmap,
    set_distributions,
)
from diffprobe.analyses.separation.findings import separation_cells
from diffprobe.errors import UserError
from diffprobe.prototypes.sets import set_histograms
from tests.report.made_up_analysis import (
    ENCODER,
    FIRST,
    MEANS,
    SECOND,
    make_distances,
    make_retrieval,
    make_sets,
    make_tests,
)


def texts(labels):
    return [label.get_text() for label in labels]


class TestHeatmap:
    @staticmethod
    def found():
        places = [(layer, step) for layer in (SECOND, FIRST) for step in range(3)]
        broken = {**MEANS, "scsi": 0.9}
        sets = [row for layer, step in places for row in make_sets(layer, step, means=broken if step == 2 else MEANS)]
        tests = [
            row
            for layer, step in places
            for row in make_tests(layer, step, auc=0.6 + 0.1 * step, share=0.99 if step == 0 else 0.6)
        ]
        return separation_cells(sets, tests)

    def test_cells_are_auc_by_layer_in_network_order_and_timestep(self):
        found = [replace(item, timestep=100.0 * item.step) for item in self.found()]
        axes = separation_heatmap(found).axes[0]

        assert texts(axes.get_yticklabels()) == ["down 2.0", "down 2.1"]
        assert texts(axes.get_xticklabels()) == ["0", "100", "200"]
        assert axes.collections[0].get_array().tolist() == pytest.approx(np.array([[0.6, 0.7, 0.8]] * 2))

    def test_dots_tell_where_the_order_holds_and_how_surely(self):
        figure = separation_heatmap(self.found())

        sure, by_means = figure.axes[0].collections[1:]
        assert sure.get_offsets().tolist() == [[0.5, 1.5], [0.5, 0.5]]
        assert by_means.get_offsets()[:, 0].tolist() == [1.5, 1.5]
        assert sure.get_sizes()[0] > 2 * by_means.get_sizes()[0]
        assert len(texts(figure.legends[0].get_texts())) == 2

    def test_a_place_with_an_empty_set_is_hatched_and_explained(self):
        found = [replace(item, tests={}) if item.step == 1 else item for item in self.found()]

        figure = separation_heatmap(found)

        assert figure.axes[0].collections[0].get_array().mask[:, 1].all()
        assert texts(figure.legends[0].get_texts())[-1] == "an empty set"

    def test_nothing_to_draw_is_refused(self):
        with pytest.raises(UserError, match="no AUC"):
            separation_heatmap(separation_cells(make_sets()))


class TestDistributions:
    def test_every_set_has_its_place_and_number_of_pairs_even_an_empty_one(self):
        distances = make_distances() | {"dcsi": np.zeros(0, np.float32)}

        (axes,) = set_distributions(set_histograms(distances, ENCODER, 0, "pearson")).axes

        assert texts(axes.get_xticklabels()) == ["scsi\n80", "scdi\n4000", "dcsi\nempty", "dcdi\n16k"]
        assert len(axes.patches) == 3
        assert axes.get_ylabel() == "pearson distance"

    def test_median_and_middle_half_are_those_of_the_distances(self):
        distances = make_distances()
        histograms = set_histograms(distances, ENCODER, 0, "pearson")
        bin_width = np.diff(histograms[0].edges)[0]

        axes = set_distributions(histograms).axes[0]

        half, median = axes.get_lines()[2:4]  # of the second set
        assert half.get_ydata() == pytest.approx(np.quantile(distances["scdi"], [0.25, 0.75]), abs=bin_width)
        assert median.get_ydata()[0] == pytest.approx(np.median(distances["scdi"]), abs=bin_width)

    def test_shapes_have_one_width_and_few_pairs_few_bins(self):
        axes = set_distributions(set_histograms(make_distances(), ENCODER, 0, "pearson")).axes[0]

        widths = [patch.get_path().vertices[:, 0].max() - at for at, patch in enumerate(axes.patches)]
        assert widths == pytest.approx([widths[0]] * 4)
        bins = [len(patch.get_data().values) for patch in axes.patches]
        assert bins[0] <= 2 * 80 ** (1 / 3) + 1 < bins[3]

    def test_layers_and_steps_have_a_panel_each(self):
        histograms = [row for step in (0, 4) for row in set_histograms(make_distances(step), FIRST, step, "euclidean")]

        figure = set_distributions(histograms)

        assert [axes.get_title() for axes in figure.axes] == ["down 2.0, step 1", "down 2.0, step 5"]

    def test_no_pairs_at_all_are_refused(self):
        with pytest.raises(UserError, match="no pairs"):
            set_distributions([])


class TestRetrieval:
    def test_right_and_wrong_are_told_by_sign_dashes_and_colour(self):
        query, right, wrong = retrieval_grid([make_retrieval("sphere cube")]).axes

        assert query.get_title() == "query: sphere"
        assert right.get_title() == f"{RIGHT} sphere  0.10"
        assert wrong.get_title() == f"{WRONG} cube  0.15"
        frames = [axes.spines["left"] for axes in (right, wrong)]
        assert frames[0].get_linestyle() != frames[1].get_linestyle()
        assert frames[0].get_edgecolor() != frames[1].get_edgecolor()

    def test_the_outline_lies_around_the_object_whatever_the_masks_resolution(self):
        example = make_retrieval("sphere")
        mask = np.zeros((4, 4), bool)
        mask[1:3, 2:] = True
        axes = retrieval_grid([replace(example, query=replace(example.query, mask=mask))]).axes[0]

        outline = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
        inside = outline[:, 0] >= 48 / 4
        assert inside.all()
        assert outline[:, 1].min() == pytest.approx(12, abs=6)
        assert outline[:, 1].max() == pytest.approx(36, abs=6)

    def test_no_example_is_refused(self):
        with pytest.raises(UserError, match="no retrieval example"):
            retrieval_grid([])


def test_figures_have_stable_names():
    places = [(layer, 0) for layer in (FIRST, SECOND)]
    found = separation_cells(
        [row for place in places for row in make_sets(*place)], [row for place in places for row in make_tests(*place)]
    )
    histograms = [row for layer, step in places for row in set_histograms(make_distances(), layer, step, "pearson")]

    figures = separation_figures(found, histograms, [make_retrieval("sphere cube")])

    assert set(figures) == {"distributions_pearson", "separation", "retrieval"}
    assert all(figure.draw().axes and figure.caption for figure in figures.values())
