"""Every study ends with one error where the network gives NaN: it names the image, and step and layer if there are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffprobe.activations.sources import Noised
from diffprobe.analyses.classification.classes import classify_steps
from diffprobe.analyses.emergence.image_models import ProbesUnderTest, score_image_models
from diffprobe.analyses.intervention.edits import Editing
from diffprobe.analyses.intervention.trials import InterventionStudy, Targets
from diffprobe.data.scenes import load_scenes
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.controls import CONTROLS
from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing
from diffprobe.prototypes.collecting import as_group, collect_prototypes
from diffprobe.prototypes.pooling import MaskResizing
from tests.probes.study.test_two_pass import PROMPTS, SOURCE, brightness
from tests.spoilt import spoilt
from tests.tiny import tiny_layers

IMAGE = r"image 'image_\d'"
RIDGE = ProbeConfig("ridge", solver="ridge")


@pytest.fixture(scope="module")
def layers():
    return tiny_layers("self_attention&stage=decoder")[-1:]


def means(way: str, folder: Path) -> ExecutionConfig:
    ways = {"live": {"one_pass": True}, "memory": {}, "stored": {"stores": folder}}
    return ExecutionConfig(batch_size=2, dtype="float32", **ways[way])


@pytest.mark.parametrize("way", ["live", "memory", "stored"])
def test_a_study_of_probes_names_layer_image_and_step(tiny_backbone, layers, way, tmp_path):
    probing_config = ProbingConfig(layers, steps=[0, 2], controls=(), probe_config=RIDGE)
    module = tiny_backbone.denoiser.get_submodule(layers[0].name)
    expected = rf"the activation of {layers[0].name} of {IMAGE} at step 2, timestep .*model\."
    with spoilt(module, -1, call=2), pytest.raises(UserError, match=expected):
        run_probing(tiny_backbone, SOURCE, brightness, probing_config, means(way, tmp_path))


@pytest.mark.parametrize("way", ["live", "stored"])
def test_a_picture_that_is_none_ends_a_study_of_probes(tiny_backbone, layers, way, tmp_path):
    probing_config = ProbingConfig(layers, steps=[0], controls=(), probe_config=RIDGE)
    with spoilt(tiny_backbone.vae.decoder, 0, call=3), pytest.raises(UserError, match=f"decoded image of {IMAGE}"):
        run_probing(tiny_backbone, SOURCE, brightness, probing_config, means(way, tmp_path))


@pytest.mark.parametrize("way", ["live", "memory"])
def test_a_control_network_or_input_is_looked_at_too(tiny_backbone, layers, way, tmp_path):
    probing_config = ProbingConfig(layers, steps=[0, 2], controls=("latent", "decoder"), probe_config=RIDGE)
    attention = tiny_backbone.vae.decoder.mid_block.attentions[0]
    call = 3 if way == "live" else 2 * len(PROMPTS)
    with spoilt(attention, 0, call=call), pytest.raises(UserError, match=f"decode.* of {IMAGE}"):
        run_probing(tiny_backbone, SOURCE, brightness, probing_config, means(way, tmp_path))
    probing_config = replace(probing_config, controls=("permuted",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONTROLS, "permuted", replace(CONTROLS["permuted"], make_denoiser=broken, in_its_place=None))
        with pytest.raises(UserError, match=rf"{layers[0].name} of {IMAGE} at step 0, .*1 weights of the denoiser"):
            run_probing(tiny_backbone, SOURCE, brightness, probing_config, means(way, tmp_path))


def broken(denoiser, seed):
    from diffprobe.probes.controls import permute_weights

    permuted = permute_weights(denoiser, seed)
    with torch.no_grad():
        permuted.conv_in.weight[0] = math.nan
    return permuted


def test_prototypes_name_layer_image_and_timestep(tiny_backbone, layers, tmp_path):
    scenes = load_scenes(count=3)[0]
    module = tiny_backbone.denoiser.get_submodule(layers[0].name)
    expected = rf"the activation of {layers[0].name} of image '{scenes.names[2]}' at timestep 0: .*model\."
    with spoilt(module, 0, call=1), pytest.raises(UserError, match=expected):
        collect_prototypes(
            tiny_backbone,
            Noised(scenes, [0.0], "off"),
            scenes,
            [as_group(layers[0])],
            [0],
            resizing=MaskResizing(),
            folder=tmp_path,
            batch_size=2,
        )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_intervention_names_the_edited_image_and_blames_the_edits(tiny_backbone, layers):
    bank = ProbeBank({layers[0].name: layers[0].channels}, [0], ["saliency"])
    editing = Editing("saliency", [layers[0].name], [0], method="minimum_norm", margin=1e38)
    study = InterventionStudy(tiny_backbone, PROMPTS[:2], brightness, bank, [editing], Targets(), sampling_steps=1)
    with pytest.raises(UserError, match=r"of image 'image_\d_minimum_norm_trial_0' at step 0, .*ask for less.*margin"):
        study.run()
    with spoilt(tiny_backbone.vae.decoder, 1), pytest.raises(UserError, match="decoded image of image 'image_1' at"):
        study.run()


def test_a_classification_names_the_image_and_the_step(tiny_backbone):
    def classifier(images):
        return images.mean((2, 3)).softmax(1)

    how = {"sampling_steps": 2, "steps": [0, 1], "batch_size": 2}
    with spoilt(tiny_backbone.vae.decoder, 1, call=3), pytest.raises(UserError, match="image 'image_3' at step 1"):
        classify_steps(tiny_backbone, PROMPTS[:4], [0] * 4, classifier, **how)


def test_image_models_are_shown_no_picture_that_is_none(tiny_backbone, layers):
    probing_config = ProbingConfig(layers, steps=[0, 2], controls=(), probe_config=RIDGE)
    found = run_probing(tiny_backbone, SOURCE, brightness, probing_config, ExecutionConfig(batch_size=5))
    activations = probing_config.read(found.extraction.activations)
    probed = ProbesUnderTest(found.bank, found.extraction, activations, found.targets, found.split.test, "ridge")
    name = SOURCE.names[found.split.test[0]]
    with spoilt(tiny_backbone.vae.decoder, 0, call=1), pytest.raises(UserError, match=f"image '{name}' at step 2"):
        score_image_models(tiny_backbone, brightness, probed)
