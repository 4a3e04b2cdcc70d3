"""The shortcuts: ways in which a sampler does less, or something else, from a step on; and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffprobe.backbone.less_work import DeepFeatures, check_larger_steps, operations, with_larger_steps
from diffprobe.backbone.trajectory import SamplingState, fresh_scheduler, sample_steps
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone

GUIDANCE_OFF, HALF, THIRD = "guidance_off", "half_the_steps", "third_of_the_steps"
DEEP, EMPTY, OTHER = "deep_features", "empty_prompt", "other_prompt"
WAYS = (GUIDANCE_OFF, HALF, THIRD, DEEP, EMPTY, OTHER)
NAMES = {
    GUIDANCE_OFF: "guidance off",
    HALF: "half the steps",
    THIRD: "a third of the steps",
    DEEP: "deep features reused",
    EMPTY: "empty prompt",
    OTHER: "another prompt",
}
_TIMES = {HALF: 2, THIRD: 3}  # as large as they were are the steps


def available(
    backbone: Backbone, sampling_steps: int, prompts: Sequence[str], wanted: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The wanted shortcuts that there are for a model and prompts, and a sentence on each other one.

    Raises:
        UserError: there is none.
    """
    ways, left_out = [], []
    for way in dict.fromkeys(wanted):
        try:
            _check(backbone, sampling_steps, prompts, way)
        except UserError as error:
            left_out.append(f"{NAMES[way]} is left out: {error}")
        else:
            ways.append(way)
    if not ways:
        raise UserError(f"analysis.shortcuts has none that {backbone.name} could take; {'; '.join(left_out)}")
    return ways, left_out


def _check(backbone: Backbone, sampling_steps: int, prompts: Sequence[str], way: str) -> None:
    if way == GUIDANCE_OFF and not backbone.guided:
        why = f"at guidance {backbone.guidance:g}" if backbone.family.guided(2) else "as this model is"
        raise UserError(f"there is no guidance batch {why}")
    if way in _TIMES:
        check_larger_steps(fresh_scheduler(backbone, sampling_steps))
    if way == DEEP:
        DeepFeatures(backbone.denoiser)
    if way in (EMPTY, OTHER):
        with torch.device("meta"):
            if not backbone.family.example(backbone.denoiser.config):
                raise UserError("the model takes no prompt")
        if way == EMPTY and not any(prompts):
            raise UserError("all prompts are empty")
        if way == OTHER and len(set(prompts)) < 2:
            raise UserError("all images have the same prompt")


def other_prompts(prompts: Sequence[str]) -> list[str]:
    """For each prompt the next one in the list, which begins anew at its end, that has other words."""
    twice = [*prompts, *prompts]
    return [next((after for after in twice[row:] if after != text), text) for row, text in enumerate(prompts)]


def finish(
    backbone: Backbone,
    way: str,
    state: SamplingState,
    taken: int,
    prompts: Sequence[str],
    others: Sequence[str],
    deep: DeepFeatures | None,
) -> Tensor:
    """The last latents of a batch [batch, channels, h, w] whose first `taken` steps were whole, by a shortcut.

    Args:
        state: after these steps; it is used up.
        others: of `other_prompts`, of the same images.
        deep: features of step `taken`, for the shortcut that reuses them.
    """
    scheduler, texts, guided = state.scheduler, prompts, backbone.guided
    if taken == len(scheduler.timesteps):
        return state.latents
    if way == GUIDANCE_OFF:
        guided = False
    elif way in _TIMES:
        scheduler = with_larger_steps(scheduler, taken, _TIMES[way])
    elif way == EMPTY:
        texts = [""] * len(prompts)
        guided = backbone.guidance_matters(texts)
    elif way == OTHER:
        texts = others
    within = deep.reusing if way == DEEP and deep is not None else nullcontext
    rest, generators = range(taken, len(scheduler.timesteps)), state.generators
    *_, last = sample_steps(
        backbone, scheduler, state.latents, texts, (), rest, generators, guided=guided, within=within
    )
    return last.latents


def begins(way: str, full_steps: Sequence[int]) -> list[int]:
    """After how many full steps a shortcut is begun: there are no features to be reused before the first one."""
    return [taken for taken in full_steps if taken or way != DEEP]


def evaluations(way: str, taken: int, steps: int) -> int:
    """Of the denoiser, after so many full steps of a trajectory."""
    return -(-(steps - taken) // _TIMES.get(way, 1))


def work_of(backbone: Backbone, ways: Sequence[str]) -> dict[str, float]:
    """Of each shortcut, the operations of one of its evaluations as a share of those of the whole run's.

    Without a guidance batch it is half of them; what reusing deep features takes is counted in one evaluation.
    """
    shares = dict.fromkeys(ways, 1.0)
    if backbone.guided:
        alone = () if backbone.guidance_matters([""]) else (EMPTY,)
        shares |= {way: 0.5 for way in (GUIDANCE_OFF, *alone) if way in shares}
    if DEEP in shares:
        shares[DEEP] = _reused_share(backbone)
    return shares


def _reused_share(backbone: Backbone) -> float:
    deep = DeepFeatures(backbone.denoiser)
    scheduler = fresh_scheduler(backbone, 1)
    latents = torch.zeros(1, *backbone.latent_shape, device=backbone.device, dtype=backbone.dtype)
    conditions = backbone.family.conditions(backbone, [""], False)

    def evaluated() -> Tensor:
        return backbone.family.evaluate(backbone.denoiser, latents, scheduler.timesteps[0], conditions)

    counted: list[int] = []
    contexts: list[Callable] = [deep.keeping, deep.reusing]
    for within in contexts:
        with within():
            counted.append(operations(evaluated))
    return counted[1] / counted[0]


def work(way: str, taken: int, steps: int, shares: Mapping[str, float]) -> float:
    """Of a whole image, with `shares` of `work_of`: in evaluations of the whole run."""
    return taken + evaluations(way, taken, steps) * shares[way]
