"""Whole runs and shortcuts of a random network, with a labeler that is plain to follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import Tensor

from diffprobe.analyses.shortcuts.agreement import PSNR, Agreement
from diffprobe.analyses.shortcuts.study import UNRELATED, ShortcutResults, ShortcutStudy
from diffprobe.analyses.shortcuts.ways import DEEP, GUIDANCE_OFF, HALF, OTHER
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import Prompt
from diffprobe.properties import as_properties
from diffprobe.properties.base import Standardisation
from tests.tiny import shared_backbone

PROMPTS = [Prompt(text, seed, f"image_{seed}") for seed, text in enumerate(["a ball", "a cube", "a cone"], 5)]
WAYS, GRID, STEPS = (GUIDANCE_OFF, HALF, DEEP, OTHER), (0, 2, 4), 4
AGREE = Agreement(as_properties(["depth"]), {"depth": Standardisation()})


def brightness(images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
    ASKED.extend(names)
    return {"depth": images.mean(1)}


ASKED: list[str] = []


class Classifier:
    """Two classes, by whether the picture is red."""

    name, classes = "red", ("red", "not red")

    def check(self, image_size: int) -> None: ...

    def __call__(self, images: Tensor) -> Tensor:
        red = images[:, 0].mean((1, 2)) > images[:, 1].mean((1, 2))
        return torch.stack([red.float(), 1 - red.float()], 1)


def study(backbone: Backbone) -> ShortcutStudy:
    return ShortcutStudy(
        backbone, PROMPTS, WAYS, GRID, brightness, AGREE, Classifier(), sampling_steps=STEPS, batch_size=2,
        example_count=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tiny_backbone: Backbone) -> ShortcutResults:
    ASKED.clear()
    return study(tiny_backbone).run()


def values(results: ShortcutResults, **wanted: object) -> list[float]:
    table = results.agreement
    for column, value in wanted.items():
        table = table[table[column].isna() if value is None else table[column] == value]
    return table["value"].tolist()


def picture(backbone: Backbone, text: str, seed: int) -> Tensor:
    *_, last = generate(backbone, [text], [seed], steps=STEPS)
    with torch.no_grad():
        return decode_latents(backbone, last.latents)[0]


def test_after_all_steps_each_picture_is_that_of_the_whole_run(results: ShortcutResults) -> None:
    assert values(results, full_steps=STEPS, metric="spearman") == pytest.approx([1.0] * 12)
    assert values(results, full_steps=STEPS, metric="same_class") == [1.0] * 12
    assert all(pd.isna(values(results, full_steps=STEPS, metric=PSNR)))
    for example in results.examples:
        assert all(torch.equal(example.pictures[way, STEPS], example.whole) for way in WAYS)


def test_pictures_are_those_of_runs_without_guidance_and_with_another_prompt(
    results: ShortcutResults, tiny_backbone: Backbone, tiny_pipeline_folder
) -> None:
    plain = shared_backbone(tiny_pipeline_folder, guidance=1.0)
    for prompt, other, example in zip(PROMPTS, [*PROMPTS[1:], PROMPTS[0]], results.examples, strict=True):
        expected = {
            (GUIDANCE_OFF, 0): picture(plain, prompt.text, prompt.seed),
            (OTHER, 0): picture(tiny_backbone, other.text, prompt.seed),
        }
        assert torch.allclose(example.whole, picture(tiny_backbone, prompt.text, prompt.seed), atol=1e-5)
        for place, wanted in expected.items():
            assert torch.allclose(example.pictures[place], wanted, atol=1e-5)


def test_every_shortcut_is_compared_wherever_it_can_be_begun(results: ShortcutResults) -> None:
    places = {(way, taken) for way in WAYS for taken in GRID if (way, taken) != (DEEP, 0)}
    table = results.agreement
    found = table[["shortcut", "full_steps"]].drop_duplicates().itertuples(index=False)
    assert {(way, taken) for way, taken in found if way != UNRELATED} == places
    assert set(table["metric"]) == {"spearman", "same_class", "psnr", "ssim"}
    assert (table.groupby(["shortcut", "full_steps", "metric"], dropna=False)["image"].nunique() == 3).all()
    assert len(values(results, shortcut=UNRELATED, full_steps=None, metric="ssim")) == 3
    assert set(ASKED) == {prompt.name for prompt in PROMPTS} | {
        f"{prompt.name}_{way}_after_{taken}" for prompt in PROMPTS for way, taken in places if taken < STEPS
    }


def test_agreement_does_not_depend_on_the_batch(results: ShortcutResults, tiny_backbone: Backbone) -> None:
    again = replace(study(tiny_backbone), batch_size=3).run()
    keys = ["shortcut", "full_steps", "property", "metric", "image"]
    both = results.agreement.merge(again.agreement, on=keys)
    assert len(both) == len(results.agreement)
    assert both["value_x"].tolist() == pytest.approx(both["value_y"].tolist(), rel=1e-4, abs=2e-3, nan_ok=True)


def test_costs_and_times_are_told_of_each(results: ShortcutResults) -> None:
    costs = {(way, taken): (count, work) for way, taken, count, work in results.costs.itertuples(index=False)}
    assert costs[GUIDANCE_OFF, 2] == (4, 3)
    assert costs[HALF, 0] == (2, 2)
    assert 2 < costs[DEEP, 2][1] < 4
    assert [costs[way, STEPS] for way in WAYS] == [(4, 4)] * 4
    assert results.seconds["seconds"].gt(0).all()
    assert len(results.seconds) == len(results.costs) == 11
    assert results.evaluations == 3 * (4 + (4 + 2) + (2 + 1) + 2 + (4 + 2))
