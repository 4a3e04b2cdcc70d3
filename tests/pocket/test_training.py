"""Training of the pocket parts: what their losses and tricks promise, resuming, and the whole chain at toy size."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from diffprobe.pocket.networks import SCALING_FACTOR, WORDS, build_autoencoder, build_denoiser, build_tokenizer
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.pocket.training.fit import fit
from diffprobe.pocket.training.modules import (
    DenoiserModule,
    TextModule,
    mixed_images,
    random_captions,
    standardise,
    start_gently,
    to_signed,
)


def test_every_word_of_the_grammar_is_one_token_and_others_fall_apart():
    tokenizer = build_tokenizer()
    assert all(len(tokenizer.tokenize(word)) == 1 for word in WORDS)
    assert len(tokenizer.tokenize("zebra")) > 1


def test_random_captions_say_what_their_numbers_say():
    captions, colours, shapes = random_captions(3, 50)
    for caption, colour, shape in zip(captions, colours.tolist(), shapes.tolist(), strict=True):
        said = re.findall(r"a (\w+) (\w+)", caption)
        if " to the right of " in caption:
            said = said[::-1]
        assert said == [(COLOURS[c], SHAPES[s]) for c, s in zip(colour, shape, strict=True) if c < len(COLOURS)]


def test_standardising_the_latents_changes_their_scale_and_nothing_else():
    torch.manual_seed(0)
    autoencoder = build_autoencoder().eval()
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        before = autoencoder.decode(autoencoder.encode(to_signed(images)).latent_dist.mean).sample
        spread = autoencoder.encode(to_signed(images)).latent_dist
        ratio = spread.std / spread.mean.std((0, 2, 3))[:, None, None]
        standardise(autoencoder, images)
        after = autoencoder.decode(autoencoder.encode(to_signed(images)).latent_dist.mean).sample
        latents = autoencoder.encode(to_signed(images)).latent_dist
    assert torch.allclose(before, after, atol=1e-4)
    scaled = latents.mean * SCALING_FACTOR
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(latents.std * SCALING_FACTOR, ratio, rtol=1e-3)


def test_a_gentle_start_predicts_nothing_and_attends_to_like_tokens():
    denoiser = build_denoiser()
    start_gently(denoiser)
    with torch.no_grad():
        out = denoiser(torch.randn(1, 4, 16, 16), 5, torch.randn(1, 24, 64)).sample
    assert torch.equal(out, torch.zeros_like(out))
    attention = denoiser.mid_block.attentions[0].transformer_blocks[0].attn1
    assert torch.equal(attention.to_q.weight, attention.to_k.weight)


def test_degraded_pictures_come_with_their_own_scene():
    images = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, 64, 64)
    degraded = images[:10] + 100
    pictures, rows = mixed_images(images, degraded, 16, torch.Generator().manual_seed(0))
    assert pictures.shape == (16, 3, 64, 64)
    assert (rows[12:] < 10).all()
    assert torch.allclose(pictures[12:, 0, 0, 0] * 255, (rows[12:] + 100).float())
    assert torch.allclose(pictures[:12].mean((1, 2, 3)) * 255, rows[:12].float(), atol=12)


class Broken(Exception):
    """What stops a run in the test below."""


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    undisturbed = TextModule(steps=8, batch_size=4)
    initial = {name: value.clone() for name, value in undisturbed.state_dict().items()}
    fit(undisturbed, tmp_path / "whole", 1, "32-true")

    stopped = TextModule(steps=8, batch_size=4)
    stopped.load_state_dict(initial)
    step = stopped.training_step

    def stop_at_five(*arguments):
        if stopped.global_step == 5:
            raise Broken
        return step(*arguments)

    monkeypatch.setattr(stopped, "training_step", stop_at_five)
    with pytest.raises(Broken):
        fit(stopped, tmp_path / "parts", 1, "32-true")
    resumed = TextModule(steps=8, batch_size=4)
    fit(resumed, tmp_path / "parts", 1, "32-true")
    for name, value in undisturbed.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name
    assert any(not torch.equal(value, undisturbed.state_dict()[name]) for name, value in initial.items())


@pytest.mark.slow
def test_the_denoiser_learns_two_latents():
    torch.manual_seed(0)
    from diffprobe.pocket.networks import build_text_encoder

    tokens = torch.randint(0, 100, (3, 24))
    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 4, 16, 16), np.float32))
    module = DenoiserModule(latents, tokens, build_text_encoder(130), steps=20, batch_size=2)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for number in range(8):
        monkey = torch.Generator().manual_seed(number % 2)
        module.generator = lambda source=monkey: source  # type: ignore[method-assign]
        module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
        loss = module.training_step(torch.zeros(1), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-2:]) < 0.9 * min(losses[:2])
    assert not any(parameter.grad is not None for parameter in module.text_encoder.parameters())


@pytest.mark.slow
def test_one_command_makes_every_part_from_nothing(tmp_path, monkeypatch):
    from diffprobe.pocket.training import __main__ as command
    from diffprobe.pocket.training import card

    monkeypatch.setattr(command, "STEPS", dict.fromkeys(command.STEPS, 1))
    monkeypatch.setattr(command, "DEGRADED", 20)
    monkeypatch.setattr(command, "TRAIN_SCENES_MEASURED", 10)
    monkeypatch.setattr(command, "TEST_SCENES_MEASURED", 10)
    monkeypatch.setattr("diffprobe.pocket.training.fit.SHARD", 20)
    monkeypatch.setattr("diffprobe.pocket.training.fit.BATCH", 10)
    monkeypatch.setattr(card, "STEPS", 1)
    monkeypatch.setattr(card, "CAPTIONS", 2)
    monkeypatch.setattr(card, "SHEET", (1, 2))
    monkeypatch.setattr("sys.argv", ["training", "all", "--folder", str(tmp_path), "--scenes", "20"])
    command.main()
    weights = tmp_path / "weights"
    assert (weights / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    assert (tmp_path / "contact_sheet.png").is_file()
    assert (tmp_path / "scenes.png").is_file()
    measures = json.loads((weights / "measures.json").read_text())
    assert measures["training steps"] == dict.fromkeys(("text", "vae", "labeler", "surfaces", "classifier", "unet"), 1)
    assert f"{measures['autoencoder']['psnr_db']:.4g}" in (weights / "MODEL_CARD.md").read_text()
    assert not [path for path in weights.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
