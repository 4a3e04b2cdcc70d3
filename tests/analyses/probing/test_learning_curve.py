from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffprobe.analyses.probing.learning_curve import (
    LearningCurve,
    check_sizes,
    learning_curve,
    nested_splits,
    read_learning_curve,
)
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.properties import property_named
from diffprobe.probes.score_table import select
from diffprobe.probes.splits import Split
from diffprobe.probes.summaries import write_summary
from tests.probes.planted import DEEP, TELLING_CHANNEL, label_maps, planted
from tests.reference.score_rows import cells_of, rows_of

SPLIT = Split(list(range(12)), [12, 13], list(range(14, 20)))


class MeanFit:
    """A stand-in for a solver: reads depth off the telling channel, and the better the more images it gets."""

    def __init__(self) -> None:
        self.seen: list[Split] = []

    def __call__(self, activations, targets, split, properties, probe_config, *, seed) -> ProbeBank:  # type: ignore[no-untyped-def]
        self.seen.append(split)
        channels = {layer.name: layer.channels for layer in activations.layers}
        statistics = {name: property_named(name).standardisation(targets[name][split.train]) for name in properties}
        bank = ProbeBank(channels, activations.steps, properties, standardisations=statistics)
        with torch.no_grad():
            weight = bank.weight("depth", DEEP)
            weight.zero_()
            weight[..., TELLING_CHANNEL] = 1
            weight[..., 0] = 60 / len(split.train)
        return bank.requires_grad_(False)


def made(sizes: list[int]) -> tuple[LearningCurve, MeanFit]:
    targets = label_maps(20)
    fit = MeanFit()
    activations = planted(20, targets, steps=2)
    return learning_curve(activations, targets, SPLIT, ["depth"], sizes, model="pocket", fit=fit), fit


def test_subsets_are_nested_seeded_and_leave_validation_and_test_alone() -> None:
    splits = nested_splits(SPLIT, [12, 3, 7], seed=1)
    assert list(splits) == [3, 7, 12]
    assert set(splits[3].train) < set(splits[7].train) < set(splits[12].train) == set(SPLIT.train)
    assert {(*part.validation, -1, *part.test) for part in splits.values()} == {(*SPLIT.validation, -1, *SPLIT.test)}
    assert nested_splits(SPLIT, [3], seed=1)[3] == splits[3] != nested_splits(SPLIT, [3], seed=2)[3]


def test_every_size_is_scored_on_the_same_test_images_beside_pixel_position() -> None:
    found, fit = made([4, 12])
    assert [len(split.train) for split in fit.seen] == [4, 12]
    assert set(found.points[["images", "control"]].itertuples(index=False, name=None)) == {
        (size, control) for size in (4, 12) for control in ("none", "position")
    }
    tested = [set(select(scores, split="test")["image"]) for scores in found.scores.values()]
    assert tested == [{f"image_{row}" for row in SPLIT.test}] * 2


def test_a_point_is_the_mean_of_the_scores_of_its_size() -> None:
    found, _ = made([4, 12])
    keys = ("none", DEEP, 1, "spearman", "test")
    means = {}
    for row in found.points.itertuples():
        if (row.control, row.layer, row.step, row.metric, row.split) == keys:
            means[row.images] = row.mean
            assert row.low <= row.mean <= row.high  # type: ignore[operator]
    for size, rows in found.scores.items():
        values = [r.value for r in rows_of(rows) if (r.control, r.layer, r.step, r.metric, r.split) == keys]
        assert means[size] == pytest.approx(sum(values) / 6)  # type: ignore[arg-type]
    assert means[12] > means[4]  # type: ignore[operator]


def test_the_bank_of_the_recipe_is_trained_where_nothing_else_is_given() -> None:
    targets = label_maps(20)
    probe_config = ProbeConfig(name="short", epochs=2)
    activations = planted(20, targets, steps=2)
    found = learning_curve(activations, targets, SPLIT, ["depth"], [6], model="pocket", probe_config=probe_config)
    assert set(found.points["probe"]) == {"short"}


@pytest.mark.parametrize("sizes", [[], [0], [4, 13], [2.5], [True]])
def test_sizes_that_are_not_there_are_refused(sizes: list[int]) -> None:
    with pytest.raises(UserError, match="numbers from 1 to 12"):
        check_sizes(sizes, 12)


def test_points_come_back_from_their_file(tmp_path: Path) -> None:
    points = made([4])[0].points
    write_summary(tmp_path / "learning_curve.csv", points)
    assert cells_of(read_learning_curve(tmp_path / "learning_curve.csv")) == cells_of(points)
    assert (tmp_path / "learning_curve.csv").read_text().splitlines()[0].endswith("mean,low,high,n,images")
