from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from diffprobe.activations.activations import (
    Activations,
    GroupedActivations,
    GroupValues,
    LayerGroup,
    concatenate,
    parse_groups,
)
from diffprobe.activations.store.reader import load_activations
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.probes.adam import train_bank
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.score_table import score_table
from diffprobe.probes.scoring import choose_thresholds, score_bank
from diffprobe.probes.splits import Split
from tests.activations.store.made_up import LARGE, SMALL, filled
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise

TALL = Layer("up_blocks.0.attn1", "self_attention", "decoder", 2, 8, 3)
BOTH = LayerGroup("both", (LARGE, SMALL))


def test_layers_are_resized_to_the_largest_grid_and_concatenated() -> None:
    group = LayerGroup("all", (LARGE, SMALL, TALL))
    values = {layer.name: torch.randn(2, layer.channels, layer.height, layer.width) for layer in group.layers}
    found = concatenate(group, values)
    assert (group.layer.channels, group.layer.height, group.layer.width) == (6, 8, 5)
    assert found.shape == (2, 6, 8, 5)
    parts = [F.interpolate(part, (8, 5), mode="bilinear", align_corners=False) for part in values.values()]
    torch.testing.assert_close(found, torch.cat(parts, 1))


def test_a_layer_on_the_grid_of_the_group_stays_as_it_is() -> None:
    values = {LARGE.name: torch.randn(2, 3, 4, 5).half(), SMALL.name: torch.randn(2, 1, 1, 3).half()}
    found = concatenate(BOTH, values)
    assert found.dtype == torch.float16
    assert torch.equal(found[:, :3], values[LARGE.name])
    resized = F.interpolate(values[SMALL.name].float(), (4, 5), mode="bilinear", align_corners=False)
    assert torch.equal(found[:, 3:], resized.half())


def test_groups_of_stored_activations_are_read_like_layers(tmp_path: Path) -> None:
    filled(tmp_path)
    stored = load_activations(tmp_path)
    memory = Activations(
        stored.layers,
        stored.steps,
        stored.timesteps,
        stored.names,
        {name: values[:, :] for name, values in stored.values.items()},
    )
    whole = [concatenate(BOTH, {name: values[step] for name, values in memory.values.items()}) for step in range(2)]
    expected = torch.stack(whole)
    for source in (stored, memory):
        grouped = GroupedActivations(source, [BOTH], [SMALL])
        assert [layer.name for layer in grouped.layers] == [SMALL.name, "both"]
        assert grouped.grids == [(1, 3), (4, 5)]
        assert (grouped.steps, grouped.timesteps, grouped.names) == (stored.steps, stored.timesteps, stored.names)
        values = grouped.values["both"]
        assert (values.shape, values.dtype) == (expected.shape, expected.dtype)
        for index in ((slice(None), [5, 0]), (slice(1, 2), torch.tensor([3])), (1, [2, 2]), (0, 4), (slice(None), 4)):
            assert torch.equal(values[index], expected[index]), index
        assert torch.equal(grouped.values[SMALL.name][:, [1]], memory.values[SMALL.name][:, [1]])


def test_only_the_rows_that_are_asked_for_are_read() -> None:
    asked = []

    class ClassifierOutputs:
        shape, dtype = torch.Size((2, 7, 3, 4, 5)), torch.float16

        def __getitem__(self, index: tuple[int | slice, list[int]], /) -> torch.Tensor:
            asked.append(index)
            return torch.zeros(2, len(index[1]), 3, 4, 5)

    values = GroupValues(LayerGroup("one", (LARGE,)), {LARGE.name: ClassifierOutputs()})
    assert values[:, [2, 5]].shape == (2, 2, 3, 4, 5)
    assert asked == [(slice(None), [2, 5])]


def test_a_bank_trains_on_a_group_as_on_a_layer_of_its_channels() -> None:
    activations, targets = noise(10), label_maps(10)
    group = LayerGroup("both", tuple(activations.layers))
    parts = [
        activations.values[SHALLOW],
        F.interpolate(activations.values[DEEP].flatten(0, 1), (8, 8), mode="bilinear"),
    ]
    made = torch.cat([parts[0], parts[1].unflatten(0, (2, 10))], 2)
    plain = Activations([group.layer], [0, 1], activations.timesteps, activations.names, {"both": made})
    grouped, split = GroupedActivations(activations, [group]), Split([0, 1, 2, 3, 4], [5, 6, 7], [8, 9])
    scores = []
    for source in (grouped, plain):
        bank = train_bank(source, targets, split, ["saliency", "depth"], ProbeConfig(epochs=2))
        bank.thresholds = choose_thresholds(bank, source, targets, split)  # type: ignore[arg-type]
        blocks = score_bank(bank, source, targets, split, model="made_up")  # type: ignore[arg-type]
        scores.append(score_table(blocks))
    pd.testing.assert_frame_equal(*scores)
    assert set(scores[0]["layer"]) == {"both"}


def test_a_layer_that_was_not_recorded_is_named() -> None:
    with pytest.raises(UserError, match=rf"group 'both' needs {LARGE.name}"):
        GroupedActivations(noise(3), [BOTH])


def test_groups_are_chosen_like_layers() -> None:
    layers = [LARGE, SMALL, TALL]
    groups = parse_groups({"decoder": "stage=decoder", "all": ["up_blocks.*", LARGE.name]}, layers)
    assert groups == [LayerGroup("decoder", (SMALL, TALL)), LayerGroup("all", (LARGE, SMALL, TALL))]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"none": []}, r"layers\.groups\.none=\[\]: list at least one"),
        ({"three": 3}, r"layers\.groups\.three=3: list at least one"),
        ({"a/b": ["resnet"]}, "the name 'a/b' may hold"),
        ({LARGE.name: ["resnet"]}, "a layer has that name"),
        ({"blocks": ["up_blocks.7.*"]}, r"layers\.groups\.blocks: no layer 'up_blocks\.7"),
    ],
)
def test_a_group_that_cannot_be_is_named(wanted: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_groups(wanted, [LARGE, SMALL])
