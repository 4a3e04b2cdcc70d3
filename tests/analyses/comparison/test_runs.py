"""The headline scores of finished runs, and what runs are called."""

import pytest

from diffprobe.analyses.comparison.runs import FinishedRun, headline_scores, labels_of, run_labels, scores_of
from diffprobe.errors import UserError
from tests.analyses.comparison.made_up_runs import make_object_run, make_run, score


def test_the_layer_is_chosen_on_validation_images_and_told_at_the_last_step():
    (row,) = headline_scores([make_run("one")])
    assert (row.run, row.what, row.metric, row.layer, row.step, row.n) == ("one", "saliency", "dice", "b", 1, 20)
    assert row.mean == pytest.approx(0.7 + 0.005 * 19 / 20)


def test_of_objects_the_highest_statistic_is_told_with_its_interval():
    (row,) = headline_scores([make_object_run("objects", {"a": 0.6, "b": 0.9, "d": 0.7})])
    assert (row.what, row.metric, row.layer, row.mean) == ("objects (cosine)", "AUC of scdi < dcdi", "b", 0.9)
    assert (row.low, row.high) == pytest.approx((0.8, 1.0))


def test_a_run_with_nothing_to_compare_is_refused():
    with pytest.raises(UserError, match="the run empty has no scores"):
        headline_scores([FinishedRun("empty")])


def test_rows_of_one_run_are_told_apart_by_model_and_probe():
    assert labels_of([score("one"), score("one", probe="mlp"), score("two")]) == [
        "one, pocket, linear",
        "one, pocket, mlp",
        "two",
    ]


def test_scores_of_all_runs_have_the_runs_name_in_place_of_the_model():
    runs = [make_run("one", model="x"), make_run("two", model="y"), make_object_run("objects", {"a": 0.5})]
    assert run_labels(runs) == {("one", "x"): "one", ("two", "y"): "two"}
    found = scores_of(runs, {"a"}, property="saliency")
    assert set(found["model"]) == {"one", "two"}
    assert (set(found["layer"]), set(found["split"]), len(found)) == ({"a"}, {"test"}, 2 * 2 * 20)
