from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from diffprobe.errors import UserError
from diffprobe.probes import ridge
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.ridge import Moments, as_tokens, ridge_bank
from diffprobe.probes.scoring import target_maps
from diffprobe.probes.splits import Split
from diffprobe.properties import PAPERS, PROPERTIES
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise, token_targets

NAMES = list(PAPERS)
SPLIT = Split([0, 1, 2, 3, 4, 5], [6, 7], [8, 9])
STRENGTHS = (1e-3, 0.1, 10.0)


def moments_of(activations, targets, rows, batch=2, bias=False) -> Moments:
    moments = Moments(NAMES, ProbeConfig(solver="ridge", strengths=STRENGTHS, bias=bias))
    maps = {name: target_maps(targets, PROPERTIES[name], activations.names) for name in NAMES}
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        values = {layer.name: activations.values[layer.name][:, part] for layer in activations.layers}
        moments.add(values, {name: maps[name][part] for name in NAMES})
    return moments


def regression_target(targets, activations, name, rows, grid) -> torch.Tensor:
    """What a probe of `name` learns of each token of some images, [images x tokens], written out."""
    item = PROPERTIES[name]
    maps = target_maps(targets, item, activations.names)
    tokens = token_targets(item.standardisation(maps[SPLIT.train]).apply(maps), [grid])[grid][rows].flatten()
    return 4 * (tokens - 0.5) if item.binary else tokens


def test_sums_do_not_depend_on_how_many_steps_are_added_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    activations, targets = noise(10), label_maps(10)
    together = moments_of(activations, targets, SPLIT.train).layers
    monkeypatch.setattr(ridge, "VALUES_AT_ONCE", 1)
    for layer, one_by_one in moments_of(activations, targets, SPLIT.train).layers.items():
        for found, wanted in zip(together[layer], one_by_one, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layer", [SHALLOW, DEEP])
def test_every_strength_equals_scikit_learns_ridge(layer: str, bias: bool) -> None:
    activations, targets = noise(10), label_maps(10)
    activations.values[layer] += 0.7  # a mean that the bias matters for
    path = moments_of(activations, targets, SPLIT.train, bias=bias).solve()
    grid = tuple(activations.values[layer].shape[-2:])
    for step in range(2):
        tokens = as_tokens(activations.values[layer][step : step + 1, SPLIT.train])[0].double().numpy()
        centred = tokens - tokens.mean(0) * bias
        scale = (centred**2).mean()  # the mean eigenvalue
        for number, name in enumerate(NAMES):
            wanted = regression_target(targets, activations, name, SPLIT.train, grid).numpy()
            for which, strength in enumerate(STRENGTHS):
                other = Ridge(alpha=strength * scale * len(tokens), fit_intercept=bias).fit(tokens, wanted)
                assert path.weights[layer][which, step, number].numpy() == pytest.approx(
                    other.coef_, rel=1e-4, abs=1e-6
                )
                intercept = path.biases[layer][which, step, number].item()
                assert intercept == pytest.approx(float(other.intercept_), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("offset", "tolerance"),
    [
        ("one for each channel", 2e-3),
        ("one massive channel", 1e-2),  # what is left is the rounding of weights and bias to float32
        ("of the labels", 1e-3),
    ],
)
def test_offsets_of_many_standard_deviations_cost_no_digits(offset: str, tolerance: float, bias: bool) -> None:
    assert worst_error(offset, bias) < tolerance


@pytest.mark.parametrize("offset", ["one for each channel", "one massive channel"])
def test_products_in_float32_as_on_a_gpu_keep_what_is_learnt(offset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "product_precision", lambda device: torch.float32)
    assert worst_error(offset, bias=True) < 0.03


def worst_error(offset: str, bias: bool) -> float:
    """The largest root mean square error of any strength's outputs, in standard deviations of the labels.

    Held against numpy's float64 on the same tokens, of which the weak directions tell as much as the strong.
    """
    draw, channels, strengths = torch.Generator().manual_seed(0), 24, (1e-6, 1e-4, 1e-2)
    mixing = torch.logspace(0, -3, channels)[:, None] * torch.randn(channels, channels, generator=draw) / channels**0.5
    tokens = torch.randn(12, 16, 16, channels, generator=draw) @ mixing
    targets = tokens @ torch.linalg.pinv(mixing) @ torch.randn(channels, generator=draw)
    targets += 0.3 * torch.randn(targets.shape, generator=draw)
    if offset == "one for each channel":
        tokens = tokens + 37 * torch.randn(channels, generator=draw)
    elif offset == "one massive channel":
        tokens[..., 0] += 1000
    else:
        targets = targets + 5000

    moments = Moments(["depth"], ProbeConfig(solver="ridge", bias=bias, strengths=strengths))
    values = tokens.movedim(-1, 1)[None]
    for rows in torch.arange(8).split(2):
        moments.add({DEEP: values[:, rows]}, {"depth": targets[rows]})
    path = moments.solve()
    outputs = path.outputs(DEEP, values[:, 8:])[:, 0, :, 0].flatten(1)

    train, held_out = (part.reshape(-1, channels).double().numpy() for part in (tokens[:8], tokens[8:]))
    labels = targets[:8].double()
    wanted = ((labels - labels.mean()) / labels.std(correction=0)).flatten().numpy()
    mean = train.mean(0) * bias
    second, products = (train - mean).T @ (train - mean), (train - mean).T @ wanted
    errors = []
    for number, strength in enumerate(strengths):
        penalty = strength * np.trace(second) / channels
        weights = np.linalg.solve(second + penalty * np.eye(channels), products)
        expected = (held_out - mean) @ weights
        errors.append(float(np.sqrt(np.mean((outputs[number].numpy() - expected) ** 2))))
    return max(errors)


def test_batches_and_processes_make_no_difference() -> None:
    activations, targets = noise(10), label_maps(10)
    whole = moments_of(activations, targets, SPLIT.train, batch=6, bias=True).solve()
    halves = [moments_of(activations, targets, SPLIT.train[part::2], batch=1, bias=True) for part in range(2)]
    ours, theirs = [], []
    halves[0].merge(lambda value: ours.append(value.clone()) or value)
    halves[1].merge(lambda value: theirs.append(value.clone()) or value)
    both = iter([mine + other for mine, other in zip(ours, theirs, strict=True)])
    halves[0].merge(lambda value: next(both))
    merged = halves[0].solve()
    for layer in (SHALLOW, DEEP):
        torch.testing.assert_close(merged.weights[layer], whole.weights[layer], rtol=1e-4, atol=1e-6)


def test_the_strength_with_the_lowest_validation_error_is_taken_and_test_images_are_not_looked_at() -> None:
    activations, targets = noise(10), label_maps(10)
    probe_config = ProbeConfig(solver="ridge", strengths=STRENGTHS, batch_size=4)
    bank = ridge_bank(activations, targets, SPLIT, NAMES, probe_config)
    path = moments_of(activations, targets, SPLIT.train).solve()
    grid = (4, 4)
    for name in NAMES:
        wanted = regression_target(targets, activations, name, SPLIT.validation, grid)
        tokens = as_tokens(activations.values[DEEP][:, SPLIT.validation])
        for step in range(2):
            weights = path.weights[DEEP][:, step, NAMES.index(name)]
            best = ((tokens[step] @ weights.T - wanted[:, None].float()) ** 2).mean(0).argmin()
            found = bank.weight(name, DEEP)[step]
            odds = found[1] - found[0] if PROPERTIES[name].binary else found[0]
            torch.testing.assert_close(odds, weights[best], rtol=1e-4, atol=1e-6)
    activations.values[DEEP][:, SPLIT.test] = 1e3
    again = ridge_bank(activations, targets, SPLIT, NAMES, probe_config)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in bank.state_dict().items())


def test_the_bank_says_what_the_path_says() -> None:
    activations, targets = noise(10), label_maps(10)
    path = moments_of(activations, targets, SPLIT.train, bias=True).solve()
    chosen = {layer: torch.tensor([[0, 2], [1, 1], [2, 0]]) for layer in (SHALLOW, DEEP)}
    bank = path.take(chosen).bank(activations.steps)
    outputs = path.outputs(DEEP, activations.values[DEEP])
    for number, (name, found) in enumerate(bank(DEEP, activations.values[DEEP]).items()):
        odds = found[:, :, 1] - found[:, :, 0] if PROPERTIES[name].binary else found[:, :, 0]
        expected = torch.stack([outputs[chosen[DEEP][number, step], step, :, number] for step in range(2)])
        torch.testing.assert_close(odds, expected, rtol=1e-4, atol=1e-5)


def test_labels_that_do_not_vary_are_refused() -> None:
    activations, targets = noise(10), label_maps(10)
    targets["depth"] = torch.full_like(targets["depth"], 1234.5)
    with pytest.raises(UserError, match="depth: the training labels"):
        ridge_bank(activations, targets, SPLIT, NAMES, ProbeConfig(solver="ridge"))
