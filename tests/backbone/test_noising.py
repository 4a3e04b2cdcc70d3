"""Real images noised and shown to the denoiser: what it sees, whose noise it is, and how often it is asked."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffprobe.backbone.capture import add_noise, capture, encode_prompts
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.real_images import draw_noise, evaluate_noised, seed_of
from diffprobe.backbone.samplers import SCHEDULERS
from diffprobe.backbone.trajectory import TrajectoryStep, evaluate, fresh_scheduler
from diffprobe.errors import UserError
from tests.tiny import shared_backbone

LAYERS = ["down_blocks.2.resnets.0", "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"]
SEEDS = [7, 12345678, 3]
LATENTS = torch.randn((3, 4, 16, 16), generator=torch.Generator().manual_seed(0))


def noised(backbone: Backbone, timesteps: list[float], **options) -> list[TrajectoryStep]:
    options = {"latents": LATENTS, "seeds": SEEDS, "layers": LAYERS, **options}
    return list(evaluate_noised(backbone, timesteps=timesteps, **options))


@contextmanager
def seen(denoiser: torch.nn.Module) -> Iterator[list[tuple[Tensor, float]]]:
    """(latents, timestep) of every evaluation inside the block."""
    calls: list[tuple[Tensor, float]] = []

    def record(module: torch.nn.Module, inputs: tuple, keywords: dict) -> None:
        calls.append((inputs[0].clone(), float(inputs[1])))

    handle = denoiser.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_denoiser_sees_image_and_noise_in_the_proportion_of_the_timestep(
    tiny_pipeline_folder: Path, scheduler: str
) -> None:
    backbone = shared_backbone(tiny_pipeline_folder, scheduler=scheduler)
    alpha_bar = backbone.pipeline.scheduler.alphas_cumprod
    timesteps = [999, 0, 500, 31]
    with seen(backbone.denoiser) as calls:
        steps = noised(backbone, timesteps)
    assert [timestep for _, timestep in calls] == timesteps
    for step, timestep, (inputs, _) in zip(steps, timesteps, calls, strict=True):
        share = alpha_bar[timestep]
        expected = share.sqrt() * LATENTS + (1 - share).sqrt() * draw_noise(SEEDS, (4, 16, 16))[0]
        assert torch.allclose(inputs, expected, atol=1e-5)
        assert torch.equal(step.latents, LATENTS)
        assert step.images is None
    assert [(step.index, step.timestep) for step in steps] == [(0, 999.0), (1, 0.0), (2, 500.0), (3, 31.0)]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_noisy_latents_are_as_the_sampler_has_them_at_its_own_timesteps(
    tiny_pipeline_folder: Path, scheduler: str
) -> None:
    """Also where LMS and Euler visit fractions."""
    backbone = shared_backbone(tiny_pipeline_folder, scheduler=scheduler)
    timesteps = [float(timestep) for timestep in fresh_scheduler(backbone, 8).timesteps]
    with seen(backbone.denoiser) as calls:
        steps = noised(backbone, timesteps)
    for index, (step, (inputs, _)) in enumerate(zip(steps, calls, strict=True)):
        fresh = fresh_scheduler(backbone, 8)
        expected = fresh.add_noise(LATENTS, draw_noise(SEEDS, (4, 16, 16))[0], fresh.timesteps[index].repeat(3))
        assert torch.allclose(step.noisy, expected, rtol=1e-4, atol=1e-4)
        assert torch.allclose(inputs, fresh.scale_model_input(step.noisy, fresh.timesteps[index]), atol=1e-5)


@pytest.mark.parametrize(("name", "layer"), [("sd3", "transformer_blocks.0.attn"), ("ddpm", "mid_block.resnets.0")])
def test_other_families_are_noised_their_way(family_folders: Mapping[str, Path], name: str, layer: str) -> None:
    backbone = shared_backbone(family_folders[name], scheduler="own")
    clean = torch.rand((2, *backbone.latent_shape), generator=torch.Generator().manual_seed(0))
    noise = draw_noise(SEEDS[:2], backbone.latent_shape)[0]
    (step,) = evaluate_noised(backbone, clean, SEEDS[:2], [250], [layer])
    assert step.activations[layer].shape[0] == 2
    if name == "sd3":  # flow matching: a straight line
        assert torch.allclose(step.noisy, 0.75 * clean + 0.25 * noise, atol=1e-6)
        (pure,) = evaluate_noised(backbone, clean, SEEDS[:2], [1000], [layer])
        assert torch.equal(pure.noisy, noise)
    else:
        share = backbone.pipeline.scheduler.alphas_cumprod[250]
        assert torch.allclose(step.noisy, share.sqrt() * clean + (1 - share).sqrt() * noise, atol=1e-6)


def test_activations_are_those_of_one_plain_evaluation_of_each_image(tiny_backbone: Backbone) -> None:
    prompts = ["a red ball", "", "a cube"]
    steps = noised(tiny_backbone, [100, 700], prompts=prompts)
    for row, (prompt, seed) in enumerate(zip(prompts, SEEDS, strict=True)):
        for step, timestep in zip(steps, (100, 700), strict=True):
            share = tiny_backbone.pipeline.scheduler.alphas_cumprod[timestep]
            image, noise = LATENTS[row : row + 1], draw_noise([seed], (4, 16, 16))[0]
            with capture(tiny_backbone.denoiser, LAYERS, guided=False) as taken, torch.no_grad():
                conditions = encode_prompts(tiny_backbone, [prompt], guided=False)
                inputs = share.sqrt() * image + (1 - share).sqrt() * noise
                evaluate(tiny_backbone.denoiser, inputs, torch.tensor(timestep), conditions)
            for name in LAYERS:
                assert torch.allclose(step.activations[name][row], taken.activations[name][0], atol=1e-4)


def test_without_noise_the_denoiser_sees_the_clean_latents(tiny_backbone: Backbone) -> None:
    with seen(tiny_backbone.denoiser) as calls:
        (step,) = noised(tiny_backbone, [0], noise="off")
    ((inputs, timestep),) = calls
    assert torch.equal(inputs, LATENTS)
    assert timestep == 0
    assert torch.equal(step.noisy, LATENTS)
    (other,) = noised(tiny_backbone, [0], noise="seeded")
    assert not torch.equal(step.activations[LAYERS[0]], other.activations[LAYERS[0]])


def test_several_draws_give_the_mean_of_their_activations(tiny_backbone: Backbone) -> None:
    noises = draw_noise(SEEDS, (4, 16, 16), draws=3)
    with seen(tiny_backbone.denoiser) as calls:
        step, later = noised(tiny_backbone, [300, 600], draws=3)
    assert [timestep for _, timestep in calls] == [300, 300, 300, 600, 600, 600]  # each once
    each: list[dict[str, Tensor]] = []
    for inputs, timestep in calls[:3]:
        with capture(tiny_backbone.denoiser, LAYERS, guided=False) as taken, torch.no_grad():
            conditions = encode_prompts(tiny_backbone, [""] * 3, guided=False)
            evaluate(tiny_backbone.denoiser, inputs, torch.tensor(timestep), conditions)
        each.append(taken.activations)
    for name in LAYERS:
        mean = torch.stack([activations[name] for activations in each]).mean(0)
        assert torch.allclose(step.activations[name], mean, atol=1e-5)
        assert not torch.allclose(step.activations[name], each[0][name], atol=1e-3)
    assert torch.allclose(step.noisy, add_noise(tiny_backbone, LATENTS, noises[0], 300))
    assert later.activations is not step.activations


def test_means_of_half_precision_activations_are_summed_in_float32(tiny_pipeline_folder: Path) -> None:
    half = shared_backbone(tiny_pipeline_folder, dtype="bfloat16")
    (mean,) = noised(half, [300], draws=4, layers=LAYERS[:1])
    (alone,) = noised(half, [300], layers=LAYERS[:1])
    assert mean.activations[LAYERS[0]].dtype == torch.float32
    assert alone.activations[LAYERS[0]].dtype == alone.noisy.dtype == torch.bfloat16


def test_an_images_noise_depends_on_its_seed_and_the_draw_alone() -> None:
    together = draw_noise(SEEDS, (4, 8, 8), draws=3)
    assert torch.equal(together[0], draw_noise(SEEDS, (4, 8, 8))[0])
    for row, seed in enumerate(SEEDS):
        assert torch.equal(draw_noise([seed], (4, 8, 8), draws=5)[:3, 0], together[:, row])
    assert abs(float((together[0] * together[1]).mean())) < 0.1  # draws are independent
    assert float(together.std()) == pytest.approx(1, abs=0.05)


def test_batches_do_not_matter(tiny_backbone: Backbone) -> None:
    together = noised(tiny_backbone, [250], draws=2)[0]
    for row, seed in enumerate(SEEDS):
        alone = noised(tiny_backbone, [250], latents=LATENTS[row : row + 1], seeds=[seed], draws=2)[0]
        for name in LAYERS:
            assert torch.allclose(alone.activations[name][0], together.activations[name][row], atol=1e-4)


def test_names_give_seeds_that_stay_the_same() -> None:
    assert seed_of("cats/0001") == 4226026718
    seeds = [seed_of(f"{number:06d}") for number in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_forward_ends_after_the_last_wanted_layer(tiny_backbone: Backbone) -> None:
    ran: list[str] = []
    hooks = [
        tiny_backbone.denoiser.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in ("conv_in", "mid_block", "conv_out")
    ]
    try:
        noised(tiny_backbone, [10, 20], layers=LAYERS[:1])
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == ["conv_in", "conv_in"]


def test_another_denoiser_can_take_the_place_of_the_backbones(tiny_backbone: Backbone) -> None:
    other = copy.deepcopy(tiny_backbone.denoiser)
    for parameter in other.parameters():
        parameter.copy_(parameter.flatten().flip(0).view_as(parameter))
    (own,), (others,) = noised(tiny_backbone, [10]), noised(tiny_backbone, [10], denoiser=other)
    assert torch.equal(own.noisy, others.noisy)
    assert not torch.allclose(own.activations[LAYERS[0]], others.activations[LAYERS[0]], atol=1e-2)


def test_gradients_stay_on_for_the_caller(tiny_backbone: Backbone) -> None:
    for step in evaluate_noised(tiny_backbone, LATENTS, SEEDS, [1, 2], LAYERS):
        assert torch.is_grad_enabled()
        assert not step.activations[LAYERS[0]].requires_grad


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [1]}, "1 seeds for 3 images"),
        ({"prompts": ["a"]}, "1 prompts for 3 images"),
        ({"latents": LATENTS[0]}, r"latents of shape \[4, 16, 16\]"),
        ({"latents": LATENTS[:0], "seeds": []}, r"latents of shape \[0, 4, 16, 16\]"),
        ({"noise": "some"}, "no noise 'some'; use one of seeded, off"),
        ({"draws": 0}, "0 draws"),
        ({"noise": "off", "timesteps": [0], "draws": 2}, "2 draws of noise with noise 'off'"),
        ({"noise": "off", "timesteps": [0, 10]}, "a clean image belongs to timestep 0 alone"),
        ({"timesteps": []}, "timesteps none: choose from 0 to 999"),
        ({"timesteps": [3, 1000, -1]}, r"timesteps \[1000, -1\]: choose from 0 to 999"),
        ({"timesteps": [float("nan")]}, r"timesteps \[nan\]"),
        ({"timesteps": [3, 3.0]}, "one is there twice"),
        ({"layers": []}, "no layers are wanted"),
        ({"layers": ["mid_block.resnet.0"]}, r"nearest: mid_block\.resnets\.0"),
    ],
)
def test_impossible_requests_fail_at_once(tiny_backbone: Backbone, change: dict[str, object], said: str) -> None:
    options = {"latents": LATENTS, "seeds": SEEDS, "timesteps": [10], "layers": LAYERS, **change}
    with pytest.raises(UserError, match=said):
        evaluate_noised(tiny_backbone, **options)  # type: ignore[arg-type]
