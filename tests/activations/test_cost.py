"""Memory of networks, against counts by hand, and the estimates of a pass against what it takes."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from diffprobe.activations.cost import memory_line, peak_of, time_line
from diffprobe.activations.sources import Generation, Noised
from diffprobe.data.prompts import scene_prompts
from diffprobe.data.scenes import load_scenes
from tests.tiny import shared_backbone
from tests.tiny_families import FAMILIES


def test_bytes_of_a_convolution_are_those_counted_by_hand():
    with torch.device("meta"):
        network, picture = nn.Conv2d(3, 8, 3, padding=1), torch.empty(1, 3, 16, 16)
    assert peak_of(network, lambda: network(picture)) == 4 * 8 * 16 * 16
    copies = 4 * (3 + 8) * 16 * 16
    assert peak_of(network, lambda: network(picture), copies=True) == 4 * 8 * 16 * 16 + copies


def test_weights_are_not_counted_and_a_freed_tensor_makes_room_for_the_next():
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(10, 10) for _ in range(5)))
        rows = torch.empty(7, 10)
    assert peak_of(network, lambda: network(rows)) == 2 * 4 * 7 * 10


def test_attention_holds_no_matrix():
    query, key = torch.empty(1, 2, 50, 4, device="meta"), torch.empty(1, 2, 60, 4, device="meta")
    held = peak_of(nn.Identity(), lambda: functional.scaled_dot_product_attention(query, key, key))
    assert held == 4 * 2 * 50 * 4


def test_memory_grows_with_the_batch_and_what_is_captured(tiny_backbone):
    def total(batch: int, captured: int) -> str:
        return memory_line(tiny_backbone, batch, captured)

    assert "activations 3 MB" in total(1, 3_000_000)
    working = [float(re.search(r"at work ([\d.]+) MB", total(batch, 0))[1]) for batch in (50, 100)]
    assert working[1] == pytest.approx(2 * working[0], rel=0.02)


@pytest.mark.parametrize(("sampling", "replays", "decoded"), [(4, 0, 0), (4, 2, 0), (4, 0, 6)])
def test_time_is_steps_replays_at_half_the_rows_and_decoded_images(
    tiny_backbone, monkeypatch, sampling, replays, decoded
):
    """By a clock that counts evaluations and decoded images."""
    clock = {"now": 0.0}
    source = Generation(scene_prompts(6), sampling_steps=sampling)
    monkeypatch.setattr("diffprobe.activations.cost.time.perf_counter", lambda: clock["now"])

    def counted(network, what, seconds):
        plain = getattr(network, what)

        def call(*arguments, **named):
            clock["now"] += seconds
            return plain(*arguments, **named)

        monkeypatch.setattr(network, what, call)

    counted(tiny_backbone.denoiser, "forward", 100.0)
    counted(tiny_backbone.vae, "decode", 10.0)
    line = time_line(tiny_backbone, source, [], range(sampling), 3, replays=replays, decoded=decoded)
    halves = 2 if tiny_backbone.guided else 1
    expected = 2 * 100 * (sampling + replays * sampling / halves) + 10 * (6 + decoded)
    assert line.startswith(f"about {expected / 60:.0f} min for the passes over images on cpu, by two steps of 3 images")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_estimates(family_folders, name):
    size = 32 if name == "flux" else None
    backbone = shared_backbone(family_folders[name], scheduler="own", guidance=3, size=size)
    source = Generation(scene_prompts(2), sampling_steps=2)
    assert "networks at work" in memory_line(backbone, 2, 0)
    assert time_line(backbone, source, [], [0, 1], 2, replays=1, decoded=2).startswith("about ")


def test_a_single_timestep_of_real_images_is_timed_by_taking_it_twice(tiny_backbone):
    source = Noised(load_scenes(count=3)[0], [0])
    assert "by two steps of 2 images" in time_line(
        tiny_backbone, source, ["mid_block.resnets.0"], [0], 2, replays=0, decoded=0
    )
