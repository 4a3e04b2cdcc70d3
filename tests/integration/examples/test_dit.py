"""A family from outside the package, by one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffprobe.backbone.capture import encode_prompts
from diffprobe.backbone.families.stable_diffusion import StableDiffusion
from diffprobe.backbone.layers import catalogue
from diffprobe.backbone.load import load_backbone
from diffprobe.backbone.trajectory import evaluate, generate
from tests.tiny_families import tiny_autoencoder

FOLDER = Path(__file__).parent / "dit"


@pytest.fixture
def dit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A random pipeline of 16x16 latents."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    monkeypatch.syspath_prepend(FOLDER)
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    pipeline = DiTPipeline(transformer, tiny_autoencoder(), DDIMScheduler())  # type: ignore[arg-type]
    pipeline.save_pretrained(tmp_path / "model", safe_serialization=True)
    return tmp_path / "model"


def test_a_pipeline_of_a_family_from_outside_is_loaded_sampled_and_captured(dit: Path) -> None:
    from dit_family import DiT

    backbone = load_backbone(str(dit), device="cpu", guidance=4.0, scheduler="ddim", family=DiT())
    layers = {layer.name: layer for layer in catalogue(backbone.denoiser)}
    name = "transformer_blocks.1"
    assert (layers[name].channels, layers[name].height, layers[name].width) == (16, 8, 8)
    steps = list(generate(backbone, ["3", "7"], [0, 1], steps=2, layers=[name]))
    assert steps[-1].activations[name].shape == (2, 16, 8, 8)
    other = list(generate(backbone, ["3", "8"], [0, 1], steps=2, layers=[name]))
    torch.testing.assert_close(other[-1].activations[name][0], steps[-1].activations[name][0])
    assert not torch.allclose(other[-1].activations[name][1], steps[-1].activations[name][1])


def test_its_guidance_is_that_of_the_pipeline(dit: Path) -> None:
    """Unconditional and conditional halves, evaluated alone, give the guided noise that a step of DDIM takes."""
    from dit_family import DiT

    backbone = load_backbone(str(dit), device="cpu", guidance=4.0, scheduler="ddim", family=DiT())
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        both = evaluate(backbone.denoiser, torch.cat([latents] * 2), 500, encode_prompts(backbone, ["3"], guided=True))
        apart = [
            backbone.denoiser(latents, torch.tensor([500]), class_labels=torch.tensor([label]))[0][:, :4]
            for label in (10, 3)
        ]
    torch.testing.assert_close(both, torch.cat(apart), rtol=1e-4, atol=1e-5)


def test_a_family_that_is_given_runs_the_networks_of_another_and_is_in_the_fingerprint(
    tiny_pipeline_folder: Path,
) -> None:
    class Halved(StableDiffusion):
        def evaluate(self, denoiser, latents, timestep, conditions):
            return super().evaluate(denoiser, latents, timestep, conditions) / 2

    usual = load_backbone(str(tiny_pipeline_folder), device="cpu")
    given = load_backbone(str(tiny_pipeline_folder), device="cpu", family=Halved())
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        one, other = (
            evaluate(each.denoiser, latents, 500, encode_prompts(each, ["a cat"], guided=False))
            for each in (usual, given)
        )
    torch.testing.assert_close(other, one / 2)
    assert given.fingerprints != usual.fingerprints
    assert {**given.fingerprints, "family": None} == {**usual.fingerprints, "family": None}
