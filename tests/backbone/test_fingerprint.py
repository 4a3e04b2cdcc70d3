"""A fingerprint is the same for the same network, and another for any other."""

from __future__ import annotations

import shutil

import torch
from torch import nn

from diffprobe.backbone.load import load_backbone
from diffprobe.backbone.model_folder import fingerprint_of


class Network(nn.Module):
    def __init__(self, **config: object) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.register_buffer("count", torch.tensor(3))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


def test_the_same_network_has_the_same_fingerprint_wherever_it_lies():
    wanted = fingerprint_of(Network(width=4))
    assert fingerprint_of(Network(width=4, _name_or_path="/elsewhere")) == wanted
    assert fingerprint_of(Network(width=4).to(memory_format=torch.channels_last)) == wanted
    assert len(wanted) == 64


def test_any_change_of_a_network_changes_it():
    swapped = Network(width=4)
    swapped.second.weight, swapped.second.bias = swapped.second.weight, nn.Parameter(swapped.first.bias.clone())
    last_bit = Network(width=4)
    last_bit.first.weight.data.view(torch.int32)[0, 0, 0, 0] ^= 1
    buffer = Network(width=4)
    buffer.count += 1
    reshaped = Network(width=4)
    reshaped.first.bias = nn.Parameter(reshaped.first.bias.detach().reshape(2, 2))
    others = [Network(width=5), Network(width=4).half(), swapped, last_bit, buffer, reshaped]
    fingerprints = {fingerprint_of(network) for network in [Network(width=4), *others]}
    assert len(fingerprints) == 1 + len(others)


def test_parts_of_a_pipeline_have_the_same_fingerprint_wherever_they_were_loaded_from(
    tiny_backbone, tiny_pipeline_folder, tmp_path
):
    again = load_backbone(str(shutil.copytree(tiny_pipeline_folder, tmp_path / "copy")), device="cpu")
    for part in ("unet", "vae", "text_encoder"):
        network = getattr(tiny_backbone.pipeline, part)
        other = getattr(again.pipeline, part)
        assert fingerprint_of(other) == fingerprint_of(network)
        with torch.no_grad():
            next(reversed(list(other.parameters()))).view(-1)[-1].add_(1e-3)
        assert fingerprint_of(other) != fingerprint_of(network)
