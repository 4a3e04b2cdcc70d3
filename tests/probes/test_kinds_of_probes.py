"""Probes of classes and vectors, by every solver: those that scikit-learn and numpy find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.probes import exact
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeConfig, load_bank, save_bank
from diffprobe.probes.controls import position_scores
from diffprobe.probes.exact import solve_bank
from diffprobe.probes.ridge import Moments, as_tokens, ridge_bank
from diffprobe.probes.score_table import score_table, select
from diffprobe.probes.scoring import score_bank
from diffprobe.probes.splits import Split
from diffprobe.properties import Property
from diffprobe.properties.categorical import Categorical
from diffprobe.properties.vector import Vector
from tests.probes.planted import DEEP, SHALLOW, noise

CLASSES = Categorical("parts", learning_rate=0.02, classes=("ground", "leg", "arm"))
NORMALS = Vector("normals", learning_rate=0.02)
SPLIT = Split([0, 1, 2, 3, 4, 5], [6, 7], [8, 9])
STRENGTH = 1e-2


def labels(images: int = 10, size: int = 8) -> dict[str, Tensor]:
    """Blocks of one class and one direction, as large as a token of the deep layer's four by four."""
    random = torch.Generator().manual_seed(3)
    numbers = torch.randint(3, (images, 4, 4), generator=random).float()
    vectors = F.normalize(
        torch.randn(images, 3, 4, 4, generator=random) + torch.tensor([0, 0, 1.5])[:, None, None], dim=1
    )
    scale = size // 4
    return {
        "parts": numbers.repeat_interleave(scale, 1).repeat_interleave(scale, 2),
        "normals": vectors.repeat_interleave(scale, 2).repeat_interleave(scale, 3),
    }


def deep_tokens(activations, step: int, rows: list[int]) -> np.ndarray:
    return as_tokens(activations.values[DEEP][step : step + 1, rows])[0].double().numpy()


def test_exact_class_probes_are_scikit_learns_multinomial_logistic_regression():
    activations, targets = noise(10), labels()
    bank = solve_bank(
        activations, targets, SPLIT, [CLASSES], ProbeConfig(solver="exact", bias=True, strengths=(STRENGTH,))
    )
    for step in (0, 1):
        tokens = deep_tokens(activations, step, SPLIT.train)
        wanted = targets["parts"][SPLIT.train][:, ::2, ::2].flatten().long().numpy()
        scale = STRENGTH * tokens.var(0).mean()
        other = LogisticRegression(C=1 / (scale * len(tokens)), tol=1e-10, max_iter=10_000).fit(tokens, wanted)
        head = bank.head_of("parts", DEEP)
        ours = tokens @ head.weight[step].double().numpy().T + head.bias[step].double().numpy()
        odds = torch.from_numpy(ours).softmax(1).numpy()
        np.testing.assert_allclose(odds, other.predict_proba(tokens), atol=1e-4)
        assert np.abs(other.coef_).max() > 0.05


@pytest.mark.parametrize("item", [CLASSES, NORMALS], ids=lambda item: item.name)
def test_closed_form_probes_are_scikit_learns_ridge(item: Property):
    activations, targets = noise(10), labels()
    moments = Moments([item], ProbeConfig(solver="ridge", bias=True, strengths=(STRENGTH,)))
    for rows in (SPLIT.train[:4], SPLIT.train[4:]):
        values = {layer: maps[:, rows] for layer, maps in activations.values.items()}
        moments.add(values, {item.name: item.target(targets[item.name][rows])})
    path, tokens = moments.solve(), deep_tokens(activations, 1, SPLIT.train)
    if item is CLASSES:
        wanted = F.one_hot(targets["parts"][SPLIT.train][:, ::2, ::2].long(), 3).flatten(0, 2).double().numpy() * 3 - 1
    else:
        directions = targets["normals"][SPLIT.train]
        mean = directions.mean((0, 2, 3), keepdim=True)
        wanted = ((directions - mean) / (directions - mean).square().mean().sqrt())[..., ::2, ::2]
        wanted = wanted.movedim(1, -1).flatten(0, 2).double().numpy()
    other = Ridge(alpha=STRENGTH * tokens.var(0).mean() * len(tokens)).fit(tokens, wanted)
    np.testing.assert_allclose(path.weights[DEEP][0, 1].numpy(), other.coef_, atol=1e-4)
    np.testing.assert_allclose(path.biases[DEEP][0, 1].numpy(), other.intercept_, atol=1e-4)


def test_pixels_without_a_label_weigh_nothing():
    """In the closed form as if their tokens were not there, and alike in whichever batch the first of them comes."""
    activations, targets = noise(10), labels()
    targets["parts"][1, :2, :4] = -1
    targets["parts"][4, :4] = -1
    there = (targets["parts"] >= 0)[:, ::2, ::2]
    solved = []
    for batch in (1, 3, 6):
        moments = Moments([CLASSES, "depth"], ProbeConfig(solver="ridge", bias=True, strengths=(STRENGTH,)))
        for start in range(0, 6, batch):
            rows = SPLIT.train[start : start + batch]
            values = {layer: maps[:, rows] for layer, maps in activations.values.items()}
            depth = activations.values[DEEP][0, rows, 0]
            moments.add(values, {"parts": CLASSES.target(targets["parts"][rows]), "depth": depth})
        solved.append(moments.solve())
    tokens = deep_tokens(activations, 1, SPLIT.train)[there[SPLIT.train].flatten().numpy()]
    numbers = targets["parts"][SPLIT.train][:, ::2, ::2][there[SPLIT.train]].long()
    other = Ridge(alpha=STRENGTH * tokens.var(0).mean() * len(tokens)).fit(
        tokens, F.one_hot(numbers, 3).numpy() * 3 - 1
    )
    for path in solved:
        np.testing.assert_allclose(path.weights[DEEP][0, 1, :3].numpy(), other.coef_, atol=1e-4)
        torch.testing.assert_close(path.weights[SHALLOW], solved[0].weights[SHALLOW])
        torch.testing.assert_close(path.weights[DEEP][:, :, 3], solved[0].weights[DEEP][:, :, 3])


def planted_activations(targets: dict[str, Tensor]):
    """Noise, but from step 1 on the deep layer tells class and direction."""
    activations = noise(10)
    values = activations.values[DEEP]
    numbers = targets["parts"][:, ::2, ::2].long()
    values[1] *= 0.05
    values[1, :, :2] += F.one_hot(numbers, 3).movedim(-1, 1)[:, :2]
    values[1, :, 2:] += targets["normals"][..., ::2, ::2]
    return activations


@pytest.mark.parametrize("solver", ["adam", "ridge", "exact"])
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_every_solver_finds_what_is_planted_where_it_is(solver):
    targets = labels()
    activations = planted_activations(targets)
    config = ProbeConfig(solver=solver, bias=True, epochs=60, strengths=(1e-4,))
    solve = {"adam": train_bank, "ridge": ridge_bank, "exact": solve_bank}[solver]
    bank = solve(activations, targets, SPLIT, [CLASSES, NORMALS], config)
    scores = score_table(score_bank(bank, activations, targets, SPLIT, model="m"))
    test = select(scores, layer=DEEP, split="test")
    means = test.groupby(["step", "metric"], observed=True)["value"].mean()
    assert means[1, "accuracy"] > 0.97
    assert means[1, "mean_iou"] > 0.95
    assert means[1, "mean_angle"] < 12
    assert means[0, "accuracy"] < 0.6
    assert means[0, "mean_angle"] > 25


def test_position_is_the_most_frequent_class_and_the_direction_of_the_mean_vector():
    targets = labels()
    targets["parts"][:, 0, 0] = torch.tensor([1.0, 1, 1, 2, 0, 1, 0, 0, 1, 2])
    names = [f"image_{row}" for row in range(10)]
    scores = score_table(position_scores(targets, SPLIT, [CLASSES, NORMALS], names=names, model="m"))
    counts = F.one_hot(targets["parts"][SPLIT.train].long(), 3).sum(0)
    assert counts[0, 0].argmax() == 1
    for image in SPLIT.test:
        right = (counts.argmax(-1) == targets["parts"][image].long()).float().mean()
        found = select(scores, image=names[image], metric="accuracy")["value"].item()
        assert found == pytest.approx(right.item(), abs=1e-6)
        mean = F.normalize(targets["normals"][SPLIT.train].mean(0), dim=0)
        cosines = (mean * targets["normals"][image]).sum(0).clamp(-1, 1)
        angle = select(scores, image=names[image], metric="mean_angle")["value"].item()
        assert angle == pytest.approx(cosines.acos().rad2deg().mean().item(), abs=1e-2)


def test_probes_of_ones_own_properties_come_back_from_their_files(tmp_path):
    targets = labels()
    bank = ridge_bank(noise(10), targets, SPLIT, [CLASSES, NORMALS], ProbeConfig(solver="ridge", strengths=(1.0,)))
    save_bank(bank, tmp_path)
    again = load_bank(tmp_path)
    assert again.properties == bank.properties
    assert again.standardisations == bank.standardisations
    torch.testing.assert_close(again.weight("normals", DEEP), bank.weight("normals", DEEP))


def test_exact_probes_of_too_many_numbers_are_refused(monkeypatch):
    monkeypatch.setattr(exact, "LARGEST", 12)
    with pytest.raises(UserError, match=r"a probe of parts on .* has 18 numbers \(3 maps of 6 channels\).*probe=ridge"):
        solve_bank(noise(10), labels(), SPLIT, [CLASSES], ProbeConfig(solver="exact"))
