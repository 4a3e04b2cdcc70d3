from __future__ import annotations

import pytest
import torch

from diffprobe.activations.activations import Activations
from tests.probes.planted import DEEP, SHALLOW, noise


def remade(**changes: object) -> Activations:
    made = noise(3)
    return Activations(**{**vars(made), **changes})  # type: ignore[arg-type]


def test_shapes_that_agree_are_accepted() -> None:
    assert set(remade().values) == {SHALLOW, DEEP}


def test_a_layer_without_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values for layer 'up_blocks"):
        remade(values={SHALLOW: noise(3).values[SHALLOW]})


def test_a_shape_that_disagrees_with_the_names_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 2, 6, 8, 8\)"):
        remade(names=["one", "two"])


def test_steps_without_timesteps_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 steps but 1 timesteps"):
        remade(timesteps=[1.0])


def test_grids_are_listed_once_each() -> None:
    made = noise(3)
    twice = remade(layers=[*made.layers, *made.layers])
    assert twice.grids == [(4, 4), (8, 8)]


def test_half_precision_is_accepted() -> None:
    halves = {name: values.half() for name, values in noise(3).values.items()}
    assert remade(values=halves).values[DEEP].dtype == torch.float16
