from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from torch import Tensor

from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.backbone.real_images import draw_noise
from diffprobe.backbone.samplers import SCHEDULERS
from diffprobe.backbone.trajectory import TrajectoryStep, fresh_scheduler, generate, replay
from diffprobe.errors import UserError
from tests.tiny import build_tiny_pipeline, shared_backbone

PROMPTS = ["a red ball", "two cubes, left and right", "a green cone behind a wall"]
SEEDS = [7, 12345678, 3]
LAYERS = ["down_blocks.2.resnets.0", "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"]


def all_steps(backbone: Backbone, **options: object) -> list[TrajectoryStep]:
    return list(generate(backbone, PROMPTS, SEEDS, **{"steps": 3, **options}))  # type: ignore[arg-type]


def plain_images(backbone: Backbone, steps: int) -> Tensor:
    """The images of an untouched pipeline call with one CPU generator per image."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    return backbone.pipeline(
        PROMPTS,
        generator=generators,
        num_inference_steps=steps,
        guidance_scale=backbone.guidance,
        output_type="pt",
    ).images


@pytest.mark.parametrize(("scheduler", "guidance"), [*((name, 7.5) for name in SCHEDULERS), ("lms", 1.0)])
def test_final_images_are_those_of_the_plain_pipeline(
    tiny_pipeline_folder: Path, scheduler: str, guidance: float
) -> None:
    backbone = shared_backbone(tiny_pipeline_folder, scheduler=scheduler, guidance=guidance)
    last = all_steps(backbone, steps=5, layers=LAYERS, decode=True)[-1]
    expected = plain_images(backbone, steps=5)
    assert last.images is not None
    assert torch.equal(last.images, expected)
    assert expected.std() > 0.01  # a blank image would agree with anything


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("TCDScheduler", {}),
        ("LCMScheduler", {}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ],
)
def test_samplers_that_draw_noise_are_told_what_the_plain_pipeline_tells_them(
    tiny_backbone: Backbone, sampler: str, options: dict[str, str]
) -> None:
    pipeline = type(tiny_backbone.pipeline)(**tiny_backbone.pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, sampler).from_config(tiny_backbone.pipeline.scheduler.config, **options)
    backbone = replace(tiny_backbone, pipeline=pipeline)
    last = all_steps(backbone, steps=4, decode=True)[-1]
    assert last.images is not None
    assert torch.equal(last.images, plain_images(backbone, steps=4))


def test_a_model_in_pixel_space_leaves_samplers_their_own_share_of_new_noise(
    family_folders: Mapping[str, Path],
) -> None:
    backbone = load_backbone(str(family_folders["ddpm"]), device="cpu", scheduler="own")
    backbone.pipeline.scheduler = diffusers.TCDScheduler()
    last = list(generate(backbone, ["", ""], SEEDS[:2], steps=3, decode=True))[-1]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS[:2]]
    plain = backbone.pipeline(2, generator=generators, num_inference_steps=3, output_type="np").images
    assert last.images is not None
    assert torch.equal(last.images, torch.from_numpy(plain).permute(0, 3, 1, 2))


def test_initial_noise_is_the_papers() -> None:
    torch.manual_seed(SEEDS[1])
    assert torch.equal(draw_noise(SEEDS, (4, 64, 64))[0][1:2], torch.randn((1, 4, 64, 64)))


def test_first_noisy_latents_are_noise_times_the_initial_sigma(tiny_backbone: Backbone) -> None:
    first = next(generate(tiny_backbone, PROMPTS, SEEDS, steps=15))
    sigma = tiny_backbone.pipeline.scheduler.init_noise_sigma
    assert torch.allclose(first.noisy, draw_noise(SEEDS, (4, 16, 16))[0] * sigma)
    assert first.noisy.std() > 10


def test_images_and_activations_do_not_depend_on_the_batch(tiny_backbone: Backbone) -> None:
    together = all_steps(tiny_backbone, layers=LAYERS, decode=True)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        alone = list(generate(tiny_backbone, [prompt], [seed], steps=3, layers=LAYERS, decode=True))
        for ours, theirs in zip(alone, together, strict=True):
            assert ours.images is not None
            assert theirs.images is not None
            assert torch.allclose(ours.images[0], theirs.images[row], atol=1e-5)
            for name in LAYERS:
                assert torch.allclose(ours.activations[name][0], theirs.activations[name][row], atol=1e-4)


def test_steps_follow_on_each_other_and_carry_every_layer(tiny_backbone: Backbone) -> None:
    steps = all_steps(tiny_backbone, layers=LAYERS, decode=True)
    assert [step.index for step in steps] == [0, 1, 2]
    assert [step.timestep for step in steps] == [999.0, 499.5, 0.0]
    for step, following in itertools.pairwise(steps):
        assert torch.equal(step.latents, following.noisy)
        assert not torch.equal(step.noisy, following.noisy)
    for step in steps:
        assert list(step.activations) == LAYERS
        assert step.activations[LAYERS[0]].shape == (3, 16, 4, 4)
        assert step.activations[LAYERS[1]].shape == (3, 8, 16, 16)
        assert step.images is not None
        assert step.images.shape == (3, 3, 128, 128)
        assert 0 <= step.images.min() <= step.images.max() <= 1


def test_images_are_decoded_on_request_only(tiny_backbone: Backbone) -> None:
    assert next(generate(tiny_backbone, PROMPTS, SEEDS, steps=1)).images is None


def test_conditional_half_knows_the_prompt_and_the_other_does_not(tiny_backbone: Backbone) -> None:
    def first(prompt: str, half: str) -> Tensor:
        step = next(generate(tiny_backbone, [prompt], [1], steps=2, layers=LAYERS, half=half))
        return step.activations[LAYERS[1]]

    assert not torch.equal(first("a ball", "conditional"), first("a cube", "conditional"))
    assert torch.equal(first("a ball", "unconditional"), first("a cube", "unconditional"))
    both = first("a ball", "both")
    assert torch.equal(both, torch.cat([first("a ball", "unconditional"), first("a ball", "conditional")]))


def test_without_guidance_the_network_runs_on_the_prompt_alone(tiny_backbone: Backbone) -> None:
    seen: list[int] = []
    unguided = replace(tiny_backbone, guidance=1.0)
    hook = unguided.denoiser.conv_in.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    try:
        step = all_steps(unguided, steps=1, layers=LAYERS)[0]
    finally:
        hook.remove()
    assert seen == [3]
    assert len(step.activations[LAYERS[0]]) == 3


def test_calls_are_independent_of_each_other(tiny_backbone: Backbone) -> None:
    expected = all_steps(tiny_backbone)[-1].latents
    one, other = (generate(tiny_backbone, PROMPTS, SEEDS, steps=3) for _ in range(2))
    interleaved = list(zip(one, other, strict=True))
    next(generate(tiny_backbone, PROMPTS, SEEDS, steps=9))  # left unfinished
    for last in (*interleaved[-1], all_steps(tiny_backbone)[-1]):
        assert torch.equal(last.latents, expected)


def test_gradients_stay_on_for_the_caller_and_activations_can_be_trained_on(tiny_backbone: Backbone) -> None:
    for step in generate(tiny_backbone, PROMPTS, SEEDS, steps=2, layers=LAYERS):
        assert torch.is_grad_enabled()
        weight = torch.zeros(16, requires_grad=True)
        torch.einsum("c,bchw->bhw", weight, step.activations[LAYERS[0]]).sum().backward()
        assert weight.grad is not None
        assert not step.latents.requires_grad


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [1]}, "3 prompts and 1 seeds"),
        ({"prompts": [], "seeds": []}, "0 prompts and 0 seeds"),
        ({"steps": 0}, "0 sampling steps; use 1 to 1000"),
        ({"steps": 1001}, "1001 sampling steps; use 1 to 1000"),
        ({"half": "left"}, "no half 'left'"),
        ({"layers": ["mid_block.resnet.0"]}, r"nearest: mid_block\.resnets\.0"),
    ],
)
def test_impossible_requests_fail_at_once(tiny_backbone: Backbone, change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        generate(tiny_backbone, **{"prompts": PROMPTS, "seeds": SEEDS, **change})  # type: ignore[arg-type]


def test_unconditional_half_needs_guidance(tiny_backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"no half 'unconditional' at guidance 1\.0"):
        generate(replace(tiny_backbone, guidance=1.0), PROMPTS, SEEDS, half="unconditional")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_replaying_the_own_denoiser_gives_the_trajectorys_activations(
    tiny_pipeline_folder: Path, scheduler: str
) -> None:
    backbone = shared_backbone(tiny_pipeline_folder, scheduler=scheduler)
    steps = all_steps(backbone, steps=5, layers=LAYERS)
    chosen = [steps[index] for index in (4, 0, 2)]  # any subset, in any order
    noisy = torch.stack([step.noisy for step in chosen])
    replayed = list(
        replay(
            backbone,
            backbone.denoiser,
            PROMPTS,
            noisy,
            [4, 0, 2],
            scheduler=fresh_scheduler(backbone, 5),
            layers=LAYERS,
        )
    )
    for step, again in zip(chosen, replayed, strict=True):
        assert (again.index, again.timestep) == (step.index, step.timestep)
        for name in LAYERS:
            assert torch.allclose(again.activations[name], step.activations[name], atol=1e-5)


def test_replay_asks_the_other_denoiser_and_stops_early(tiny_backbone: Backbone) -> None:
    steps = all_steps(tiny_backbone, steps=2, layers=LAYERS[:1])
    noisy = torch.stack([step.noisy for step in steps])
    other = copy.deepcopy(tiny_backbone.denoiser)
    for parameter in other.parameters():
        parameter.copy_(parameter.flatten().flip(0).view_as(parameter))
    ran: list[int] = []
    other.mid_block.register_forward_hook(lambda module, inputs, output: ran.append(len(output)))
    other.conv_in.register_forward_hook(lambda module, inputs, output: ran.append(len(output)))
    replayed = list(
        replay(
            tiny_backbone, other, PROMPTS, noisy, [0, 1], scheduler=fresh_scheduler(tiny_backbone, 2), layers=LAYERS[:1]
        )
    )
    assert ran == [6]  # conv_in once for two steps, on their conditional batches; mid_block never
    for step, again in zip(steps, replayed, strict=True):
        assert not torch.allclose(again.activations[LAYERS[0]], step.activations[LAYERS[0]], atol=1e-2)


def test_replay_refuses_what_does_not_fit(tiny_backbone: Backbone) -> None:
    noisy = torch.zeros(2, 3, 4, 16, 16)
    with pytest.raises(UserError, match=r"shape \[2, 3, 4, 16, 16\] for 1 steps of 3 prompts"):
        replay(
            tiny_backbone,
            tiny_backbone.denoiser,
            PROMPTS,
            noisy,
            [0],
            scheduler=fresh_scheduler(tiny_backbone, 2),
            layers=LAYERS,
        )
    with pytest.raises(UserError, match=r"steps \[1, 2\] of a trajectory of 2 steps"):
        replay(
            tiny_backbone,
            tiny_backbone.denoiser,
            PROMPTS,
            noisy,
            [1, 2],
            scheduler=fresh_scheduler(tiny_backbone, 2),
            layers=LAYERS,
        )
    with pytest.raises(UserError, match="no layers are wanted"):
        replay(
            tiny_backbone,
            tiny_backbone.denoiser,
            PROMPTS,
            noisy,
            [0, 1],
            scheduler=fresh_scheduler(tiny_backbone, 2),
            layers=[],
        )


def test_the_layout_of_sd14_at_512_pixels_goes_through(tmp_path: Path) -> None:
    backbone = load_backbone(str(build_tiny_pipeline(tmp_path / "large", sample_size=64)), device="cpu")
    assert backbone.image_size == 512
    step = next(generate(backbone, PROMPTS[:1], SEEDS[:1], steps=1, layers=LAYERS, decode=True))
    assert step.activations[LAYERS[1]].shape == (1, 8, 64, 64)
    assert step.images is not None
    assert step.images.shape == (1, 3, 512, 512)
    assert torch.isfinite(step.latents).all()


def test_activations_that_are_replaced_change_the_steps_from_there_on(tiny_backbone):
    plain = [step.latents for step in generate(tiny_backbone, PROMPTS, SEEDS, steps=3)]
    same = {1: {LAYERS[0]: lambda activation: activation}}
    other = {1: {LAYERS[0]: lambda activation: activation + 1}}
    for step in generate(tiny_backbone, PROMPTS, SEEDS, steps=3, replace=same):
        assert torch.equal(step.latents, plain[step.index])
    changed = [step.latents for step in generate(tiny_backbone, PROMPTS, SEEDS, steps=3, replace=other)]
    assert torch.equal(changed[0], plain[0])
    assert not torch.allclose(changed[1], plain[1])
    assert not torch.allclose(changed[2], plain[2])


def test_replacing_where_there_is_nothing_is_refused_at_once(tiny_backbone):
    with pytest.raises(UserError, match="nowhere"):
        generate(tiny_backbone, PROMPTS, SEEDS, steps=2, replace={0: {"nowhere": lambda activation: activation}})
    with pytest.raises(UserError, match="steps"):
        generate(tiny_backbone, PROMPTS, SEEDS, steps=2, replace={2: {LAYERS[0]: lambda activation: activation}})
