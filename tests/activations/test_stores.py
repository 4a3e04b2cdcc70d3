"""More may be kept than one study asks for; what it asks for is read as if it were alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffprobe.activations.extraction import StoreFolder
from diffprobe.activations.store.reader import StoredActivations
from diffprobe.errors import UserError
from tests.activations.store.made_up import LARGE, SMALL, filled
from tests.probes.planted import DEEP, SHALLOW, layer, noise


@pytest.mark.parametrize("steps", [[0, 1, 2, 3], [1, 3], [3, 0], [0, 1, 3], [2]])
def test_selected_activations_in_memory_are_those_of_the_layers_and_steps(steps):
    whole = noise(3, steps=4)
    part = whole.select([DEEP], steps)
    assert (list(part.values), part.steps, part.names) == ([DEEP], steps, whole.names)
    assert part.timesteps == [whole.timesteps[step] for step in steps]
    torch.testing.assert_close(part.values[DEEP], whole.values[DEEP][steps], rtol=0, atol=0)


def test_evenly_spaced_steps_are_not_copied():
    whole = noise(3, steps=4)
    assert whole.select([DEEP], [1, 3]).values[DEEP].data_ptr() == whole.values[DEEP][1].data_ptr()


def test_selected_activations_on_disk_are_those_of_the_layers_and_steps(tmp_path):
    whole = StoredActivations(filled(tmp_path))
    part = whole.select([SMALL.name], [3])
    assert ([item.name for item in part.layers], part.steps, part.timesteps) == ([SMALL.name], [3], [1.0])
    rows = [5, 0]
    assert torch.equal(part.values[SMALL.name][:, rows], whole.values[SMALL.name][:, rows][1:])
    assert torch.equal(part.extras["latents"][:, rows], whole.extras["latents"][:, rows][1:])
    assert torch.equal(part.extras["image"][rows], whole.extras["image"][rows])
    assert list(whole.values) == [LARGE.name, SMALL.name]


@pytest.mark.parametrize(("layers", "steps"), [(["nowhere"], [0]), ([DEEP], [7]), ([], [0]), ([DEEP], [])])
def test_what_is_not_there_cannot_be_selected(layers, steps):
    with pytest.raises(UserError, match=f"no activations of .* there are layers {SHALLOW}, {DEEP} and steps 0, 1"):
        noise(2).select(layers, steps)


def test_what_is_probed_must_be_among_what_is_kept():
    deep, shallow = layer(DEEP, 5, 4), layer(SHALLOW, 6, 8)
    assert StoreFolder(Path("stores")).stored_layers_and_steps([deep], [2]) == ([deep], [2])
    assert StoreFolder(Path("stores"), [shallow, deep], [0, 2]).stored_layers_and_steps([deep], [2]) == (
        [shallow, deep],
        [0, 2],
    )
    with pytest.raises(UserError, match=f"1 of 1 layers to probe .* features.layers, first {SHALLOW}"):
        StoreFolder(Path("stores"), [deep]).stored_layers_and_steps([shallow], [0])
    with pytest.raises(UserError, match=r"steps \[1\] .* features\.steps=\[0\]"):
        StoreFolder(Path("stores"), None, [0]).stored_layers_and_steps([deep], [0, 1])
