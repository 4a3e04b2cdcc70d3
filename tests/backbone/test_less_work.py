"""Trajectories that branch off in mid-run, larger steps from there on, and deep features that are reused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffprobe.backbone import trajectory
from diffprobe.backbone.capture import encode_prompts
from diffprobe.backbone.less_work import DeepFeatures, check_larger_steps, operations, with_larger_steps
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import SamplingState, evaluate, fresh_scheduler, generate, sample_steps
from diffprobe.errors import UserError
from tests.backbone.test_mid_trajectory import CLEAN, PROMPTS, SAMPLERS, SEEDS, sampled_with
from tests.tiny import shared_backbone
from tests.tiny_families import Families

STEPS = 6
WITH_LEVELS = [one for one in SAMPLERS if one[0][:5] in ("LMSDi", "Euler", "UniPC", "DEISM") or "Multistep" in one[0]]


def states_after(backbone: Backbone, steps: int = STEPS) -> tuple[list[SamplingState], Tensor]:
    """The state after every step of a whole run, and its last latents."""
    state, found, latents = SamplingState.at_start(backbone, SEEDS, steps), [], torch.empty(0)
    for step in run(backbone, state, 0, steps):
        found.append(state.after(step))
        latents = step.latents
    return found, latents


def run(backbone: Backbone, state: SamplingState, first: int, stop: int, **options: Any) -> Any:
    options = {"guided": True, **options}
    indices, generators = range(first, stop), state.generators
    return sample_steps(backbone, state.scheduler, state.latents, PROMPTS, (), indices, generators, **options)


@pytest.mark.parametrize(("sampler", "options"), SAMPLERS, ids=lambda value: str(value))
def test_a_branch_that_changes_nothing_is_the_whole_run_bit_for_bit(
    tiny_backbone: Backbone, sampler: str, options: dict[str, Any]
) -> None:
    """Multistep samplers keep derivatives, and others draw noise on the way."""
    backbone = sampled_with(tiny_backbone, sampler, **options)
    states, last = states_after(backbone)
    for taken in (2, STEPS - 1):
        *_, end = run(backbone, states[taken - 1], taken, STEPS)
        assert torch.equal(end.latents, last)


def test_guidance_off_from_the_start_is_guidance_1(tiny_pipeline_folder) -> None:
    guided, plain = (shared_backbone(tiny_pipeline_folder, guidance=guidance) for guidance in (7.5, 1.0))
    *_, end = run(guided, SamplingState.at_start(guided, SEEDS, STEPS), 0, STEPS, guided=False)
    *_, without = generate(plain, PROMPTS, SEEDS, steps=STEPS)
    *_, whole = generate(guided, PROMPTS, SEEDS, steps=STEPS)
    assert torch.equal(end.latents, without.latents)
    assert not torch.allclose(whole.latents, without.latents, atol=1e-3)


@pytest.mark.parametrize(("sampler", "options"), WITH_LEVELS, ids=lambda value: str(value))
@pytest.mark.parametrize(("taken", "times"), [(0, 2), (5, 3), (8, 2), (13, 2)])
def test_larger_steps_of_a_denoiser_that_knows_the_image_find_it_again(
    tiny_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    options: dict[str, Any],
    taken: int,
    times: int,
) -> None:
    backbone, steps = sampled_with(tiny_backbone, sampler, **options), 15
    state = SamplingState.at_start(backbone, SEEDS, steps)
    levels = iter([float(sigma) for sigma in state.scheduler.sigmas[:taken]])

    def knows(denoiser: Any, inputs: Tensor, timestep: Any, conditions: Any) -> Tensor:
        level = next(levels)
        return (inputs * (1 + level**2) ** 0.5 - CLEAN) / level

    monkeypatch.setattr(trajectory, "evaluate", knows)
    for step in run(backbone, state, 0, taken, guided=False):
        begun = state.after(step)
    state = begun if taken else state
    larger = with_larger_steps(state.scheduler, taken, times)
    assert len(larger.timesteps) == taken + -(-(steps - taken) // times)
    levels = iter([float(sigma) for sigma in larger.sigmas[taken:-1]])
    *_, end = run(backbone, SamplingState(larger, state.latents, state.generators), taken, len(larger.timesteps),
                  guided=False)  # fmt: skip
    assert (end.latents - CLEAN).std() < 0.04  # the noise of timestep 0 that some samplers leave on purpose
    assert len(state.scheduler.timesteps) == steps


@pytest.mark.parametrize("sampler", ["DDIMScheduler", "DDPMScheduler", "DPMSolverSinglestepScheduler"])
def test_samplers_that_cannot_take_larger_steps_in_mid_run_say_so(tiny_backbone: Backbone, sampler: str) -> None:
    with pytest.raises(UserError, match=f"{sampler} cannot leave out steps of a trajectory"):
        check_larger_steps(fresh_scheduler(sampled_with(tiny_backbone, sampler), 6))


@pytest.mark.parametrize("name", ["sd2", "sdxl", "ddpm"])
def test_reused_features_of_the_same_evaluation_give_its_output_without_the_blocks_inside(
    family_folders: Families, name: str
) -> None:
    backbone = shared_backbone(family_folders[name])
    denoiser: Any = backbone.denoiser
    latents = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    ran: list[str] = []
    handles = [
        denoiser.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in (
            "down_blocks.0.resnets.0",
            "down_blocks.1.resnets.0",
            "mid_block.resnets.0",
            "up_blocks.0.resnets.0",
        )
    ]
    deep = DeepFeatures(denoiser)
    with torch.no_grad():
        conditions = encode_prompts(backbone, PROMPTS, guided=False)

        def evaluated(noisy: Tensor) -> Tensor:
            ran.clear()
            return evaluate(denoiser, noisy, 500, conditions)

        with deep.keeping():
            whole = evaluated(latents)
        assert len(ran) == 4
        with deep.reusing():
            assert torch.equal(evaluated(latents), whole)
            assert ran == ["down_blocks.0.resnets.0"]
            other = evaluated(latents + 0.1)
        assert not torch.allclose(other, evaluated(latents + 0.1))
        assert len(ran) == 4  # as before
    for handle in handles:
        handle.remove()


def test_an_evaluation_with_reused_features_takes_fewer_operations(tiny_backbone: Backbone) -> None:
    deep, latents = DeepFeatures(tiny_backbone.denoiser), torch.zeros(1, *tiny_backbone.latent_shape)
    conditions = encode_prompts(tiny_backbone, PROMPTS[:1], guided=False)

    def evaluated() -> Tensor:
        return evaluate(tiny_backbone.denoiser, latents, 500, conditions)

    with deep.keeping():
        whole = operations(evaluated)
    with deep.reusing():
        assert 0.2 * whole < operations(evaluated) < 0.7 * whole
    assert operations(evaluated) == whole


def test_networks_without_inner_blocks_have_no_deep_features(family_folders: Families) -> None:
    with pytest.raises(UserError, match="PixArtTransformer2DModel is no U-Net"):
        DeepFeatures(shared_backbone(family_folders["pixart"]).denoiser)


def test_compiled_blocks_cannot_be_left_out() -> None:
    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down_blocks = self.up_blocks = nn.ModuleList([nn.Identity(), nn.Identity()])

    denoiser = Denoiser()
    denoiser.up_blocks[0].diffprobe_compiled = True  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"model\.compile=false"):
        DeepFeatures(denoiser)
