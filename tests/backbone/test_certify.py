"""Every check of a certificate passes where the model is right, and does not where it is not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, LMSDiscreteScheduler

from diffprobe.backbone import certify as module
from diffprobe.backbone import published
from diffprobe.backbone.certificate import Check, certificate_path, copy_certificate, write_certificate
from diffprobe.backbone.certify import (
    certify,
    check_halves,
    check_image,
    check_layers,
    check_noise,
    check_round_trip,
    check_sampler,
    check_sizes,
    check_tokens,
    check_weights,
    main,
)
from diffprobe.backbone.load import Backbone, denoiser_without_weights, load_backbone
from diffprobe.backbone.model_folder import SD14
from tests.tiny import build_tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return load_backbone(str(folder), device="cpu")


def results(checks: list[Check]) -> dict[str, bool | None]:
    return {check.what: check.passed for check in checks}


def test_a_sound_model_of_another_shape_passes_what_can_be_checked(backbone: Backbone, folder: Path) -> None:
    checks = certify(backbone, str(folder), steps=3)
    assert not [check for check in checks if check.passed is False]
    passed = {check.what for check in checks if check.passed}
    assert passed == {"noise of seeds", "sampler", "half with prompt", "image of the plain pipeline", "image"}


# Files


def test_a_file_of_weights_is_known_by_its_checksum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    monkeypatch.setitem(published.WEIGHTS, hashlib.sha256(data).hexdigest(), "the tiny U-Net")
    found = {check.what: check for check in check_weights(str(folder))}
    unet = found["weights unet/diffusion_pytorch_model.safetensors"]
    assert unet.passed
    assert unet.found.endswith("..., the tiny U-Net")
    assert found["weights vae/diffusion_pytorch_model.safetensors"].passed is None


def test_a_file_with_a_published_name_and_another_content_fails(tmp_path: Path) -> None:
    file = tmp_path / "v1-5-pruned.safetensors"
    file.write_bytes(b"x")
    (check,) = check_weights(str(file))
    assert check.passed is False
    assert "not the v1-5-pruned.safetensors that was published" in check.advice


# What is publicly known of Stable Diffusion


def of_stable_diffusion_1(**parts: Any) -> Any:
    """Networks of Stable Diffusion 1.4 without weights, in the place of a backbone."""
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SD14 / "vae"))
    denoiser = denoiser_without_weights("sd14")
    pipeline = SimpleNamespace(**{"vae": vae, "text_encoder": None, "tokenizer": None, **parts})
    return SimpleNamespace(denoiser=denoiser, pipeline=pipeline, vae=vae, latent_shape=(4, 64, 64))


def test_sizes_are_those_of_stable_diffusion_1() -> None:
    sizes = results(check_sizes(of_stable_diffusion_1()))
    assert sizes == {"parameters of the denoiser": True, "parameters of the vae": True}


def test_a_network_of_another_size_fails() -> None:
    wrong = of_stable_diffusion_1(vae=torch.nn.Linear(2, 2))
    assert results(check_sizes(wrong))["parameters of the vae"] is False


@pytest.mark.parametrize(("width", "blocks"), [(1024, 4), (2048, 3)])
def test_sizes_of_later_versions_follow_from_their_configurations(width: int, blocks: int) -> None:
    from diffusers import UNet2DConditionModel

    common: dict[str, Any] = {"cross_attention_dim": width, "use_linear_projection": True}
    if blocks == 4:
        own: dict[str, Any] = {"attention_head_dim": (5, 10, 20, 20), "block_out_channels": (320, 640, 1280, 1280)}
    else:
        own = {
            "attention_head_dim": (5, 10, 20),
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
    with torch.device("meta"):
        denoiser = UNet2DConditionModel(**common, **own)
    (check,) = check_sizes(SimpleNamespace(denoiser=denoiser, pipeline=SimpleNamespace()))  # type: ignore[arg-type]
    assert check.passed


def test_layers_are_those_of_stable_diffusion_1(monkeypatch: pytest.MonkeyPatch) -> None:
    assert results(check_layers(of_stable_diffusion_1())) == {"self-attention layers": True}
    monkeypatch.setattr(published, "LAST_SELF_ATTENTION", "another.name")
    assert results(check_layers(of_stable_diffusion_1())) == {"self-attention layers": False}


class Tokenizer:
    """Gives the tokens that are known, or one too many."""

    def __init__(self, more: int = 0) -> None:
        self.more = more

    def __len__(self) -> int:
        return published.CLIP_TOKENS

    def __call__(self, prompt: str) -> Any:
        inside = [*published.PROMPT_TOKENS[prompt], *[7] * self.more]
        return SimpleNamespace(input_ids=[published.CLIP_START, *inside, published.CLIP_END])


def test_tokens_are_those_of_clip() -> None:
    assert check_tokens(of_stable_diffusion_1(tokenizer=Tokenizer()))[0].passed
    wrong = check_tokens(of_stable_diffusion_1(tokenizer=Tokenizer(more=1)))[0]
    assert (wrong.passed, wrong.found) == (False, "0 of 3 prompts as CLIP has them")


def test_noise_is_that_of_the_papers_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_noise()[0].passed
    monkeypatch.setitem(published.FIRST_NOISE, 47150135, (-0.4946, -0.2776, 1.2231, 2.0193))
    assert check_noise()[0].passed is False


def test_the_known_noise_levels_are_those_of_the_formula() -> None:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    products = np.cumprod(1 - betas)
    levels = np.sqrt((1 - products) / products)
    expected = np.interp(published.LMS_TIMESTEPS, np.arange(1000), levels)
    assert np.allclose(published.LMS_SIGMAS, expected, atol=6e-5)


def test_another_spacing_of_noise_levels_fails_and_another_sampler_is_not_compared(backbone: Backbone) -> None:
    assert check_sampler(backbone)[0].passed
    own = backbone.pipeline.scheduler
    backbone.pipeline.scheduler = LMSDiscreteScheduler.from_config(own.config, use_karras_sigmas=True)
    assert check_sampler(backbone)[0].passed is False
    backbone.pipeline.scheduler = LMSDiscreteScheduler.from_config(own.config, beta_end=0.02)
    assert check_sampler(backbone)[0].passed is None


def test_a_vae_that_does_not_keep_a_picture_fails(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_round_trip(backbone)[0].passed is None  # an untrained VAE of another size
    monkeypatch.setattr(published, "VAE_PARAMETERS", sum(each.numel() for each in backbone.vae.parameters()))
    assert check_round_trip(backbone)[0].passed is False
    monkeypatch.setattr(module, "encode_images", lambda backbone, images: images)
    monkeypatch.setattr(module, "decode_latents", lambda backbone, latents: latents + 0.05)
    assert check_round_trip(backbone)[0].passed  # 26 dB
    monkeypatch.setattr(module, "decode_latents", lambda backbone, latents: latents + 0.06)
    assert check_round_trip(backbone)[0].passed is False  # 24.4 dB


# What this machine does


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Changes what each step of a trajectory gives."""
    generate = module.generate
    monkeypatch.setattr(module, "generate", lambda *args, **more: (change(step) for step in generate(*args, **more)))


def test_halves_that_are_mixed_up_fail(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_halves(backbone, 3)[0].passed

    def mixed(step: Any) -> Any:
        return replace(step, activations={name: values.roll(1, 0) for name, values in step.activations.items()})

    changed(monkeypatch, mixed)
    assert check_halves(backbone, 3)[0].passed is False


def test_prompts_that_change_nothing_fail(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def even(step: Any) -> Any:
        return replace(step, activations={name: torch.ones_like(values) for name, values in step.activations.items()})

    changed(monkeypatch, even)
    assert check_halves(backbone, 3)[0].passed is False


def test_another_image_than_the_plain_pipelines_fails(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert results(check_image(backbone, 3))["image of the plain pipeline"]
    changed(monkeypatch, lambda step: replace(step, latents=step.latents * 1.1))
    assert results(check_image(backbone, 3))["image of the plain pipeline"] is False


def test_an_error_is_a_check_that_failed(backbone: Backbone, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*arguments: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "check_image", no_memory)
    last = certify(backbone, str(folder), steps=3)[-1]
    assert (last.what, last.passed, last.found) == ("image", False, "out of memory")


# The file


def test_the_command_writes_a_certificate_which_runs_of_the_same_model_copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(folder), "--device", "cpu", "--steps", "3"]) == 0
    (certificate,) = (tmp_path / "certificates").iterdir()
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"certificates/{certificate.name}: nothing failed"
    assert "noise of seeds" in out
    record = json.loads(certificate.read_text())
    assert record["passed"]
    assert record["dtype"] == "float32"
    assert {check["what"] for check in record["checks"]} >= {"sampler", "half with prompt"}
    copy_certificate(load_backbone(str(folder), device="cpu"), tmp_path)
    assert (tmp_path / "certificate.json").read_bytes() == certificate.read_bytes()
    (tmp_path / "certificate.json").unlink()
    copy_certificate(load_backbone(str(folder), device="cpu", dtype="bfloat16"), tmp_path)
    copy_certificate(load_backbone(str(folder), device="cpu", guidance=3, scheduler="ddim"), tmp_path / "none")
    assert not (tmp_path / "certificate.json").exists()


def test_a_failed_check_is_told_with_what_to_do_and_the_exit_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(published.FIRST_NOISE, 1, (0.0, 0.0))
    assert main([str(folder), "--device", "cpu", "--steps", "3"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "install another one" in out
    assert out.endswith(": 1 check failed\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no model 'nowhere'"),
        (["pocket", "--dtype", "float8"], "no dtype 'float8'"),
        (["pocket", "--steps", "0"], "0 sampling steps"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif("DIFFPROBE_FULL_SIZE" not in os.environ, reason="takes 9 GB and minutes; set DIFFPROBE_FULL_SIZE=1")
def test_a_random_model_of_full_size_passes_what_needs_no_training(tmp_path: Path) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from gpu import _full_size_pipeline

    path = str(_full_size_pipeline(tmp_path))
    checks = certify(load_backbone(path, device="cpu"), path, steps=2)
    named = results(checks)
    for what in ("parameters of the denoiser", "self-attention layers", "half with prompt", "sampler"):
        assert named[what], what
    assert named["image of the plain pipeline"]


def test_certificates_of_other_settings_are_other_files(folder: Path) -> None:
    same = [certificate_path(load_backbone(str(folder), device="cpu")) for _ in range(2)]
    assert same[0] == same[1]
    other = load_backbone(str(folder), device="cpu", dtype="float16")
    assert certificate_path(other) != same[0]


def test_a_certificate_is_written_whole_or_not_at_all(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def broken(*arguments: Any, **options: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", broken)
    with pytest.raises(KeyboardInterrupt):
        write_certificate(backbone, "tiny", [])
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "certificates"])
