from __future__ import annotations

import numpy as np
import pytest
import torch

from diffprobe.errors import UserError
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.score_table import score_table
from diffprobe.probes.scoring import THRESHOLDS, choose_thresholds, predict_maps, score_bank
from diffprobe.probes.splits import Split
from diffprobe.probes.summaries import best_layer, emergence_step, summarise, summary_rows
from diffprobe.properties import Standardisation
from diffprobe.properties.binary import areas_at_thresholds
from diffprobe.properties.tokens import pool_target
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise, planted
from tests.reference.score_rows import rows_of
from tests.reference.scores import OF_LABELS, SCORES, dice, dice_background

PROPERTIES = ["saliency", "depth", "shading"]
SPLIT = Split([0, 1, 2, 3], [4, 5, 6], [7, 8])
CHANNELS = {SHALLOW: 6, DEEP: 5}


def untrained(bias: bool = True) -> ProbeBank:
    standardisations = {"depth": Standardisation(5.0, 2.0), "shading": Standardisation(0.1, 0.5)}
    return ProbeBank(CHANNELS, [0, 1], PROPERTIES, bias=bias, standardisations=standardisations)


def test_scores_are_those_of_the_upsampled_maps() -> None:
    activations, targets, bank = noise(9), label_maps(9), untrained()
    targets["depth"] = targets["depth"].abs().round() + 1
    bank.thresholds["saliency"] = {SHALLOW: [0.5, 0.45], DEEP: [0.55, 0.5]}
    rows = rows_of(score_table(score_bank(bank, activations, targets, SPLIT, model="pocket")))
    assert len(rows) == 2 * 2 * (2 + 6 + 3) * (3 + 2)
    for row in rows:
        image = activations.names.index(row.image)
        assert image in getattr(SPLIT, row.split)
        outputs = bank(row.layer, activations.values[row.layer])[row.property][row.step, image].detach()
        if row.property == "saliency":
            prediction = outputs.softmax(0)[1] > bank.thresholds["saliency"][row.layer][row.step]
            target = targets["saliency"][image]
        else:
            prediction = outputs[0]
            target = bank.standardisations[row.property].apply(targets[row.property][image])
        if row.metric in OF_LABELS:
            target = targets[row.property][image]
        expected = SCORES[row.metric](prediction.float().numpy(), target.numpy())
        assert row.value == pytest.approx(expected, abs=1e-5), row


def test_rows_carry_their_keys() -> None:
    blocks = score_bank(untrained(), noise(9), label_maps(9), SPLIT, model="pocket", control="permuted", probe="ridge")
    rows = rows_of(score_table(blocks))
    row = rows[-1]
    assert (row.model, row.control, row.probe, row.split) == ("pocket", "permuted", "ridge", "test")
    assert {(row.step, row.timestep) for row in rows} == {(0, 900.0), (1, 800.0)}
    assert {row.image for row in rows} == {f"image_{number}" for number in range(4, 9)}


def test_a_constant_prediction_has_no_correlation_but_an_error() -> None:
    bank, activations = untrained(bias=False), noise(9)
    activations.values[DEEP][0, 7] = 0
    targets = label_maps(9)
    targets["depth"] = targets["depth"].abs() + 1  # above 0, as errors of depth need it
    rows = rows_of(score_table(score_bank(bank, activations, targets, SPLIT, model="pocket")))
    missing = {(row.layer, row.step, row.image, row.metric) for row in rows if row.value is None}
    undefined = ("spearman", "pearson", "ssi_error", "abs_rel", "delta1")
    assert missing == {(DEEP, 0, "image_7", metric) for metric in undefined}


@pytest.mark.parametrize("size", [(16, 16), (18, 18)])  # a multiple of the tokens, and none
def test_masks_of_all_thresholds_have_the_scores_of_one_after_another(size: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 2, 4, 8, 8, generator=random)
    maps[0, 0, 0], maps[0, 1, 1], maps[1, 0, 2] = 0.5, 0, 1  # values that are thresholds, and empty and full masks
    maps[2, 0, 0, 0, 0] = torch.nan  # never foreground
    target = (torch.rand(4, *size, generator=random) > 0.6).float()
    target[3] = 0
    areas = areas_at_thresholds(maps, pool_target(target, (8, 8)), THRESHOLDS)
    for number, threshold in enumerate(THRESHOLDS):
        masks = (maps > threshold).float().flatten(0, 2).numpy()
        pairs = zip(masks, target.repeat(6, 1, 1).numpy(), strict=True)
        found = [each.dice()[number].flatten().tolist() for each in (areas, areas.complements())]
        for (mask, truth), inside, outside in zip(pairs, *found, strict=True):
            assert inside == pytest.approx(dice(mask, truth), abs=1e-12)
            assert outside == pytest.approx(dice_background(mask, truth), abs=1e-12)


def test_the_threshold_has_the_best_validation_dice_of_the_grid() -> None:
    activations, targets, bank = noise(9), label_maps(9), untrained()
    chosen = choose_thresholds(bank, activations, targets, SPLIT)["saliency"]
    for layer in CHANNELS:
        for step in (0, 1):
            maps = bank(layer, activations.values[layer])["saliency"][step].detach().softmax(1)[:, 1]
            pairs = [(maps[image].numpy(), targets["saliency"][image].numpy()) for image in SPLIT.validation]
            scores = [np.mean([dice(map_ > value, target) for map_, target in pairs]) for value in THRESHOLDS]
            assert max(scores) > min(scores)
            assert scores[THRESHOLDS.index(chosen[layer][step])] == pytest.approx(max(scores))


def test_the_threshold_does_not_see_test_images() -> None:
    activations, targets, bank = noise(9), label_maps(9), untrained()
    before = choose_thresholds(bank, activations, targets, SPLIT)
    targets["saliency"][SPLIT.test] = 1 - targets["saliency"][SPLIT.test]
    assert choose_thresholds(bank, activations, targets, SPLIT) == before


def test_a_fixed_threshold_is_used_as_it_is() -> None:
    chosen = choose_thresholds(untrained(), noise(9), label_maps(9), SPLIT, 0.3)
    assert chosen == {"saliency": {SHALLOW: [0.3] * 2, DEEP: [0.3] * 2}}


@pytest.mark.parametrize("threshold", [0, 1.0, -0.2, "best", True, None])
def test_a_bad_threshold_is_refused(threshold) -> None:
    with pytest.raises(UserError, match="threshold"):
        choose_thresholds(untrained(), noise(9), label_maps(9), SPLIT, threshold)


def test_maps_come_in_the_units_of_the_labels() -> None:
    activations, bank = noise(9), untrained()
    outputs = bank(DEEP, activations.values[DEEP][:, [2, 5]])
    depth = predict_maps(bank, activations, "depth", DEEP, [2, 5])
    assert depth.shape == (2, 2, 4, 4)
    torch.testing.assert_close(depth, 5 + 2 * outputs["depth"][:, :, 0].detach())
    saliency = predict_maps(bank, activations, "saliency", DEEP, [2, 5])
    torch.testing.assert_close(saliency, outputs["saliency"].softmax(2)[:, :, 1].detach())


def test_a_planted_signal_is_found_where_and_when_it_is() -> None:
    targets = label_maps(40)
    # What the planted layer can say exactly: maps that are constant on its tokens.
    tokens = torch.nn.functional.avg_pool2d(targets["depth"], 4)
    targets["depth"] = tokens.repeat_interleave(4, 1).repeat_interleave(4, 2)
    targets["saliency"] = (targets["depth"] > 5.5).float()
    activations = planted(40, targets, steps=3, first_step=1)
    split = Split(list(range(24)), list(range(24, 32)), list(range(32, 40)))
    rates = dict.fromkeys(("saliency", "depth"), 0.01)
    probe_config = ProbeConfig(epochs=20, batch_size=2, validate_every=5, learning_rates=rates)
    bank = train_bank(activations, targets, split, ["saliency", "depth"], probe_config)
    bank.thresholds = choose_thresholds(bank, activations, targets, split)
    scores = score_table(score_bank(bank, activations, targets, split, model="planted"))
    summaries = summarise(scores)
    means = {
        (row.property, row.layer, row.step): row.mean
        for row in summary_rows(summaries)
        if row.split == "test" and row.metric in ("dice", "spearman")
    }
    for name, bar, ceiling in (("depth", 0.97, 0.4), ("saliency", 0.9, 0.7)):
        for (found, layer, step), mean in means.items():
            if found == name:
                assert mean is not None
                assert mean > bar if (layer == DEEP and step >= 1) else mean < ceiling, (name, layer, step, mean)
        assert best_layer(summaries, name) == DEEP
        emergence = emergence_step(scores, DEEP, name)
        assert (emergence.step, emergence.low, emergence.high) == (1, 1, 1)
