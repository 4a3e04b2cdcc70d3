from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from diffprobe.activations.activations import Activations
from diffprobe.activations.store.folder import create_store
from diffprobe.activations.store.manifest import Manifest
from diffprobe.activations.store.reader import load_activations
from diffprobe.activations.store.writer import StoreWriter
from diffprobe.errors import UserError
from diffprobe.probes import exact
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.exact import minimise, solve_bank
from diffprobe.probes.splits import Split
from diffprobe.properties.tokens import token_means
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise, planted

PROPERTIES = ["saliency", "depth", "shading"]
SPLIT = Split([0, 1, 2, 3, 4], [5, 6, 7], [8, 9])
STRENGTH = 1e-3


def exact_recipe(**options) -> ProbeConfig:
    return ProbeConfig(solver="exact", **options)


def tokens_and_targets(
    activations: Activations, targets: dict[str, Tensor], name: str, layer: str, step: int, rows: list[int], bias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [images * h * w, channels (and a 1)] and their targets."""
    values = activations.values[layer][step][rows]
    tokens = values.movedim(1, -1).flatten(0, -2).double().numpy()
    wanted = targets[name].double()
    if name != "saliency":
        wanted = (wanted - wanted[SPLIT.train].mean()) / wanted[SPLIT.train].std(correction=0)
    goal = token_means(wanted[rows], (values.shape[-2], values.shape[-1])).flatten().numpy()
    return np.hstack([tokens, np.ones((len(tokens), 1))]) if bias else tokens, goal


def cross_entropy(odds: np.ndarray, goal: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, odds) - goal * odds


def huber(output: np.ndarray, goal: np.ndarray) -> np.ndarray:
    size = np.abs(output - goal)
    return np.where(size < 1, size**2 / 2, size - 0.5)


def one_map(bank: ProbeBank, name: str, layer: str, step: int) -> np.ndarray:
    """The probe as a map to the log odds or the quantity, the bias last."""
    parameters = [parameter[step].double() for parameter in bank.head_of(name, layer).parameters()]
    both = [value[1] - value[0] if name == "saliency" else value[0] for value in parameters]
    return torch.cat([value.reshape(-1) for value in both]).numpy()


def loss_of(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return cross_entropy if name == "saliency" else huber


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", PROPERTIES)
def test_the_probes_are_those_that_scipy_finds(name: str, bias: bool) -> None:
    activations, targets = noise(10), label_maps(10)
    targets["shading"] = 3 * targets["shading"] ** 3  # so that some errors are in the linear part
    for values in activations.values.values():
        values += 0.5
    bank = solve_bank(activations, targets, SPLIT, PROPERTIES, exact_recipe(bias=bias, strengths=[STRENGTH]))
    for layer in (SHALLOW, DEEP):
        for step in (0, 1):
            tokens, goal = tokens_and_targets(activations, targets, name, layer, step, SPLIT.train, bias)
            channels = tokens[:, :-1] if bias else tokens
            centred = channels - channels.mean(0) if bias else channels
            penalty = np.full(tokens.shape[1], STRENGTH * np.linalg.eigvalsh(centred.T @ centred / len(tokens)).mean())
            penalty[channels.shape[1] :] = 0

            def objective(probe, tokens=tokens, goal=goal, penalty=penalty):
                return loss_of(name)(tokens @ probe, goal).mean() + (penalty * probe**2).sum() / 2

            expected = minimize(objective, np.zeros(tokens.shape[1]), method="BFGS", options={"gtol": 1e-8}).x
            found = one_map(bank, name, layer, step)
            np.testing.assert_allclose(found, expected, atol=2e-5)
            assert np.abs(expected).max() > 1e-2


def test_both_logits_carry_half_of_the_log_odds() -> None:
    bank = solve_bank(noise(10), label_maps(10), SPLIT, ["saliency"], exact_recipe(bias=True))
    for parameter in bank.head_of("saliency", DEEP).parameters():
        torch.testing.assert_close(parameter[:, 0], -parameter[:, 1])


def test_validation_images_choose_the_strength_of_each_probe() -> None:
    activations, targets = noise(10), label_maps(10)
    strengths = [1e-4, 1e-1, 1.0, 10.0]
    solved = partial(solve_bank, activations, targets, SPLIT, PROPERTIES)
    each = [solved(exact_recipe(strengths=[strength])) for strength in strengths]
    bank, chosen = solved(exact_recipe(strengths=strengths)), set()
    for name in PROPERTIES:
        for layer in (SHALLOW, DEEP):
            for step in (0, 1):
                tokens, goal = tokens_and_targets(activations, targets, name, layer, step, SPLIT.validation, False)
                probes = [one_map(other, name, layer, step) for other in each]
                losses = [loss_of(name)(tokens @ probe, goal).mean() for probe in probes]
                chosen.add(int(np.argmin(losses)))
                np.testing.assert_allclose(one_map(bank, name, layer, step), probes[np.argmin(losses)], atol=1e-5)
    assert len(chosen) > 1  # else this test could not fail


@pytest.mark.slow
@pytest.mark.parametrize("bias", [False, True])
def test_adam_approaches_the_exact_optimum_from_above(bias: bool) -> None:
    targets = label_maps(10)
    activations = planted(10, targets, steps=2, first_step=0)
    same = Split(SPLIT.train, [5], SPLIT.test)
    best = solve_bank(activations, targets, same, PROPERTIES, exact_recipe(bias=bias, strengths=[1e-9]))

    def trained(epochs: int) -> ProbeBank:
        rates = dict.fromkeys(PROPERTIES, 0.02)
        probe_config = ProbeConfig(bias=bias, epochs=epochs, validate_every=epochs, batch_size=5, learning_rates=rates)
        return train_bank(activations, targets, same, PROPERTIES, probe_config)

    few, many = trained(5), trained(300)
    for name in PROPERTIES:
        for layer in (SHALLOW, DEEP):
            for step in (0, 1):
                tokens, goal = tokens_and_targets(activations, targets, name, layer, step, SPLIT.train, bias)
                lowest, early, late = (
                    loss_of(name)(tokens @ one_map(bank, name, layer, step), goal).mean() for bank in (best, few, many)
                )
                assert lowest - 1e-6 < late < lowest + 0.01
                assert late < early
                assert early > lowest + 1e-3


def test_chunks_groups_of_steps_and_reading_anew_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    activations, targets = noise(10, steps=3), label_maps(10)
    whole = solve_bank(activations, targets, SPLIT, PROPERTIES, exact_recipe(bias=True))
    monkeypatch.setattr(exact, "CHUNK_NUMBERS", 2 * 6 * 64)
    monkeypatch.setattr(exact, "KEPT_BYTES", 2 * 5 * 6 * 64 * 4)  # two steps of the shallow layer
    grouped = solve_bank(activations, targets, SPLIT, PROPERTIES, exact_recipe(bias=True))
    monkeypatch.setattr(exact, "KEPT_BYTES", 1)
    streamed = solve_bank(activations, targets, SPLIT, PROPERTIES, exact_recipe(bias=True))
    for name in PROPERTIES:
        for layer in whole.layers:
            for number, expected in enumerate(whole.head_of(name, layer).parameters()):
                for other in (grouped, streamed):
                    torch.testing.assert_close(
                        list(other.head_of(name, layer).parameters())[number], expected, atol=1e-5, rtol=1e-4
                    )


def test_stored_activations_give_the_same_probes(tmp_path: Path) -> None:
    activations, targets = noise(10), label_maps(10)
    manifest = Manifest(
        model={"name": "made_up"},
        trajectory={"kind": "generation"},
        images=[{"id": name} for name in activations.names],
        layers=activations.layers,
        steps=activations.steps,
        timesteps=activations.timesteps,
        dtype="float32",
        images_per_shard=4,
        extras=[],
    )
    store = create_store(tmp_path, manifest)
    with StoreWriter(store) as writer:
        for shard in store.survey().unfinished:
            for layer in activations.layers:
                for step in activations.steps:
                    rows = activations.values[layer.name][step][list(shard.rows)]
                    writer.put(f"{layer.name}/step_{step}", shard.rows, rows)
    stored, memory = (
        solve_bank(source, targets, SPLIT, PROPERTIES, exact_recipe())
        for source in (load_activations(tmp_path), activations)
    )
    assert all(torch.equal(value, memory.state_dict()[key]) for key, value in stored.state_dict().items())


def test_test_images_are_never_seen() -> None:
    activations, targets = noise(10), label_maps(10)
    before = solve_bank(activations, targets, SPLIT, PROPERTIES, exact_recipe())
    for values in activations.values.values():
        values[:, SPLIT.test] = float("nan")
    for maps in targets.values():
        maps[SPLIT.test] = -1e6
    after = solve_bank(activations, targets, SPLIT, PROPERTIES, exact_recipe())
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in before.state_dict().items())


def test_the_bank_is_ready_to_be_scored() -> None:
    targets = label_maps(10)
    bank = solve_bank(noise(10), targets, SPLIT, PROPERTIES, exact_recipe())
    assert not bank.training
    assert not any(parameter.requires_grad for parameter in bank.parameters())
    assert bank.standardisations["depth"].mean == pytest.approx(targets["depth"][SPLIT.train].mean().item(), rel=1e-5)
    assert bank.head == "linear"


def test_separable_tokens_have_a_probe_and_no_warning() -> None:
    targets = label_maps(10)
    activations = noise(10)
    activations.values[SHALLOW][:, :, 2] = 10 * (token_means(targets["saliency"], (8, 8)) - 0.5)
    targets["saliency"] = (token_means(targets["saliency"], (8, 8)) > 0.5).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank = solve_bank(activations, targets, SPLIT, ["saliency"], exact_recipe(strengths=[1e-6, 1e-3, 1.0]))
    assert all(parameter.isfinite().all() for parameter in bank.parameters())


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_that_is_silent_has_a_probe_that_is_constant(bias: bool) -> None:
    activations, targets = noise(10), label_maps(10)
    activations.values[DEEP].zero_()
    bank = solve_bank(activations, targets, SPLIT, PROPERTIES, exact_recipe(bias=bias))
    for name in PROPERTIES:
        assert bank.weight(name, DEEP).abs().max() == 0
    if bias:
        odds = torch.tensor(one_map(bank, "saliency", DEEP, 0)[-1])
        torch.testing.assert_close(odds.sigmoid(), targets["saliency"][SPLIT.train].double().mean(), atol=1e-5, rtol=0)


def test_a_probe_that_does_not_converge_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "minimise", partial(minimise, limit=1))
    with pytest.warns(UserWarning, match=rf"4 exact probes did not converge: saliency of {SHALLOW} at step 0; "):
        solve_bank(noise(10), label_maps(10), SPLIT, ["saliency"], exact_recipe())


def test_label_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="no label maps for property 'shading'"):
        solve_bank(noise(10), {}, SPLIT, ["shading"], exact_recipe())


@pytest.mark.parametrize("offset", [37.0, 1000.0])
def test_with_a_bias_an_offset_of_many_standard_deviations_changes_no_output(offset: float) -> None:
    """What a probe with a bias says does not depend on where the tokens' mean lies; nor shall whether it is found."""
    activations, targets = noise(10, steps=1), label_maps(10)
    spread = torch.logspace(0, -2, activations.values[DEEP].shape[2])[:, None, None]
    said = []
    for shift in (0.0, offset):
        values = {layer: tokens.clone() for layer, tokens in activations.values.items()}
        draw = torch.Generator().manual_seed(0)
        values[DEEP] = (values[DEEP] * spread).double() + shift * torch.randn(spread.shape, generator=draw)
        there = Activations(activations.layers[1:], [0], [900.0], activations.names, {DEEP: values[DEEP]})
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that a probe did not converge is a warning
            bank = solve_bank(there, targets, SPLIT, ["saliency", "depth"], exact_recipe(bias=True)).double()
        said.append(bank(DEEP, values[DEEP]))
    for name, outputs in said[0].items():
        off = (said[1][name] - outputs).std() / outputs.std()
        assert off < 1e-3, f"{name}: {off:.2g} standard deviations"
