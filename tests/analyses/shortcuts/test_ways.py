"""Which shortcuts there are for a model, what they do to a trajectory, and what they cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffprobe.analyses.shortcuts.ways import (
    DEEP,
    EMPTY,
    GUIDANCE_OFF,
    HALF,
    OTHER,
    THIRD,
    WAYS,
    available,
    begins,
    evaluations,
    finish,
    other_prompts,
    work,
    work_of,
)
from diffprobe.backbone.less_work import DeepFeatures
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import SamplingState, generate, sample_steps
from diffprobe.errors import UserError
from tests.backbone.test_mid_trajectory import PROMPTS, SEEDS, sampled_with
from tests.tiny import shared_backbone
from tests.tiny_families import Families

STEPS = 6


def finished(backbone: Backbone, way: str, taken: int) -> Tensor:
    """The last latents of a run whose steps after `taken` are those of a shortcut."""
    state, deep = SamplingState.at_start(backbone, SEEDS, STEPS), DeepFeatures(backbone.denoiser)
    for step in sample_steps(
        backbone, state.scheduler, state.latents, PROMPTS, (), range(taken), state.generators,
        guided=backbone.guided, within=deep.keeping,
    ):  # fmt: skip
        after = state.after(step)
    return finish(backbone, way, after if taken else state, taken, PROMPTS, other_prompts(PROMPTS), deep)


def last_of(backbone: Backbone, prompts: list[str]) -> Tensor:
    *_, last = generate(backbone, prompts, SEEDS, steps=STEPS)
    return last.latents


@pytest.mark.parametrize("way", WAYS)
def test_after_the_last_step_nothing_is_left_to_change(tiny_backbone: Backbone, way: str) -> None:
    assert torch.equal(finished(tiny_backbone, way, STEPS), last_of(tiny_backbone, PROMPTS))


@pytest.mark.parametrize("way", WAYS)
def test_before_it_each_shortcut_changes_the_picture_and_leaves_it_finite(tiny_backbone: Backbone, way: str) -> None:
    found = finished(tiny_backbone, way, 2)
    assert found.isfinite().all()
    assert not torch.allclose(found, last_of(tiny_backbone, PROMPTS), atol=1e-4)


def test_from_the_start_prompts_and_guidance_are_those_of_other_runs(
    tiny_backbone: Backbone, tiny_pipeline_folder
) -> None:
    plain = shared_backbone(tiny_pipeline_folder, guidance=1.0)
    assert torch.equal(finished(tiny_backbone, GUIDANCE_OFF, 0), last_of(plain, PROMPTS))
    assert torch.equal(finished(tiny_backbone, EMPTY, 0), last_of(plain, ["", ""]))
    assert torch.equal(finished(tiny_backbone, OTHER, 0), last_of(tiny_backbone, PROMPTS[::-1]))


def test_each_prompt_is_replaced_by_the_next_one_with_other_words() -> None:
    assert other_prompts(["a", "a", "b", "c"]) == ["b", "b", "c", "a"]


def test_the_stable_diffusions_can_take_all_shortcuts(tiny_backbone: Backbone, family_folders: Families) -> None:
    assert available(tiny_backbone, STEPS, PROMPTS, WAYS) == (list(WAYS), [])
    assert available(shared_backbone(family_folders["sdxl"]), STEPS, PROMPTS, WAYS) == (list(WAYS), [])


def test_what_a_model_cannot_take_is_left_out_with_its_reason(
    tiny_backbone: Backbone, family_folders: Families
) -> None:
    ddim = sampled_with(tiny_backbone, "DDIMScheduler", clip_sample=False)
    ways, left_out = available(ddim, STEPS, PROMPTS, WAYS)
    assert ways == [GUIDANCE_OFF, DEEP, EMPTY, OTHER]
    assert all("DDIMScheduler cannot leave out steps" in line for line in left_out)
    ways, left_out = available(shared_backbone(family_folders["pixart"]), STEPS, PROMPTS, [DEEP, OTHER])
    assert (ways, len(left_out)) == ([OTHER], 1)
    assert "is no U-Net" in left_out[0]
    ways, left_out = available(
        shared_backbone(family_folders["flux"], scheduler="own"), STEPS, PROMPTS, [GUIDANCE_OFF, HALF]
    )
    assert ways == [HALF]
    assert "no guidance batch as this model is" in left_out[0]
    ways, left_out = available(tiny_backbone, STEPS, ["", ""], [HALF, EMPTY, OTHER])
    assert ways == [HALF]
    assert "all prompts are empty" in left_out[0]
    assert "the same prompt" in left_out[1]


def test_a_model_that_can_take_none_is_refused_in_one_line(family_folders: Families) -> None:
    ddpm = shared_backbone(family_folders["ddpm"], scheduler="own")
    with pytest.raises(UserError, match=r"analysis\.shortcuts has none that") as caught:
        available(ddpm, STEPS, PROMPTS, [GUIDANCE_OFF, HALF, EMPTY])
    assert "takes no prompt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_costs_are_evaluations_and_their_share_of_the_operations(tiny_backbone: Backbone) -> None:
    assert begins(DEEP, [0, 1, 4]) == [1, 4]
    assert begins(HALF, [0, 1, 4]) == [0, 1, 4]
    assert [evaluations(way, 5, 15) for way in (OTHER, HALF, THIRD)] == [10, 5, 4]
    shares = work_of(tiny_backbone, WAYS)
    assert [shares[way] for way in (GUIDANCE_OFF, EMPTY, OTHER, HALF)] == [0.5, 0.5, 1, 1]
    assert 0.2 < shares[DEEP] < 0.7
    assert work(GUIDANCE_OFF, 5, 15, shares) == 10
    assert work(THIRD, 5, 15, shares) == 9
