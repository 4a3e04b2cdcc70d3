"""What is taken from the page: figures, a mask, and what makes them again."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
import torch

from diffprobe.app import equipment as equipping
from diffprobe.app.equipment import load_equipment
from diffprobe.app.export import Seen, draw_edit, draw_view, read_mask, save_mask
from diffprobe.app.pictures import draw_map, draw_outline, draw_step, picture
from diffprobe.app.session import denoise_towards, make_images, moved_mask, scores_over_steps
from diffprobe.errors import UserError
from tests.app.conftest import LAYERS
from tests.commands import command

LAYER = next(iter(LAYERS))


@pytest.fixture(scope="module")
def images(equipment):
    return make_images(equipment, ["a dog", "a <cat>"], [3, 4])


def test_the_figure_shows_the_pictures_and_curves_of_the_page(equipment, images):
    figure = draw_view(equipment, images, "depth", LAYER, 2)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    wanted = [each(image) for image in images for each in (
        lambda image: draw_step(equipment, image, LAYER, 2), lambda image: draw_map(equipment, image, "depth", LAYER, 2)
    )]  # fmt: skip
    assert all(np.array_equal(found, pixels) for found, pixels in zip(pictures, wanted, strict=True))
    lines = figure.axes[-1].lines
    for line, image in zip(lines, images, strict=False):
        assert list(line.get_xdata()) == [1, 3]
        assert list(line.get_ydata()) == scores_over_steps(equipment, image, "depth", LAYER)
    assert list(lines[2].get_xdata()) == [3, 3]


def test_a_step_without_probes_is_refused(equipment, images):
    with pytest.raises(UserError, match="no probes of step 2; choose one of 1, 3"):
        draw_view(equipment, images, "depth", LAYER, 1)


def test_the_edit_is_the_original_and_the_new_image_with_the_mask(equipment, images):
    edited = denoise_towards(equipment, images[1], moved_mask(images[1].label, 0.2, 0.0))
    found = [axes.images[0].get_array() for axes in draw_edit(images[1], edited).axes]
    wanted = [
        draw_outline(images[1].images[-1], images[1].label),
        picture(edited.image),
        draw_outline(edited.image, moved_mask(images[1].label, 0.2, 0.0)),
    ]
    assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))


def test_a_mask_is_read_as_it_was_saved(tmp_path):
    mask = (torch.rand(12, 20, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert torch.equal(read_mask(save_mask(tmp_path / "mask.png", mask)), mask)


def test_files_are_named_after_prompt_property_and_step(equipment, images, tmp_path):
    seen = Seen(equipment, images, "depth", LAYER, 2, current=1)
    assert [path.name for path in seen.save(tmp_path)] == ["a_cat_depth_step_3.png", "a_cat_depth_step_3.pdf"]
    edited = denoise_towards(equipment, images[1], images[1].label)
    names = [path.name for path in Seen(equipment, images, "depth", LAYER, 2, 1, edited).save(tmp_path)]
    assert names[2:] == ["a_cat_edited.png", "a_cat_edited.pdf", "mask.png"]
    assert all((tmp_path / name).stat().st_size for name in names)


@pytest.mark.slow
def test_the_command_and_the_lines_of_python_make_the_same_figures_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(equipping, "TRAINING_SCENES", 12)
    monkeypatch.setattr(equipping, "SAMPLING_STEPS", 5)
    monkeypatch.setattr(equipping, "EDITED_LAYERS", ("up_blocks.3.resnets.2",))
    equipment = load_equipment("pocket", tmp_path / "stores", print)
    images = make_images(equipment, ["a blue cube", "a 'red' cone"], [2, 3])
    (layer,) = equipment.bank.layers
    edited = denoise_towards(equipment, images[1], moved_mask(images[1].label, 0.1, 0.1))
    seen = Seen(equipment, images, "shading", layer, 3, 1, edited)
    seen.save(tmp_path)

    _, script, *overrides = shlex.split(equipment.command)
    done = command(script, *overrides, "logger=csv", "report=no_examples", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made: dict = {}
    exec(seen.python(), made)  # as a person runs what the page gives
    assert (tmp_path / "view.pdf").exists()
    assert (tmp_path / "edited.pdf").exists()
    for found, image in zip(made["images"], images, strict=True):
        torch.testing.assert_close(found.images, image.images, atol=1e-3, rtol=1e-3)
        scores = scores_over_steps(made["equipment"], found, "shading", layer)
        assert scores == pytest.approx(scores_over_steps(equipment, image, "shading", layer), abs=1e-3)
    assert made["edited"].dice == pytest.approx(edited.dice, abs=0.02)
