"""A model in Python: its layers, its images step by step, and captured activations."""

import numpy as np
import pytest
import torch
from PIL import Image

import diffprobe as dp
from diffprobe.backbone.capture import capture
from diffprobe.backbone.load import load_backbone
from diffprobe.backbone.trajectory import generate
from tests.tiny import build_tiny_pipeline

HEADLINE = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"


@pytest.fixture(scope="module")
def model():
    return dp.load("pocket")


def test_a_model_has_the_settings_of_its_choice_of_the_command(model):
    assert (model.backbone.guidance, model.overrides) == (2.5, ["model=pocket"])
    assert dp.load("pocket", guidance=4).backbone.guidance == 4


def test_a_pipeline_folder_is_loaded(tmp_path):
    build_tiny_pipeline(tmp_path / "it's a model")
    loaded = dp.load(tmp_path / "it's a model", dtype="bfloat16")
    assert loaded.backbone.dtype == torch.bfloat16
    assert loaded.layers("resnet")


@pytest.mark.parametrize(
    ("arguments", "settings", "line"),
    [
        (("no/such",), {}, "no/such"),
        (("pocket",), {"guidence": 3}, "nearest valid key is 'model.guidance'"),
        (("pocket",), {"dtype": "float8"}, "model.dtype"),
        (("pocket",), {"guidance": -1}, "model.guidance=-1"),
    ],
)
def test_a_wrong_model_is_one_line(arguments, settings, line):
    with pytest.raises(dp.UserError, match=line):
        dp.load(*arguments, **settings)


def test_layers_are_chosen_by_kind_stage_and_short_name(model):
    decoder = model.layers("self_attention & decoder")
    assert decoder.names == model.layers("self_attention&stage=decoder").names
    assert {layer.stage for layer in model.layers("mid")} == {"mid"}
    assert decoder.find("up 3.0").name == HEADLINE
    assert model.layers(decoder[:2]).names == decoder.names[:2]
    with pytest.raises(dp.UserError, match=r"no layer 'up 9\.9'.*nearest"):
        decoder.find("up 9.9")
    with pytest.raises(dp.UserError, match="nearest: decoder"):
        model.layers("decodr")


def test_layers_print_as_a_table_in_terminal_and_notebook(model):
    layers = model.layers("resnet & mid")
    lines = repr(layers).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["mid", "resnet", "mid", "2", "96", "mid_block.resnets.0"]
    assert layers._repr_html_().count("<tr>") == 3
    assert list(layers.frame.columns) == ["short", "kind", "stage", "resolution", "channels", "name"]


def test_captured_activations_are_those_of_the_trajectory(model):
    found = model.capture(["a red sphere", "a blue cube"], [5, 6], layers=HEADLINE, steps=[0, 2], sampling_steps=3)
    steps = list(generate(model.backbone, ["a red sphere", "a blue cube"], [5, 6], steps=3, layers=[HEADLINE]))
    expected = torch.stack([steps[step].activations[HEADLINE] for step in (0, 2)])
    torch.testing.assert_close(found["up 3.0"], expected, rtol=1e-5, atol=1e-5)
    assert (found.steps, found.prompts) == ([0, 2], ["a red sphere", "a blue cube"])
    torch.testing.assert_close(found.over_steps(1)[-1], found.images[1], rtol=0, atol=1e-4)


def test_activations_of_photographs_are_those_of_a_forward_on_their_latents(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    assert model.capture(images=tmp_path, timesteps=[0, 400], layers=HEADLINE)["up 3.0"].shape == (2, 1, 64, 16, 16)
    found = model.capture(images=tmp_path, layers=HEADLINE)
    torch.testing.assert_close(found.images[0], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    backbone = load_backbone("pocket", guidance=2.5)
    latents = backbone.vae.encode(found.images * 2 - 1).latent_dist.mode() * backbone.vae.config.scaling_factor
    words = backbone.pipeline.encode_prompt([""], "cpu", 1, False)[0]
    with torch.no_grad(), capture(backbone.denoiser, [HEADLINE], guided=False) as taken:
        backbone.denoiser(latents, 0, words)
    torch.testing.assert_close(found["up 3.0"][0, 0], taken.activations[HEADLINE][0], rtol=1e-3, atol=1e-3)


def test_steps_bring_decoded_images_and_wanted_layers_alone(model):
    first, last = model.generate(["a red sphere", "a blue cube"], layers="resnet & up_blocks.3*", steps=2)
    assert list(first.activations) == [f"up_blocks.3.resnets.{place}" for place in range(3)]
    assert last.images.shape == (2, 3, 64, 64)
    assert not torch.equal(first.images, last.images)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"prompts": []}, "at least one"),
        ({"prompts": [3]}, "not 3"),
        ({"prompts": ["a", "b"], "seeds": [1]}, "2 prompts and 1 seeds"),
        ({"prompts": ["a", "A"], "seeds": [1, 1]}, "make one picture"),
        ({"prompts": "a", "images": "x"}, "give one of prompts"),
        ({}, "give one of prompts"),
        ({"images": "x", "seeds": [1]}, "seeds are of prompts"),
        ({"prompts": "a", "steps": [15]}, "there is no step 15"),
        ({"prompts": "a", "layers": "resnetz"}, "nearest: resnet"),
    ],
)
def test_what_cannot_be_captured_is_one_line(model, arguments, line):
    with pytest.raises(dp.UserError, match=line):
        model.capture(**arguments)


def test_a_figure_shows_the_image_and_the_strength_of_activations(model):
    found = model.capture("a red sphere", layers="self_attention & resolution=16", steps=[0, 1], sampling_steps=2)
    figure = found.show(0, layers="up_blocks.3*")
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert names == ["up 3.0", "up 3.1", "up 3.2"]
    first = figure.axes[2].get_images()[0].get_array()
    expected = found["up 3.0"][0, 0].square().mean(0).sqrt().numpy()
    np.testing.assert_allclose(np.asarray(first), expected, rtol=1e-6)
    with pytest.raises(dp.UserError, match="image 1: there are 1"):
        found.show(1)


def test_prompts_of_a_file_texts_and_captions(tmp_path):
    (tmp_path / "list.csv").write_text("prompts,seeds\na cat,3\na dog,4\n")
    assert [prompt.seed for prompt in dp.prompts(tmp_path / "list.csv")] == [3, 4]
    assert dp.prompts(["a cat"], [7])[0].name == "prompt_0_seed_7"
    assert dp.prompts(count=2, seed=1) != dp.prompts(count=2)
    with pytest.raises(dp.UserError, match="a file has its own"):
        dp.prompts(tmp_path / "list.csv", [1, 2])
