"""Drift and video: curves, and what is said of them."""

from dataclasses import replace

import pytest

from diffprobe.analyses.drift.report import drift_curves, drift_figures, drift_lines, video_curves
from diffprobe.errors import UserError
from diffprobe.report.style import SET_LABELS, SET_STYLES
from tests.report.made_up_analysis import MEANS, make_drift, make_video


def curve(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line


def test_one_panel_a_change_with_the_object_over_strength_and_the_sets_as_levels():
    figure = drift_curves(make_drift({"shift": [0.2, 0.1], "rotation": [30, 90, 180]}))

    rotation, shift = [axes for axes in figure.axes if axes.get_title()]
    assert (rotation.get_title(), rotation.get_xlabel()) == ("rotation", "degrees")
    own = curve(rotation, SET_LABELS["self"])
    assert list(own.get_xdata()) == [30, 90, 180]
    assert list(own.get_ydata()) == pytest.approx([0.1875, 0.325, 0.4625])
    assert list(curve(shift, SET_LABELS["self"]).get_xdata()) == [0.1, 0.2]
    assert set(curve(rotation, SET_LABELS["dcdi"]).get_ydata()) == {MEANS["dcdi"]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(SET_LABELS.values())[:5]


def test_a_single_strength_shows_its_interval():
    axes = drift_curves(make_drift({"flip": [1]})).axes[0]

    (whisker,) = [lines for lines in axes.collections if lines.get_label().startswith("_child") and
                  len(lines.get_paths()[0].vertices) == 2]  # fmt: skip
    assert whisker.get_paths()[0].vertices[:, 1].tolist() == pytest.approx([0.1575, 0.2175])


def test_no_two_sets_share_colour_dashes_or_marker():
    for field in ("colour", "dashes", "marker"):
        assert len({getattr(look, field) for look in SET_STYLES.values()}) >= len(SET_STYLES) - (field == "dashes")


def test_video_has_distances_and_accuracy_over_the_gap():
    distances, accuracy = video_curves(make_video([1, 5, 2])).axes

    assert list(curve(distances, SET_LABELS["self"]).get_xdata()) == [1, 2, 5]
    assert list(accuracy.get_lines()[0].get_ydata()) == pytest.approx([0.98, 0.88, 0.93])
    assert accuracy.get_ylim()[0] == 0


def test_nothing_to_draw_is_refused():
    with pytest.raises(UserError, match="change of the image"):
        drift_curves(make_video([1]))
    with pytest.raises(UserError, match="they come from video"):
        video_curves(make_drift({"flip": [1]}))


def test_the_furthest_drift_and_the_pairs_it_may_be_confused_with_are_told():
    (line,) = drift_lines(make_drift({"rotation": [30, 90, 180, 60]}))

    assert line == (
        "encoder16, step 1 (pocket, pearson): rotation: objects move most at 60, by 0.60 [0.57, 0.63]; an object stays "
        "nearer to itself than two objects of one class in one image are to each other in at least 0.69 of cases "
        "(lowest at 60)."
    )


def test_reidentification_is_told_at_the_smallest_and_the_largest_gap():
    lines = drift_lines(make_video([2, 1, 8]))

    assert lines[-1].endswith(
        "at a gap of 1 between frames the nearest instance is the same one in 0.93 [0.88, 0.95] of cases, at 8 in "
        "0.88 [0.83, 0.90]."
    )


def test_means_without_intervals_are_drawn_and_told_all_the_same():
    rows = [replace(row, low=None, high=None) for row in [*make_drift({"flip": [1]}), *make_video([1, 2])]]

    flip, distances = drift_curves(rows).axes[0], video_curves(rows).axes[0]

    assert curve(flip, SET_LABELS["scdi"]).get_ydata()[0] == MEANS["scdi"]
    assert list(curve(distances, SET_LABELS["other"]).get_ydata()) == pytest.approx([0.6, 0.602])
    assert "in 0.98 of cases, at 2 in 0.93." in drift_lines(rows)[-1]


def test_figures_have_stable_names():
    figures = drift_figures([*make_drift({"flip": [1]}), *make_video([1, 2])])
    assert set(figures) == {"drift_pocket_encoder16_step1_pearson", "video_pocket_encoder16_step1_pearson"}
    assert all(figure.draw().axes and figure.caption for figure in figures.values())
