"""The grid of images, predictions and labels over steps."""

from dataclasses import replace

import numpy as np
import pytest

from diffprobe.errors import UserError
from diffprobe.report.grid import prediction_grid
from tests.report.made_up_run import make_example


def rows_of(figure, columns):
    return np.reshape(figure.axes, (-1, columns))


def test_columns_are_the_papers_steps_from_one_and_rows_the_image_and_the_properties(example):
    figure = prediction_grid(example)
    panels = rows_of(figure, 8)

    assert [axes.get_title() for axes in panels[0]] == [f"step {n}" for n in (1, 2, 3, 5, 8, 11, 15)] + [""]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["decoded image", "saliency", "depth", "shading"]
    assert [axes.get_ylabel() for axes in panels[:, -1]] == ["final image", "label", "label", "label"]
    assert figure.get_suptitle() == example.title


def test_each_panel_shows_its_own_step(example):
    panels = rows_of(prediction_grid(example, [0, 14]), 3)

    np.testing.assert_array_equal(panels[2, 1].images[0].get_array(), example.predictions["depth"][14])
    np.testing.assert_array_equal(panels[2, 2].images[0].get_array(), example.labels["depth"])
    np.testing.assert_array_equal(panels[0, 0].images[0].get_array(), example.images[0])
    np.testing.assert_array_equal(panels[0, 2].images[0].get_array(), example.final)


def test_a_row_has_one_range_of_colours_taken_from_the_label(example):
    panels = rows_of(prediction_grid(example), 8)

    assert {axes.images[0].get_clim() for axes in panels[1]} == {(0, 1)}
    assert {axes.images[0].get_clim() for axes in panels[2]} == {tuple(np.percentile(example.labels["depth"], [2, 98]))}


def test_predictions_of_any_resolution_cover_the_same_area_as_the_label(example):
    panels = rows_of(prediction_grid(example), 8)

    assert {tuple(axes.images[0].get_extent()) for axes in panels[1:].ravel()} == {(0, 32, 32, 0)}


def test_the_outline_of_the_salient_label_lies_over_every_saliency_prediction_only(example):
    panels = rows_of(prediction_grid(example), 8)

    assert [len(axes.collections) for axes in panels[1]] == [1] * 7 + [0]
    assert not any(axes.collections for axes in panels[2])


def test_an_image_without_anything_salient_is_drawn_too(example):
    empty = replace(example, labels={**example.labels, "saliency": np.zeros((32, 32))})

    assert not rows_of(prediction_grid(empty), 8)[1, 0].collections


def test_a_prompt_with_dollar_signs_is_printed_as_it_is(example, tmp_path):
    figure = prediction_grid(replace(example, title="a $5 bill beside a $_$ sign"), [0])

    figure.savefig(tmp_path / "grid.png")
    assert figure.get_suptitle() == "a $5 bill beside a $_$ sign"


@pytest.mark.parametrize(("steps", "shown"), [(4, [1, 2, 3, 4]), (1, [1])])
def test_a_short_trajectory_shows_all_its_steps(steps, shown):
    titles = [axes.get_title() for axes in prediction_grid(make_example(steps)).axes]

    assert [title for title in titles if title] == [f"step {n}" for n in shown]


def test_a_long_trajectory_shows_seven_steps_from_first_to_last():
    titles = [axes.get_title() for axes in prediction_grid(make_example(31, size=8)).axes]

    assert [title for title in titles if title] == [f"step {n}" for n in (1, 6, 11, 16, 21, 26, 31)]


def test_a_step_that_is_not_there_is_refused(example):
    with pytest.raises(UserError, match=r"\[99\]"):
        prediction_grid(example, [0, 99])


def test_an_example_whose_arrays_disagree_on_the_steps_is_refused(example):
    with pytest.raises(UserError, match="'depth' of 'a red sphere"):
        replace(example, predictions={"depth": example.predictions["depth"][:3]})
