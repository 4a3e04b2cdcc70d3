"""Selectivity is what a probe owes to its activations: none where labels do not depend on the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffprobe.errors import UserError
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.controls import selectivity, shuffled_targets
from diffprobe.probes.score_table import score_table
from diffprobe.probes.scoring import score_bank
from diffprobe.probes.splits import split_images
from diffprobe.probes.summaries import Summary, summary_rows
from diffprobe.statistics.intervals import skewed_t
from tests.probes.planted import DEEP, label_maps, planted
from tests.reference.score_rows import Score, table_of

REAL = [0.9, 0.8, 0.6, None, 0.7]
SHUFFLED = [0.1, 0.4, None, 0.2, -0.1]


def rows(control: str, values: list[float | None], **changes) -> list[Score]:
    row = Score("tiny", "layer", 0, 999.0, "depth", "linear", control, "test", "", "spearman", None)
    return [replace(row, image=f"image_{at}", value=value, **changes) for at, value in enumerate(values)]


def selective(scores: list[Score]) -> list[Summary]:
    return summary_rows(selectivity(table_of(scores)))


def test_selectivity_is_the_mean_difference_of_images_that_have_both_scores() -> None:
    (found,) = selective(rows("none", REAL) + rows("permuted", REAL) + rows("labels", SHUFFLED))
    assert found.mean == pytest.approx((0.8 + 0.4 + 0.8) / 3)
    assert (found.n, found.control, found.layer, found.step) == (3, "selectivity", "layer", 0)


def test_its_interval_is_that_of_the_differences_and_may_be_beyond_one() -> None:
    real, shuffled = np.array([1.0, 0.9, 0.8, 0.9, 1.0]), np.array([-0.4, -0.5, 0.2, 0.1, -0.4])
    (found,) = selective(rows("none", real.tolist()) + rows("labels", shuffled.tolist()))
    differences = real - shuffled
    low, high = skewed_t(differences.mean(), (differences - differences.mean()))
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))
    assert found.high > 1  # type: ignore[operator]


def test_keys_are_kept_apart_and_rows_are_paired_by_image_not_by_place() -> None:
    scores = rows("labels", [0.0, 0.5], step=1) + rows("none", [1.0, 1.0]) + rows("labels", [0.4, 0.8])
    scores += rows("none", [0.3, 0.9], step=1)[::-1]
    found = {row.step: row.mean for row in selective(scores)}
    assert found == pytest.approx({1: (0.3 + 0.4) / 2, 0: (0.6 + 0.2) / 2})


def test_scores_without_a_partner_are_refused() -> None:
    with pytest.raises(UserError, match="run with the control 'labels'"):
        selective(rows("none", REAL))
    with pytest.raises(UserError, match=r"2 scores .* the first is tiny / layer / 0 / depth / linear / test / image_3"):
        selective(rows("none", REAL[:3]) + rows("labels", SHUFFLED))


def test_a_probe_is_selective_where_activations_tell_the_labels_and_not_where_they_do_not() -> None:
    targets, split = label_maps(40), split_images(40)
    activations = planted(40, targets, steps=2, first_step=1)
    probe_config = ProbeConfig(epochs=10, learning_rates={"depth": 0.02})
    scores = []
    for control, labels in (("none", targets), ("labels", shuffled_targets(targets, split))):
        bank = train_bank(activations, labels, split, ["depth"], probe_config)
        scores += score_bank(bank, activations, labels, split, model="planted", control=control)
    rows = summary_rows(selectivity(score_table(scores)))
    found = {row.step: row for row in rows if (row.layer, row.metric, row.split) == (DEEP, "spearman", "test")}
    assert found[1].low > 0.5  # type: ignore[operator]
    assert found[0].low < 0.15  # type: ignore[operator]
    assert found[0].high > -0.15  # type: ignore[operator]
