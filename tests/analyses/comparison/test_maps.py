"""The maps of several runs, and what is said of the same cell in all of them."""

import pytest

from diffprobe.analyses.comparison.maps import MANY, side_by_side
from diffprobe.analyses.comparison.runs import headline_scores
from diffprobe.files import NO_STEP
from tests.analyses.comparison.made_up_runs import IMAGES, make_object_run, make_run


def views_of(*runs):
    return side_by_side(runs, headline_scores(runs))


def test_every_layer_and_step_of_every_run_has_its_score_with_its_interval():
    runs = make_run("one"), make_run("two", 0.1)
    (view,) = views_of(*runs)
    assert view.title == "saliency"
    assert [(heat.title, heat.metric) for heat in view.maps] == [("one", "dice"), ("two", "dice")]
    for heat, run in zip(view.maps, runs, strict=True):
        rows = run.summaries.query("split == 'test'").set_index(["layer", "step"])
        assert set(heat.cells) == {(layer, step) for layer in "ab" for step in (0, 1)}
        for place, cell in heat.cells.items():
            wanted = rows.loc[place]
            assert (cell.value, cell.low, cell.high, cell.n) == (wanted["mean"], wanted["low"], wanted["high"], 20)


def test_the_difference_of_a_cell_is_of_the_images_that_both_runs_have():
    (view,) = views_of(make_run("one", 0.1), make_run("two", images=[*IMAGES[5:], "other"]))
    assert set(view.notes) == set(view.maps[0].cells)
    (line,) = view.notes["a", 0]
    assert line.startswith("one less two, on the 15 images in common: 0.10")
    assert "by chance" in view.caption


def test_runs_without_common_images_say_so_at_every_cell():
    (view,) = views_of(make_run("one"), make_run("two", images=["else"]))
    assert all("no test images in common" in line for lines in view.notes.values() for line in lines)


def test_of_many_runs_there_are_maps_and_no_differences():
    several = [make_run(f"run{number}") for number in range(4)]
    assert [len(lines) for lines in views_of(*several)[0].notes.values()] == [MANY] * 4
    (view,) = views_of(*several, make_run("one more"))
    assert (len(view.maps), view.notes, view.caption) == (5, {}, "")


def test_what_only_one_run_scores_has_no_maps():
    assert views_of(make_run("one"), make_object_run("objects", {"a": 0.6})) == []


def test_of_objects_every_layer_has_its_statistic_and_no_difference():
    (view,) = views_of(make_object_run("one", {"a": 0.6, "b": 0.9}), make_object_run("two", {"b": 0.7}))
    assert (view.title, view.notes) == ("objects (cosine)", {})
    one, two = (heat.cells for heat in view.maps)
    assert (one["b", 0].value, two["b", 0].value, set(two)) == (0.9, 0.7, {("b", 0)})
    assert (one["a", 0].low, one["a", 0].high) == pytest.approx((0.5, 0.7))
    assert NO_STEP not in {step for _, step in one}
