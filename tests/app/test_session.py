"""A session without its page: images with what probes see, masks that move, images that follow them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr

from diffprobe.analyses.intervention.edits import replacements
from diffprobe.app.session import (
    centre,
    denoise_towards,
    drawn_mask,
    label_of,
    make_image,
    make_images,
    moved_mask,
    prompts_and_seeds,
    scores_over_steps,
)
from diffprobe.backbone.trajectory import generate
from diffprobe.errors import UserError
from diffprobe.labels.pocket import PocketLabeler
from diffprobe.probes.editing import readout_at
from tests.app.conftest import LAYERS
from tests.spoilt import spoilt


@pytest.fixture(scope="module")
def generated(equipment):
    return make_image(equipment, "a dog", 3)


def test_an_image_comes_with_all_its_steps_and_what_every_probe_sees(equipment, generated):
    trajectory = generate(equipment.backbone, ["a dog"], [3], steps=3, layers=list(LAYERS), decode=True)
    for step in trajectory:
        torch.testing.assert_close(generated.images[step.index], step.images[0])
        if step.index not in generated.steps:
            continue
        at = generated.steps.index(step.index)
        for layer, values in step.activations.items():
            odds = readout_at(equipment.bank, "saliency", layer, step.index).of(values)[0]
            torch.testing.assert_close(generated.maps["saliency"][layer][at], odds.sigmoid())
    assert generated.steps == [0, 2]
    assert {name: set(by_layer) for name, by_layer in generated.maps.items()} == {
        "saliency": set(LAYERS),
        "depth": set(LAYERS),
    }
    assert 0.4 < generated.label.mean() < 0.6


def test_images_of_several_prompts_are_those_of_each_alone(equipment, generated):
    other, again = make_images(equipment, ["a cat", "a dog"], [5, 3])
    assert (other.prompt, other.seed, again.prompt, again.seed) == ("a cat", 5, "a dog", 3)
    torch.testing.assert_close(again.images, generated.images, rtol=1e-4, atol=1e-4)
    for name, by_layer in generated.maps.items():
        for layer, values in by_layer.items():
            torch.testing.assert_close(again.maps[name][layer], values, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(other.images[-1], again.images[-1], atol=1e-2)


@pytest.mark.parametrize(
    ("prompts", "seeds", "words"), [([], [], "no prompt"), (["a", "b"], [1], "one seed"), (["a", "a"], [1, 1], "two")]
)
def test_several_prompts_need_a_seed_each_and_differ(equipment, prompts, seeds, words):
    with pytest.raises(UserError, match=words):
        make_images(equipment, prompts, seeds)


def test_scores_over_steps_are_the_agreement_with_the_label_of_the_final_image(equipment, generated):
    layer = list(LAYERS)[1]
    area = torch.nn.functional.interpolate(generated.maps["saliency"][layer][:, None], (128, 128))[:, 0] > 0.5
    wanted = 2 * (area * generated.label).sum((1, 2)) / (area.sum((1, 2)) + generated.label.sum())
    assert scores_over_steps(equipment, generated, "saliency", layer) == pytest.approx(wanted.tolist(), abs=1e-6)

    grey = generated.images[-1].mean(0)
    assert torch.equal(label_of(equipment, generated, "depth"), grey)
    found = scores_over_steps(equipment, generated, "depth", layer)
    for score, values in zip(found, generated.maps["depth"][layer], strict=True):
        enlarged = torch.nn.functional.interpolate(values[None, None], (128, 128))[0, 0]
        assert score == pytest.approx(spearmanr(enlarged.flatten(), grey.flatten()).statistic, abs=1e-4)


def test_a_label_is_asked_for_once_and_an_unknown_property_is_refused(equipment):
    image = make_image(equipment, "a dog", 4)
    assert image.labels == {}
    first = label_of(equipment, image, "depth")
    assert label_of(equipment, image, "depth") is first

    refusing = replace(equipment, labeler=PocketLabeler())
    with pytest.raises(UserError, match="64-pixel pictures"):
        scores_over_steps(refusing, make_image(equipment, "a dog", 4), "depth", next(iter(LAYERS)))


def test_denoising_towards_a_mask_edits_the_first_third_and_is_scored_against_the_mask(equipment, generated):
    target = torch.zeros(128, 128)
    target[:, 64:] = 1
    edited = denoise_towards(equipment, generated, target)
    edits = replacements(
        equipment.backbone, [3], target[None], equipment.bank, equipment.editing, covariances=equipment.covariances
    )
    assert {step: set(by_layer) for step, by_layer in edits.items()} == {0: set(LAYERS)}
    *_, last = generate(equipment.backbone, ["a dog"], [3], steps=3, decode=True, replace=edits)
    torch.testing.assert_close(edited.image, last.images[0])
    assert not torch.allclose(edited.image, generated.images[-1], atol=1e-3)
    for found, label in ((edited.dice, edited.label), (edited.dice_before, generated.label)):
        assert found == pytest.approx(float(2 * (label * target).sum() / (label.sum() + target.sum())))


@pytest.mark.parametrize(
    ("prompt", "seed", "words"),
    [("  ", 3, "no prompt"), ("a dog", -1, "seed"), ("a dog", 1.5, "seed"), ("a dog", None, "seed")],
)
def test_a_prompt_or_seed_that_is_none_is_refused(equipment, prompt, seed, words):
    with pytest.raises(UserError, match=words):
        make_image(equipment, prompt, seed)


@pytest.mark.parametrize(("value", "words"), [(0.0, "empty"), (1.0, "whole picture")])
def test_a_mask_without_object_or_background_is_refused_before_any_work(equipment, generated, value, words):
    broken = replace(equipment, backbone=None)  # nothing may be generated
    with pytest.raises(UserError, match=words):
        denoise_towards(broken, generated, torch.full((128, 128), value))


def test_masks_move_by_shares_of_the_picture_and_leave_it():
    label = torch.zeros(10, 20)
    label[2:4, 4:8] = 1
    moved = moved_mask(label, 0.5, 0.2)
    assert moved[4:6, 14:18].all()
    assert moved.sum() == label.sum()
    assert moved_mask(label, 0.7, 0.0).sum() == 4
    assert moved_mask(label, 1.0, 0.0).sum() == 0


def test_the_centre_is_that_of_the_box_around_the_mask():
    label = torch.zeros(10, 20)
    label[2:4, 4:8] = 1
    assert centre(label) == pytest.approx((0.3, 0.3))
    assert centre(torch.zeros(10, 20)) == (0.5, 0.5)


def test_what_is_painted_covers_a_pixel_where_it_covers_half_of_it():
    painted = torch.zeros(40, 40)
    painted[:20, :14] = 1
    assert drawn_mask(painted, 10, 10).nonzero().amax(0).tolist() == [4, 3]


def test_numbers_that_are_none_are_told_with_advice_that_fits_the_page(equipment, generated):
    target = torch.zeros(128, 128)
    target[:, 64:] = 1
    told = r"the latents of image 'a dog' at step 1.*the run that the probes are of"
    with spoilt(equipment.backbone.denoiser, -1, call=1), pytest.raises(UserError, match=told):
        make_image(equipment, "a dog", 3)
    with spoilt(equipment.backbone.vae.decoder, 0), pytest.raises(UserError, match="decoded image of image 'a dog'"):
        make_image(equipment, "a dog", 3)
    with spoilt(equipment.backbone.denoiser, -1, call=1), pytest.raises(UserError, match="move it less far") as caught:
        denoise_towards(equipment, generated, target)
    assert "analysis." not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "seeds", "found"),
    [
        ("a cat\n\n a dog ", "2", (["a cat", "a dog"], [2, 2])),
        ("a cat\na dog", "2, 5", (["a cat", "a dog"], [2, 5])),
        ("a cat", "1 2 3", (["a cat"] * 3, [1, 2, 3])),
        ("", "1", ([], [1])),
    ],
)
def test_one_prompt_or_one_seed_stands_for_all(prompts, seeds, found):
    assert prompts_and_seeds(prompts, seeds, 4) == found


@pytest.mark.parametrize(
    ("prompts", "seeds", "words"),
    [("a", "", "whole number"), ("a", "x", "whole number"), ("a", "1 2 3", "2 are shown")],
)
def test_what_is_no_seed_and_too_many_images_are_told(prompts, seeds, words):
    with pytest.raises(UserError, match=words):
        prompts_and_seeds(prompts, seeds, 2)
