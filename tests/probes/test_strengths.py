"""Strengths of penalties: which was chosen is known, and one line says where the best may lie beyond the grid."""

from __future__ import annotations

import pytest
import torch

from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.ridge import edge_lines
from diffprobe.probes.splits import Split
from diffprobe.probes.study.study import fit_bank
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise, planted

SPLIT = Split(list(range(8)), [8, 9, 10], [11, 12])


@pytest.mark.parametrize("solver", ["ridge", "exact"])
def test_each_probe_knows_the_strength_that_was_chosen_for_it(solver: str) -> None:
    targets, strengths = label_maps(13), (1e-5, 1e-3, 10.0)
    activations = planted(13, targets, steps=2)
    bank, *single = (
        fit_bank(activations, targets, SPLIT, ["depth"], ProbeConfig(solver=solver, bias=True, strengths=some))
        for some in (strengths, *((strength,) for strength in strengths))
    )
    told = [bank.strengths["depth"][layer] for layer in (SHALLOW, DEEP)]
    assert len({value for each in told for value in each}) > 1
    for layer, each in zip((SHALLOW, DEEP), told, strict=True):
        for step, strength in enumerate(each):
            alone = single[strengths.index(strength)]
            torch.testing.assert_close(
                bank.weight("depth", layer)[step], alone.weight("depth", layer)[step], rtol=1e-3, atol=1e-4
            )


def test_probes_whose_penalty_was_not_chosen_have_no_strength() -> None:
    bank = fit_bank(noise(13), label_maps(13), SPLIT, ["depth"], ProbeConfig(epochs=1))
    assert bank.strengths == {"depth": {}}


def test_one_line_tells_how_many_probes_are_at_which_edge_and_what_to_add() -> None:
    chosen = {
        "none": {"depth": {"a": [1e-6, 0.1], "b": [1.0, 1.0]}, "saliency": {"a": [0.1, 0.1], "b": [0.1, 0.1]}},
        "permuted": {"depth": {"a": [1.0, 1.0]}},
    }
    (line,) = edge_lines(chosen, (1e-6, 0.1, 1.0))
    assert "the smallest, 1e-06, was chosen by 1 of 8 probes and 0 of 2 of controls" in line
    assert "the largest, 1, was chosen by 2 of 8 probes and 2 of 2 of controls" in line
    assert line.endswith("add 1e-07 and 10")


def test_nothing_is_said_within_the_grid_or_of_a_grid_of_one() -> None:
    assert edge_lines({"none": {"depth": {"a": [0.1, 0.1]}}}, (0.01, 0.1, 1.0)) == []
    assert edge_lines({"none": {"depth": {"a": [0.1, 0.1]}}}, (0.1,)) == []
    assert edge_lines({"none": {"depth": {}}}, (0.01, 0.1)) == []
