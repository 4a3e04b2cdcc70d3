"""The same bank trained on more and more images, judged on the same test images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from diffprobe.analyses.probing.learning_curve import COLUMNS, check_sizes, learning_curve, nested_splits
from diffprobe.errors import UserError
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.score_table import read_csv, select
from diffprobe.probes.splits import Split
from diffprobe.probes.study.study import ProbingConfig, fit_bank
from diffprobe.properties import property_named
from diffprobe.properties.categorical import Categorical
from tests.probes.planted import DEEP, TELLING_CHANNEL, label_maps, planted
from tests.reference.score_rows import cells_of

CONFIG = ProbingConfig([], [0, 1], properties=["depth"])
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


def made(sizes: list[int]) -> tuple[pd.DataFrame, MeanFit]:
    targets, fit = label_maps(20), MeanFit()
    activations = planted(20, targets, steps=2)
    return learning_curve(activations, targets, SPLIT, CONFIG, sizes, model="pocket", fit=fit), fit


def test_subsets_are_nested_seeded_and_leave_validation_and_test_alone() -> None:
    splits = nested_splits(SPLIT, [12, 3, 7], seed=1)
    assert list(splits) == [3, 7, 12]
    assert set(splits[3].train) < set(splits[7].train) < set(splits[12].train) == set(SPLIT.train)
    assert {(*part.validation, -1, *part.test) for part in splits.values()} == {(*SPLIT.validation, -1, *SPLIT.test)}
    assert nested_splits(SPLIT, [3], seed=1)[3] == splits[3] != nested_splits(SPLIT, [3], seed=2)[3]


def test_every_size_is_scored_on_the_same_test_images_beside_pixel_position() -> None:
    points, fit = made([4, 12])
    assert [len(split.train) for split in fit.seen] == [4, 12]
    assert set(points[["images", "control"]].itertuples(index=False, name=None)) == {
        (size, control) for size in (4, 12) for control in ("none", "position")
    }
    assert set(select(points, split="test", metric="spearman")["n"]) == {len(SPLIT.test)}


def test_more_images_give_a_better_score_with_its_interval() -> None:
    points, _ = made([4, 12])
    keys = {"control": "none", "layer": DEEP, "step": 1, "metric": "spearman", "split": "test"}
    rows = select(points, **keys)
    assert ((rows["low"] <= rows["mean"]) & (rows["mean"] <= rows["high"])).all()
    assert select(rows, images=12)["mean"].item() > select(rows, images=4)["mean"].item()


def test_the_bank_has_the_name_of_its_probe_config() -> None:
    targets = label_maps(20)
    config = replace(CONFIG, probe_config=ProbeConfig(name="short", epochs=2))
    points = learning_curve(planted(20, targets, steps=2), targets, SPLIT, config, [6], model="pocket", fit=train_bank)
    assert set(points["probe"]) == {"short"}


@pytest.mark.parametrize("sizes", [[0], [4, 13]])
def test_sizes_that_are_not_there_are_refused(sizes: list[int]) -> None:
    with pytest.raises(UserError, match="numbers from 1 to 12"):
        check_sizes(sizes, "memory", SPLIT)


def test_no_sizes_are_no_curve_and_need_no_activations() -> None:
    check_sizes([], "none", SPLIT)
    with pytest.raises(UserError, match="features=none cannot"):
        check_sizes([4], "none", SPLIT)


def test_points_come_back_from_their_file(tmp_path: Path) -> None:
    points = made([4])[0]
    points.to_csv(tmp_path / "learning_curve.csv", index=False)
    assert cells_of(read_csv(tmp_path / "learning_curve.csv", COLUMNS)) == cells_of(points)
    assert (tmp_path / "learning_curve.csv").read_text().splitlines()[0].endswith("mean,low,high,n,images")


def test_classes_and_vectors_have_curves_of_their_own_scores() -> None:
    depth = label_maps(20)["depth"]
    near = (depth > depth.flatten(1).mean(1)[:, None, None]).float()
    leaning = torch.stack([depth - depth.mean(), torch.zeros_like(depth), torch.ones_like(depth)], 1)
    targets = {"side": near, "normals": leaning}
    side = Categorical("side", classes=("far", "near"))
    config = ProbingConfig([], [0, 1], properties=[side, "normals"], probe_config=ProbeConfig(solver="ridge"))
    activations = planted(20, label_maps(20), steps=2)
    points = learning_curve(activations, targets, SPLIT, config, [3, 12], model="pocket", fit=fit_bank)
    for name, metric, sign in (("side", "mean_iou", 1), ("normals", "mean_angle", -1)):
        rows = select(points, property=name, metric=metric, split="test", layer=DEEP, step=1, control="none")
        assert sorted(rows["images"]) == [3, 12]
        assert (rows["low"] <= rows["mean"]).all()
        position = select(points, property=name, metric=metric, split="test", control="position", images=12)
        better = sign * (select(rows, images=12)["mean"].item() - position["mean"].item())
        assert better > 0
