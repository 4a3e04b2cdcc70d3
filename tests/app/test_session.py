"""A session without its page: images with what probes see, masks that move, images that follow them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffprobe.analyses.intervention.edits import TokenMoments, replacements
from diffprobe.app.session import (
    build_equipment,
    centre,
    denoise_towards,
    drawn_mask,
    load_from_run,
    make_image,
    moved_mask,
    trained_bank,
)
from diffprobe.backbone.trajectory import generate
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.editing import readout_at
from tests.app.conftest import LAYERS, PROMPTS, LighterHalf
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


def test_covariances_are_those_of_the_first_images_at_the_edited_step(equipment):
    moments = TokenMoments()
    texts, seeds = [f"picture {number}" for number in range(5)], list(range(5))
    first = next(generate(equipment.backbone, texts, seeds, steps=3, layers=list(LAYERS)))
    moments.add(0, first.activations)
    assert equipment.covariances.keys() == moments.covariances().keys()
    for key, covariance in moments.covariances().items():
        torch.testing.assert_close(equipment.covariances[key], covariance)


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
    told = r"the latents of image 'a dog' at step 1.*the run that --probes names"
    with spoilt(equipment.backbone.denoiser, -1, call=1), pytest.raises(UserError, match=told):
        make_image(equipment, "a dog", 3)
    with spoilt(equipment.backbone.vae.decoder, 0), pytest.raises(UserError, match="decoded image of image 'a dog'"):
        make_image(equipment, "a dog", 3)
    with spoilt(equipment.backbone.denoiser, -1, call=1), pytest.raises(UserError, match="move it less far") as caught:
        denoise_towards(equipment, generated, target)
    assert "analysis." not in str(caught.value)


def test_only_the_layers_and_steps_that_images_follow_are_edited(tiny_backbone):
    bank = ProbeBank({**LAYERS, "mid_block.resnets.0": 16}, range(6), ["saliency"], head="mlp")
    found = build_equipment(tiny_backbone, LighterHalf(), bank, PROMPTS, sampling_steps=6)
    assert list(found.editing.layers) == list(LAYERS)
    assert list(found.editing.steps) == [0, 1]
    assert found.editing.method == "gradient"  # of probes that are not linear
    assert found.covariances == {}


@pytest.mark.parametrize(("steps", "name"), [([4, 5], "saliency"), ([0, 1], "depth")])
def test_probes_that_cannot_edit_are_refused(tiny_backbone, steps, name):
    bank = ProbeBank(LAYERS, steps, [name])
    with pytest.raises(UserError, match=rf"probes are of {name} at steps \[{steps[0]}, {steps[1]}\].*first third of 6"):
        build_equipment(tiny_backbone, LighterHalf(), bank, PROMPTS, sampling_steps=6)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no finished run of train\.py"):
        load_from_run(tmp_path)


@pytest.mark.slow
def test_probes_are_trained_at_the_first_start_alone(tiny_backbone, tmp_path):
    told: list[str] = []
    banks = [
        trained_bank(tiny_backbone, LighterHalf(), PROMPTS, tmp_path, told.append, sampling_steps=2) for _ in range(2)
    ]
    assert sum("first start" in line for line in told) == 1
    assert list(banks[0].properties) == ["saliency", "depth", "shading"]
    for one, other in zip(banks[0].parameters(), banks[1].parameters(), strict=True):
        assert torch.equal(one, other)
    file = next(tmp_path.rglob("depth.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + bytes([whole[-2] ^ 0x40]) + whole[-1:])
    mended = trained_bank(tiny_backbone, LighterHalf(), PROMPTS, tmp_path, told.append, sampling_steps=2)
    assert any("depth.safetensors is damaged" in line and "trained again" in line for line in told)
    for one, other in zip(banks[0].parameters(), mended.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    trained_bank(tiny_backbone, LighterHalf(), PROMPTS[1:] + PROMPTS[:1], tmp_path, told.append, sampling_steps=2)
    assert sum("first start" in line for line in told) == 2
