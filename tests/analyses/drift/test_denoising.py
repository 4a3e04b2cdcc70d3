"""`analysis=denoising` holds images against themselves after noising and denoising, both seen at the same timestep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffprobe.activations.sources import Noised
from diffprobe.analyses.drift.analysis import Denoising
from diffprobe.analyses.objects import ObjectTask
from diffprobe.backbone import trajectory
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError
from tests.tasks import checked_analysis, quiet_context

LAYER = "down_blocks.2.resnets.0"


def prepared(folder: Path, *overrides: str) -> tuple[Denoising, ObjectTask]:
    given = [
        *("analysis=denoising", "model=pocket", "objects=scenes", "objects.count=2", "steps.sampling=5"),
        *("analysis.strengths=[0.6]", "analysis.sampling_steps=[4]", "analysis.strength=0.5"),
        *(f"layers.select=[{LAYER}]", f"prototypes.folder={folder}", "prototypes.batch_size=1"),
        *("statistics.resamples=19", "statistics.permutations=19"),
    ]
    return checked_analysis(*given, *overrides)


def knows_the_images(backbone: Backbone, images: Tensor) -> Any:
    """A denoiser that says exactly what noise is on the nearest of some images, [images, channels, h, w]; its layers
    are still asked."""
    kept = backbone.pipeline.scheduler.alphas_cumprod.double().numpy()
    table = ((1 - kept) / kept) ** 0.5
    ask = trajectory.evaluate

    def evaluate(denoiser: Any, inputs: Tensor, timestep: Any, conditions: Any) -> Tensor:
        ask(denoiser, inputs, timestep, conditions)
        level = float(np.interp(float(timestep), np.arange(len(table)), table))
        noisy = inputs * (1 + level**2) ** 0.5
        noise = (noisy - images[(images - noisy).square().sum((1, 2, 3)).argmin()]) / level
        if backbone.pipeline.scheduler.config.prediction_type == "epsilon":
            return noise
        return noise * (1 + level**2) ** 0.5 - inputs * level  # v (Salimans and Ho 2022)

    return evaluate


@pytest.mark.parametrize(
    ("scheduler", "look"),
    [
        ("lms", ["trajectory=clean"]),
        ("dpm++", ["trajectory=noised", "trajectory.timesteps=[300]"]),
    ],
)
def test_images_that_come_back_as_they_were_have_not_drifted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, look: list[str]
) -> None:
    analysis, task = prepared(tmp_path, f"model.scheduler={scheduler}", *look)
    source = Noised(task.images)
    images = source.latents(task.backbone, source.batch([0, 1], task.backbone.image_size))
    monkeypatch.setattr(trajectory, "evaluate", knows_the_images(task.backbone, images))
    found = analysis.run(task, quiet_context())
    assert [(each.name, each.strength) for each in task.changes] == [("strength", 0.6), ("denoising_steps", 2)]
    (step,) = task.steps
    before = found.unchanged.matrix(task.inputs[0], step)
    for each in found.changed:
        assert each.timesteps == found.unchanged.timesteps
        after = each.matrix(task.inputs[0], step)
        assert (after - before).norm() / before.norm() < 1e-3


def test_evaluations_are_those_of_the_looks_and_of_the_denoising(tmp_path: Path) -> None:
    analysis, task = prepared(tmp_path)
    seen: list[int] = []
    handle = task.backbone.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    found = analysis.run(task, quiet_context())
    handle.remove()
    assert found.evaluations == sum(seen)
    parts = [each.evaluations for each in (found.unchanged, *found.changed)]
    assert parts == [2, 2 * (3 + 1), 2 * (2 + 1)]
    analysis, again = prepared(tmp_path)
    assert analysis.run(again, quiet_context()).evaluations == 0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("analysis.strengths=[1.5]", r"analysis\.strengths=1\.5: must be above 0 and at most 1"),
        ("analysis.sampling_steps=[2000]", r"analysis\.sampling_steps=2000: must be at least 1 and at most 1000"),
        ("analysis.sampling_steps=[1]", r"strength 0\.5 of 1 steps is less than one step"),
    ],
)
def test_what_cannot_be_denoised_is_told_before_any_work(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepared(tmp_path, override)


def test_the_noise_of_the_denoising_is_not_the_noise_of_the_look(tmp_path: Path) -> None:
    _, task = prepared(tmp_path, "trajectory=noised", "trajectory.timesteps=[300]")
    drawn: list[Tensor] = []
    draw = torch.randn

    def recorded(*size: Any, **options: Any) -> Tensor:
        drawn.append(draw(*size, **options))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", recorded)
        source = task.changes[0].source
        list(source.run(task.backbone, source.batch([0], task.backbone.image_size), [LAYER], [0]))
    first, second = (draw for draw in drawn if draw.shape[1:] == task.backbone.latent_shape)
    assert abs(float((first * second).mean())) < 0.2
