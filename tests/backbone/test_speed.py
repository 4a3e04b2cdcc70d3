"""What makes the denoiser faster leaves what it computes, up to precision, and what can be captured."""

from __future__ import annotations

import copy

import pytest
import torch

from diffprobe.backbone.capture import capture
from diffprobe.backbone.load import load_backbone
from diffprobe.errors import UserError

HEADLINE = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"
INSIDE = "up_blocks.3.resnets.0.conv1"


@torch.no_grad()
def captured(backbone, layer):
    generator = torch.Generator().manual_seed(0)
    noise, text = torch.randn(1, 4, 16, 16, generator=generator), torch.randn(1, 77, 16, generator=generator)
    with capture(backbone.denoiser, [layer], guided=False) as taken:
        backbone.denoiser(noise, 500, text)
    return taken.activations[layer]


@pytest.fixture(scope="module")
def plain(tiny_backbone):
    return captured(tiny_backbone, HEADLINE)


def test_autocast_computes_in_half_precision_from_weights_in_full(tiny_pipeline_folder, plain):
    backbone = load_backbone(str(tiny_pipeline_folder), device="cpu", autocast="bfloat16")
    found = captured(backbone, HEADLINE)
    assert found.dtype == torch.bfloat16
    assert next(backbone.denoiser.parameters()).dtype == torch.float32
    assert 0 < (found.float() - plain).abs().max() < 0.1 * plain.abs().max()


def test_channels_last_changes_the_layout_alone(tiny_pipeline_folder, tiny_backbone, plain):
    backbone = load_backbone(str(tiny_pipeline_folder), device="cpu", channels_last=True)
    weight = backbone.denoiser.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert torch.allclose(captured(backbone, HEADLINE), plain, atol=1e-4)
    assert backbone.fingerprints == tiny_backbone.fingerprints


def test_compiled_parts_give_the_same_and_refuse_hooks_inside_them(monkeypatch, tiny_pipeline_folder, plain):
    compiled = []

    def compile_eagerly(forward):
        compiled.append(forward)
        return torch._dynamo.optimize("eager")(forward)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    backbone = load_backbone(str(tiny_pipeline_folder), device="cpu", compile=True)
    assert len(compiled) == 22 + 16  # residual blocks and feed-forwards of SD 1.4's layout
    assert torch.allclose(captured(backbone, HEADLINE), plain, atol=1e-4)
    assert captured(backbone, "up_blocks.3.resnets.0").shape == (1, 8, 16, 16)  # hooks stay outside
    with pytest.raises(UserError, match=r"inside 'up_blocks.3.resnets.0', which is compiled"):
        capture(backbone.denoiser, [INSIDE])
    assert captured(load_backbone(str(tiny_pipeline_folder), device="cpu"), INSIDE).shape == (1, 8, 16, 16)


def test_an_unknown_precision_is_refused(tiny_pipeline_folder):
    with pytest.raises(UserError, match="no autocast precision 'fp8'"):
        load_backbone(str(tiny_pipeline_folder), device="cpu", autocast="fp8")


@pytest.mark.parametrize("options", [{"autocast": "bfloat16"}, {"compile": True}])
def test_a_copy_of_a_faster_network_computes_with_its_own_weights(monkeypatch, tiny_pipeline_folder, options):
    monkeypatch.setattr(torch, "compile", lambda forward: torch._dynamo.optimize("eager")(forward))
    backbone = load_backbone(str(tiny_pipeline_folder), device="cpu", **options)
    copied = copy.deepcopy(backbone)
    before = captured(backbone, "up_blocks.3.resnets.2")
    with torch.no_grad():
        copied.denoiser.get_submodule("up_blocks.3.resnets.2").conv2.weight.zero_()
    assert not torch.allclose(captured(copied, "up_blocks.3.resnets.2"), before)
    assert torch.equal(captured(backbone, "up_blocks.3.resnets.2"), before)
