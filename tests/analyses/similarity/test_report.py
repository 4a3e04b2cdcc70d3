"""What is said and drawn of CKA and of probes at other steps."""

from __future__ import annotations

import numpy as np
import pytest

from diffprobe.analyses.similarity.cka import Similarities, hsic, normalised
from diffprobe.analyses.similarity.figures import shown_better, similarity_figures
from diffprobe.analyses.similarity.findings import (
    cka_lines,
    cka_rows,
    closing_tables,
    steps_on_grids_of_pairs,
    transfer_lines,
)
from diffprobe.analyses.similarity.transfer import TransferScores, transfer_rows
from diffprobe.backbone.layers import Layer
from diffprobe.probes.summaries import EmergenceStep
from diffprobe.properties.metrics import metric_named
from diffprobe.report.choices import LayerChoice

LAYERS = [
    Layer("up_blocks.2.resnets.0", "resnet", "decoder", 6, 4, 4),
    Layer("up_blocks.3.resnets.0", "resnet", "decoder", 4, 8, 8),
]
STEPS = [0, 5, 9]


def similarities(images: int = 12, *, drift: float = 0.5) -> Similarities:
    """Of two layers that have nothing in common, and drift over three steps."""
    random = np.random.default_rng(0)
    conditions = []
    for layer in LAYERS:
        values = random.normal(size=(images, 4, layer.channels))
        for _ in STEPS:
            conditions.append(values)
            values = (values + drift * random.normal(size=values.shape)) / (1 + drift)
    found = hsic(conditions)
    return Similarities(normalised(found.unbiased), normalised(found.without), normalised(found.biased))


def scores(means, images: int = 12, metric: str = "dice", floor: float = 0.4) -> TransferScores:
    """Of means [trained steps, tested steps], on the second layer."""
    noise = 0.01 * np.random.default_rng(1).normal(size=(3, 3, images))
    values = np.array(means)[..., None] + noise
    return TransferScores(LAYERS[1].name, "saliency", metric_named(metric), STEPS, values, np.full(images, floor))


KEEPS = [[0.5, 0.8, 0.6], [0.45, 0.85, 0.88], [0.2, 0.8, 0.9]]


def lines(one: TransferScores) -> list[str]:
    return transfer_lines(one, transfer_rows("pocket", "ridge", [one]))


def test_every_pair_of_conditions_has_one_row_on_the_coarser_grid():
    found = similarities()
    rows = cka_rows("pocket", LAYERS, STEPS, found)
    assert len(rows) == 6 * 5 / 2
    assert {(row.layer != row.other_layer, row.height) for row in rows} == {(False, 4), (False, 8), (True, 4)}
    first = rows[0]
    assert (first.step, first.other_step, first.n) == (0, 5, 12)
    assert first.value == found.value[0, 1]
    assert first.low is not None
    assert first.high is not None
    assert first.low < found.value[0, 1] < first.high <= 1


def test_neighbours_are_told_with_which_are_more_alike():
    first, second = cka_lines(LAYERS, STEPS, similarities())
    assert first.startswith("Neighbouring steps of a layer have a mean CKA of 0.")
    assert ", neighbouring layers at one step have a mean CKA of " in first
    assert ": on the same grids the steps are more alike, by 0." in first
    assert second.startswith("Step 1 and step 10 of one layer have a CKA: up 2.0 0.")
    unlike = cka_lines(LAYERS, STEPS, similarities(drift=1000))[0]
    assert "neither are shown to be more alike (difference " in unlike


def test_layers_are_held_against_steps_of_the_coarser_one():
    assert steps_on_grids_of_pairs(LAYERS, 3) == [(0, 1), (1, 2)]
    assert steps_on_grids_of_pairs(LAYERS[::-1], 3) == [(3, 4), (4, 5)]
    found = similarities()
    wanted = found.mean([(0, 1), (1, 2)], [(0, 3), (1, 4), (2, 5)])
    assert f"by {wanted.value:.2f} [" in cka_lines(LAYERS, STEPS, found)[0]


def test_few_images_have_no_interval_and_no_verdict():
    *told, last = cka_lines(LAYERS, STEPS, similarities(4))
    assert "neither are said to be more alike" in told[0]
    assert not any("[" in line for line in told)
    assert last == "4 images are too few for intervals of CKA, it takes 5."
    first, second, third = lines(scores(KEEPS, images=4))
    assert "at step 10, 4 images are too few to tell which probe is the first" in third
    assert "has no verdict, which takes 7 images, against pixel position (0.40)" in first
    assert "[" not in first + second + third


def test_layers_are_compared_where_one_step_was_taken_and_steps_where_one_layer_was():
    whole = similarities()
    at = np.ix_([0, 3], [0, 3])
    one_step = Similarities(whole.value[at], whole.without[:, *at], whole.biased[at])
    (line,) = cka_lines(LAYERS, STEPS[:1], one_step)
    assert line.startswith("Neighbouring layers at one step have a mean CKA of ")
    one_layer = Similarities(whole.value[:3, :3], whole.without[:, :3, :3], whole.biased[:3, :3])
    first, second = cka_lines(LAYERS[:1], STEPS, one_layer)
    assert "layers" not in first
    assert second.startswith("Step 1 and step 10")


def test_probes_of_the_first_and_last_step_are_told_at_each_other_with_the_floor():
    first, second, third = lines(scores(KEEPS))
    assert first.startswith(f"saliency: at step 10 the probe of step 1 on {LAYERS[1].name} has Dice 0.60 [")
    assert ", 0.67 [" in first
    assert " of that of step 10's own probe, and is above pixel position (0.40 [0.40, 0.40])." in first
    assert second.startswith("saliency: at step 1 the probe of step 10 on ")
    assert ", and is below pixel position" in second
    assert (
        third == "saliency: at step 10 the first probe to reach 95 % of its own probe's score is that of step 6 [6, 6]."
    )


def test_errors_are_told_the_other_way_round():
    one = scores([[20.0, 30.0, 60.0], [20.0, 15.0, 25.0], [70.0, 15.0, 10.0]], metric="mean_angle", floor=40.0)
    first, _, third = lines(one)
    assert "has mean angular error (°) (lower is better) 60.00 [" in first
    assert "of which that of step 10's own probe is 0.17 [" in first
    assert "and is above pixel position" in first
    assert third.startswith("saliency: at step 10 no probe of an earlier step reaches 105 % of its own probe's error (")
    (row,) = (row for row in transfer_rows("pocket", "ridge", [one]) if (row.step, row.tested_step) == (9, 5))
    assert shown_better(row)


def test_a_layer_that_knows_nothing_has_no_share_and_no_step():
    one = scores(np.zeros((3, 3)))
    first, _, third = lines(TransferScores(one.layer, one.property, one.metric, STEPS, one.values * 0, one.floor))
    assert "has Dice 0.00 [" in first
    assert "], and is below pixel position" in first
    assert third == "saliency: at step 10 its own probe has no score that is shown to be above 0."


def test_the_console_has_a_row_a_layer_and_both_directions_of_each_property():
    one = scores(KEEPS)
    choice = LayerChoice("pocket", "ridge", "saliency", "dice", one.layer, EmergenceStep(None, None, None))
    tables = closing_tables(LAYERS, STEPS, similarities(), transfer_rows("pocket", "ridge", [one]), [choice])
    text = tables["closing"].text
    assert text is not None
    assert text["layer"].tolist() == ["up 2.0", "up 3.0"]
    assert text["next layer"].tolist()[1] == ""
    text = tables["closing transfer"].text
    assert text is not None
    assert text["probe at step"].tolist() == ["1 at 10", "10 at 1"]
    assert text["share"].str.startswith(("0.67 [", "0.39 [")).all()


@pytest.mark.parametrize("metric", ["dice", "mean_angle"])
def test_every_cell_is_drawn_and_what_is_no_better_than_the_floor_is_pale(metric):
    one = scores(KEEPS, metric=metric)
    there = TransferScores(LAYERS[0].name, one.property, one.metric, STEPS, one.values, one.floor)
    found, rows = similarities(), transfer_rows("pocket", "ridge", [there, one])
    figures = similarity_figures(LAYERS, STEPS, found, rows)
    assert list(figures) == ["cka", "transfer_saliency", "transfer_saliency_scores"]
    matrix = figures["cka"].draw().axes[0]
    np.testing.assert_allclose(matrix.collections[0].get_array(), found.value)
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["up 2.0  4×4", "up 3.0  8×8"]  # noqa: RUF001
    for name, field in (("transfer_saliency", "share"), ("transfer_saliency_scores", "mean")):
        panels = figures[name].draw().axes[:2]
        assert [panel.get_title() for panel in panels] == ["up 2.0", "up 3.0"]
        values, veil = panels[1].collections
        own = [row for row in rows if row.layer == LAYERS[1].name]
        np.testing.assert_allclose(values.get_array().ravel(), [getattr(row, field) for row in own])
        pale = np.ravel(veil.get_alpha()) > 0
        assert pale.tolist() == [not shown_better(row) for row in own]
        assert 0 < pale.sum() < 9


def test_one_layer_and_one_step_are_drawn():
    whole = similarities()
    one_layer = Similarities(whole.value[:3, :3], whole.without[:, :3, :3], whole.biased[:3, :3])
    drawn = similarity_figures(LAYERS[:1], STEPS, one_layer, [])["cka"].draw()
    assert drawn.axes[0].get_title() == "up 2.0"
