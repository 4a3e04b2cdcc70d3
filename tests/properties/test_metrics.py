"""Scores are what their names say: their range, which way is better, and which one chooses layers."""

from __future__ import annotations

import itertools

import pytest
import torch

from diffprobe.properties import PROPERTIES, CustomProperty, Property
from diffprobe.properties.metrics import METRICS, headline_of, metric_named

ITEMS = {
    **PROPERTIES,
    "flow": CustomProperty("flow", "vector", channels=2, unit=False).properties[0],
    "height": CustomProperty("height", "continuous").properties[0],
    "parts": CustomProperty("parts", "categorical", classes=["left leg", "rmse", "dice"], ignore=9).properties[0],
}


def labels_of(item: Property, seed: int) -> torch.Tensor:
    """Label maps [12, 8, 8] of no structure, of vectors [12, channels, 8, 8]."""
    random = torch.Generator().manual_seed(seed)
    if item.kind == "vector":
        return torch.randn(12, item.outputs, 8, 8, generator=random)
    if item.kind in ("binary", "categorical"):
        return torch.randint(max(item.outputs, 2), (12, 8, 8), generator=random).float()
    return torch.rand(12, 8, 8, generator=random)


def scores_of(item: Property, *, right: bool) -> dict[str, torch.Tensor]:
    """All scores of predictions [1, 12, ...]: the labels themselves, or labels of other images."""
    target = item.target(labels_of(item, 0))
    standardisation = item.standardisation(target)
    other = target if right else item.target(labels_of(item, 1))
    prepared = item.prepared(target, standardisation, [(8, 8)])[8, 8]
    return dict(item.scores(item.of_labels(other, standardisation)[None], prepared, [0.5]))


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_the_headline_is_the_same_whatever_the_order_of_a_table(item):
    assert headline_of(item.metrics) == headline_of(item.metrics[::-1]) == headline_of(sorted(item.metrics))
    assert headline_of(item.metrics) == item.headline


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_every_score_is_in_its_range_and_best_where_the_prediction_is_the_label(item):
    right, wrong = scores_of(item, right=True), scores_of(item, right=False)
    assert set(right) == set(wrong) == set(item.metrics)
    for name in item.metrics:
        metric = metric_named(name)
        for values in (right[name], wrong[name]):
            known = values[~values.isnan()]
            assert len(known)
            assert metric.low - 1e-9 <= known.min() <= known.max() <= metric.high + 1e-9
        if not name.startswith("union "):  # an area, of which neither way is better
            assert metric.sign * float(right[name].nanmean() - wrong[name].nanmean()) > 0


def test_scores_of_a_class_are_named_after_it_and_keep_their_range():
    for first, name in itertools.product(("dice", "overlap", "union"), ("left leg", "rmse", "mean_angle")):
        metric, general = metric_named(f"{first} {name}"), METRICS[first]
        assert metric.label == f"{general.label} of {name}"
        assert (metric.name, metric.low, metric.high, metric.sign) == (f"{first} {name}", 0, 1, 1)


@pytest.mark.parametrize("name", ["my own", "my_own", "dice ", "", " dice"])
def test_a_score_of_no_known_name_has_no_range(name):
    metric = metric_named(name)
    assert (metric.name, metric.low, metric.high, metric.sign) == (name, -float("inf"), float("inf"), 1)


def test_where_no_headline_is_known_the_first_is_taken():
    assert headline_of(["mine", "yours"]) == "mine"
    assert headline_of(["mine", "top5", "top1"]) == "top1"
