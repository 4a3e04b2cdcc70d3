from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from diffprobe.probes.controls import fresh_weights, permute_weights, permuted_weights, shuffled_targets
from diffprobe.probes.splits import Split
from tests.probes.planted import label_maps
from tests.tiny import build_tiny_denoiser
from tests.tiny_families import FAMILIES

SPLIT = Split(list(range(12)), list(range(12, 16)), list(range(16, 20)))
NAMES = [f"image_{row}" for row in range(20)]


@pytest.fixture
def denoiser() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 4, 3, bias=False))
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.requires_grad_(False)


def test_permutation_keeps_the_elements_of_every_tensor_and_moves_them(denoiser: nn.Module) -> None:
    permuted = dict(permute_weights(denoiser).named_parameters())
    names = [name for name, _ in denoiser.named_parameters()]
    assert "0.bias" in names
    assert "1.weight" in names
    for name, original in denoiser.named_parameters():
        assert permuted[name].shape == original.shape
        assert torch.equal(permuted[name].flatten().sort().values, original.flatten().sort().values)
        assert not torch.equal(permuted[name], original), name


def test_permutation_leaves_the_original_alone_and_depends_on_the_seed(denoiser: nn.Module) -> None:
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    first, again, other = (permute_weights(denoiser, seed).state_dict() for seed in (0, 0, 1))
    for name, value in denoiser.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network of diffusers whose every weight has moved from where its class puts it."""
    network = build_tiny_denoiser()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    return network.requires_grad_(False)


def test_a_fresh_network_is_what_its_class_makes_with_the_seed(trained: nn.Module) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = build_tiny_denoiser().state_dict()
    fresh = fresh_weights(trained, seed=3)
    assert type(fresh) is type(trained)
    assert not fresh.training
    for name, parameter in trained.named_parameters():
        assert torch.equal(fresh.get_parameter(name), expected[name]), name
        assert not torch.equal(fresh.get_parameter(name), parameter), name


def test_a_fresh_network_depends_on_its_seed_alone_and_leaves_everything_else(trained: nn.Module) -> None:
    before, random = copy.deepcopy(trained.state_dict()), torch.random.get_rng_state()
    first = fresh_weights(trained, 0).state_dict()
    assert torch.equal(torch.random.get_rng_state(), random)
    torch.manual_seed(7)
    again, other = fresh_weights(trained, 0).state_dict(), fresh_weights(trained, 1).state_dict()
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first["conv_in.weight"], other["conv_in.weight"])


def test_a_fresh_network_has_the_precision_of_the_original(trained: nn.Module) -> None:
    half, full = fresh_weights(copy.deepcopy(trained).half()), fresh_weights(trained)
    for name, parameter in full.named_parameters():
        assert torch.equal(half.get_parameter(name), parameter.half())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_network_can_be_made_anew(family: str) -> None:
    pipeline = FAMILIES[family]()
    denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
    buffers = dict(denoiser.named_buffers())
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1)
    fresh = fresh_weights(denoiser)
    for name, parameter in denoiser.named_parameters():
        assert not torch.equal(fresh.get_parameter(name), parameter), name
    for name, buffer in fresh.named_buffers():
        assert torch.equal(buffer, buffers[name])


def test_shuffled_labels_are_the_same_maps_with_none_in_its_place() -> None:
    targets = label_maps(20)
    shuffled = shuffled_targets(targets, SPLIT)
    for part in (SPLIT.train, SPLIT.validation, SPLIT.test):
        origin = [_row_of(targets["depth"], shuffled["depth"][row]) for row in part]
        assert sorted(origin) == part
        assert all(was != row for was, row in zip(origin, part, strict=True))
        for row, was in zip(part, origin, strict=True):
            for name, maps in targets.items():
                assert torch.equal(shuffled[name][row], maps[was])


def test_shuffled_labels_depend_on_the_seed_and_leave_the_true_ones() -> None:
    targets = label_maps(20)
    first, again, other = (shuffled_targets(targets, SPLIT, seed)["depth"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(targets["depth"], label_maps(20)["depth"])


def test_an_image_alone_in_its_part_keeps_its_labels_and_so_does_one_in_no_part() -> None:
    depth = label_maps(6)["depth"]
    shuffled = shuffled_targets({"depth": depth}, Split([4, 1], [2], [0, 5]))["depth"]
    assert [_row_of(depth, maps) for maps in shuffled] == [5, 4, 2, 3, 1, 0]


def _row_of(maps: torch.Tensor, one: torch.Tensor) -> int:
    (row,) = [row for row, each in enumerate(maps) if torch.equal(each, one)]
    return row


def test_weights_are_permuted_in_place_as_in_a_copy_and_put_back(tiny_backbone):
    denoiser = tiny_backbone.denoiser
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    copied = permute_weights(denoiser, seed=3).state_dict()
    with permuted_weights(denoiser, seed=3) as permuted:
        assert permuted is denoiser
        inside = {name: value.clone() for name, value in denoiser.state_dict().items()}
    assert all(torch.equal(inside[name], copied[name]) for name in copied)
    assert any(not torch.equal(inside[name], before[name]) for name in before)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())


def test_weights_are_put_back_when_something_goes_wrong(tiny_backbone):
    before = {name: value.clone() for name, value in tiny_backbone.denoiser.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), permuted_weights(tiny_backbone.denoiser):
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in tiny_backbone.denoiser.state_dict().items())
