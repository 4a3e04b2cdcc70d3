"""The plan counts what a run will do and refuses what does not fit."""

import pytest

from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.features.plan import Plan, check_room, plan_pass

LAYERS = [Layer("a", "resnet", "encoder", 3, 4, 5), Layer("b", "resnet", "decoder", 2, 2, 2)]


def test_every_image_and_step_is_one_evaluation_and_one_more_for_each_control_network():
    assert plan_pass(10, 15, range(15), LAYERS, "float16", 0).evaluations == 150
    assert plan_pass(10, 15, [0, 14], LAYERS, "float16", 1).evaluations == 170


def test_bytes_are_those_of_the_kept_activations():
    plan = plan_pass(10, 15, [0, 14], LAYERS, "float16", 0)
    assert plan.bytes == 10 * 2 * (3 * 4 * 5 + 2 * 2 * 2) * 2
    assert plan_pass(10, 15, [0, 14], LAYERS, "float32", 0).bytes == 2 * plan.bytes


def test_sizes_are_told_in_the_largest_unit_that_fits():
    assert [Plan(1, 1, size).size for size in (999, 12_300, 4_560_000_000)] == ["999 B", "12.3 KB", "4.56 GB"]


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_what_does_not_fit_is_refused_before_work(tmp_path, store):
    check_room(Plan(1, 1, 1000), store, tmp_path)
    with pytest.raises(UserError, match=rf"1e\+03 TB of {store}"):
        check_room(Plan(617, 1, 10**15), store, tmp_path)


def test_unknown_stores_and_dtypes_are_named(tmp_path):
    with pytest.raises(UserError, match="choose one of memory, disk"):
        check_room(Plan(1, 1, 1), "tape", tmp_path)
    with pytest.raises(UserError, match="float64"):
        plan_pass(1, 1, [0], LAYERS, "float64", 0)
