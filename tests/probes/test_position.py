"""Pixel position alone: what it predicts, and that it is treated as probes are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffprobe.errors import UserError
from diffprobe.probes.controls import position_scores
from diffprobe.probes.one_pass import PositionLearner
from diffprobe.probes.score_table import score_table
from diffprobe.probes.splits import Split
from diffprobe.probes.summaries import summarise, summary_rows
from tests.probes.planted import label_maps
from tests.reference.score_rows import Score, rows_of, table_of
from tests.reference.scores import OF_LABELS, SCORES

SPLIT = Split(list(range(12)), list(range(12, 16)), list(range(16, 20)))
NAMES = [f"image_{row}" for row in range(20)]


def test_the_position_map_minimises_cross_entropy_and_squared_error() -> None:
    masks = label_maps(12)["saliency"]
    learner = PositionLearner(["saliency"])
    learner.add({}, {"saliency": masks[:5]})
    learner.add({}, {"saliency": masks[5:]})
    best = learner.solve().maps["saliency"]
    torch.testing.assert_close(best, masks.mean(0))

    def cross_entropy(map_: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy(map_.expand_as(masks), masks)

    def squared(map_: torch.Tensor) -> torch.Tensor:
        return (map_ - masks).square().mean()

    for loss in (cross_entropy, squared):
        for nudged in (best * 0.97 + 0.01, best * 0.98):
            assert loss(best) < loss(nudged)


def scored(*arguments, **options) -> list[Score]:
    return rows_of(score_table(position_scores(*arguments, **options)))


def test_position_scores_are_those_of_the_mean_training_map() -> None:
    targets = label_maps(20)
    targets["depth"] = targets["depth"].abs() + 1
    rows = rows_of(
        score_table(position_scores(targets, SPLIT, ["saliency", "depth"], names=NAMES, model="pocket", threshold=0.4))
    )
    assert len(rows) == (2 + 6) * (4 + 4)
    depth = targets["depth"]
    mean, std = depth[:12].mean(), depth[:12].std(correction=0)
    for row in rows:
        assert (row.layer, row.control, row.step, row.timestep, row.model) == (
            "position",
            "position",
            -1,
            None,
            "pocket",
        )
        image = NAMES.index(row.image)
        assert image in getattr(SPLIT, row.split)
        if row.property == "saliency":
            prediction, target = (targets["saliency"][:12].mean(0) > 0.4).float(), targets["saliency"][image]
        else:
            prediction, target = (depth[:12].mean(0) - mean) / std, (depth[image] - mean) / std
        target = depth[image] if row.metric in OF_LABELS else target
        assert row.value == pytest.approx(SCORES[row.metric](prediction.numpy(), target.numpy()), abs=1e-5)


def test_position_knows_a_fixed_layout_and_nothing_of_a_random_one() -> None:
    random = label_maps(20)
    fixed = {"saliency": random["saliency"][:1].repeat(20, 1, 1), "depth": random["depth"][:1].repeat(20, 1, 1)}
    fixed["depth"] = fixed["depth"] + 0.01 * torch.randn(20, 16, 16, generator=torch.Generator().manual_seed(0))
    means = []
    for targets in (fixed, random):
        rows = scored(targets, SPLIT, ["saliency", "depth"], names=NAMES, model="pocket")
        found = {(row.metric, row.split): row.mean for row in summary_rows(summarise(table_of(rows)))}
        means.append((found["dice", "test"], found["spearman", "test"]))
    (fixed_dice, fixed_depth), (random_dice, random_depth) = means
    assert fixed_dice == 1
    assert fixed_depth > 0.95  # type: ignore[operator]
    assert random_dice < 0.8  # type: ignore[operator]
    assert abs(random_depth) < 0.4  # type: ignore[arg-type]


def test_position_is_fitted_without_validation_and_test_images() -> None:
    targets, changed = label_maps(20), label_maps(20)
    changed["depth"][SPLIT.test] = changed["depth"][SPLIT.test].flip(0)
    changed["saliency"][SPLIT.test] = 1 - changed["saliency"][SPLIT.test]
    before, after = (
        [
            row
            for row in rows_of(
                score_table(position_scores(maps, SPLIT, ["saliency", "depth"], names=NAMES, model="pocket"))
            )
            if row.split == "validation"
        ]
        for maps in (targets, changed)
    )
    assert before == after


def test_the_position_threshold_is_chosen_on_validation_like_that_of_probes() -> None:
    targets = label_maps(20)

    def validation_dice(threshold) -> float:
        rows = rows_of(
            score_table(position_scores(targets, SPLIT, ["saliency"], names=NAMES, model="pocket", threshold=threshold))
        )
        values = [row.value for row in rows if row.split == "validation" and row.metric == "dice"]
        return sum(value or 0.0 for value in values) / len(values)

    chosen = validation_dice("validation")
    others = [validation_dice(round(0.05 * step, 2)) for step in range(1, 20)]
    assert chosen == pytest.approx(max(others))
    assert chosen > min(others)


def test_a_bad_threshold_is_refused() -> None:
    with pytest.raises(UserError, match="threshold"):
        rows_of(
            score_table(position_scores(label_maps(20), SPLIT, ["depth"], names=NAMES, model="pocket", threshold=2.0))
        )
