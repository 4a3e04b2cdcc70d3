"""Probes at other steps: against one probe and one step after the other, and what is made of their scores."""

import numpy as np
import pytest
import torch

from diffprobe.analyses.similarity.transfer import TransferScores, shares, transfer_rows, transferred
from diffprobe.probes.bank import ProbeBank
from diffprobe.properties import Standardisation, as_properties
from diffprobe.properties.metrics import metric_named
from diffprobe.statistics.intervals import mean_intervals

STEPS, IMAGES = 3, 4


@pytest.fixture
def bank() -> ProbeBank:
    spread = {"depth": Standardisation(0.4, 0.2)}
    bank = ProbeBank({"layer": 5}, [0, 4, 9], ["saliency", "depth"], bias=True, standardisations=spread)
    bank.thresholds["saliency"]["layer"] = [0.3, 0.5, 0.6]
    return bank.requires_grad_(False)


def test_every_probe_is_scored_at_every_step_with_its_own_threshold(bank):
    random = torch.Generator().manual_seed(0)
    activation = torch.randn(STEPS, IMAGES, 5, 4, 4, generator=random)
    labels = torch.rand(IMAGES, 8, 8, generator=random)
    items = as_properties(["saliency", "depth"])
    targets = {"saliency": (labels > 0.5).float(), "depth": labels}
    prepared = {
        name: item.prepared(targets[name], bank.standardisations[name], {(4, 4)})[4, 4] for name, item in items.items()
    }
    found = transferred(bank, "layer", activation, prepared)
    for name, item in items.items():
        head = bank.head_of(name, "layer")
        assert head.bias is not None
        for trained in range(STEPS):
            for tested in range(STEPS):
                outputs = torch.einsum("oc,bchw->bohw", head.weight[trained], activation[tested])
                maps = item.decode(outputs + head.bias[trained, :, None, None], bank.standardisations[name])
                cuts = bank.thresholds[name]["layer"][trained : trained + 1] if item.binary else []
                expected = item.scores(maps[None], prepared[name], cuts)[item.headline][0]
                np.testing.assert_allclose(found[name][trained, tested], expected, atol=1e-6)


def made(values: np.ndarray, floor: float, metric: str = "spearman") -> TransferScores:
    return TransferScores(
        "layer", "depth", metric_named(metric), [0, 7], values, np.full(values.shape[-1], floor)
    )  # fmt: skip


def test_a_row_has_score_native_share_and_floor():
    random = np.random.default_rng(0)
    scores = np.array([[0.6, 0.2], [0.5, 0.8]])[..., None] + 0.02 * random.normal(size=(2, 2, 12))
    rows = {(row.step, row.tested_step): row for row in transfer_rows("pocket", "ridge", [made(scores, 0.3)])}
    row = rows[0, 7]
    assert (row.mean, row.native) == pytest.approx((scores[0, 1].mean(), scores[1, 1].mean()))
    assert row.share == pytest.approx(scores[0, 1].mean() / scores[1, 1].mean())
    assert row.share_low is not None
    assert row.share_high is not None
    assert row.share_low < 0.25 < row.share_high
    assert (row.floor, row.n) == (pytest.approx(0.3), 12)
    assert row.above_floor == pytest.approx(scores[0, 1].mean() - 0.3)
    assert row.above_floor_high is not None
    assert row.above_floor_high < 0
    assert (rows[7, 7].share, rows[7, 7].share_low, rows[7, 7].share_high) == pytest.approx((1, 1, 1))


def test_a_share_is_the_native_error_over_the_error():
    native, other = np.full((1, 8), 10.0), np.full((1, 8), 40.0)
    assert shares(other, native, metric_named("mean_angle"))[0] == pytest.approx(0.25)
    assert shares(other, native, metric_named("spearman"))[0] == pytest.approx(4)


def test_there_is_no_share_of_a_score_that_is_not_shown_to_be_above_0():
    random = np.random.default_rng(0)
    noise = random.normal(size=(1, 12))
    assert np.isnan(shares(noise, noise - noise.mean(), metric_named("spearman"))).all()


def test_a_share_has_no_interval_with_few_images_and_leaves_undefined_scores_out():
    values = np.array([[0.2, 0.3, 0.25, 0.3, np.nan, 0.2], [0.2, 0.3, 0.25, 0.3, 0.2, 0.2]])
    native = np.full_like(values, 0.5)
    share, low, high = shares(values, native, metric_named("spearman"))
    assert share == pytest.approx([0.5, 0.2417 / 0.5], abs=1e-3)
    assert np.isfinite(low).all()
    few = shares(values[:, :4], native[:, :4], metric_named("spearman"))
    assert np.isfinite(few[0]).all()
    assert np.isnan(few[1:]).all()
    mean = mean_intervals(values / 0.5)  # of a native score that is the same everywhere
    assert low == pytest.approx(mean.low, abs=1e-9)
    assert high == pytest.approx(mean.high, abs=1e-9)


def test_pixel_position_is_compared_on_the_same_images():
    values = np.full((2, 2, 8), 0.5)
    values[0, 1, 3] = np.nan
    found = made(values, 0.2).against_floor([(0, 1), (1, 0)])
    assert found is not None
    assert found.difference == pytest.approx([0.3, 0.3])
    assert found.p.max() == pytest.approx(2 / 2**7)  # of seven images
