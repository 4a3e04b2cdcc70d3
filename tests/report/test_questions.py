"""What was asked and how to do it again, in words."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffprobe.analyses.classification.report import TOPICS as CLASSIFICATION
from diffprobe.analyses.objects import TOPICS as OBJECTS
from diffprobe.analyses.probing.report import TOPICS as PROBING
from diffprobe.report.page import questions
from diffprobe.runs.environment import reproduce
from tests.commands import ROOT


def told(script, topics, *overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(script, overrides=list(overrides))
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True
    )
    return dict(questions(plain, topics))


def test_a_probing_run_is_told_in_words():
    found = told("train", PROBING, "data.count=30", "steps.select=[0,14]", "control=both")
    assert found["images"] == "made by the model from 30 captions of the scene grammar, in 15 steps"
    assert found["steps"] == "1, 15 (counted from 1)"
    assert found["controls"] == "permuted, position"
    assert found["labels"] == "PocketLabeler"
    assert found["model"].startswith("pocket in float32; sampler lms, guidance 2.5")


def test_real_images_groups_of_layers_and_one_step_are_told():
    found = told("train", PROBING, "data=images", "data.images=PHOTOS", "steps.select=0", "layers.groups={x: [mid]}")
    assert found["images"] == "images of PHOTOS, noised at timesteps 0"
    assert found["layers"].endswith("; joined: x")
    alone = told("train", PROBING, "layers.select=null", "layers.groups={x: [mid]}")
    assert alone["layers"] == "joined: x"
    assert found["steps"] == "1 (counted from 1)"


def test_an_analysis_is_told_with_its_own_settings():
    found = told("analyze", OBJECTS, "analysis=transforms", "objects.count=9")
    assert "rotation: 10, 30, 90, 180" in found["analysis"]
    assert found["objects"].startswith("annotated images: scenes")
    found = told("analyze", CLASSIFICATION, "analysis=classification", "classifier=transformers")
    assert found["classifier"] == "microsoft/resnet-50 (TransformersClassifier)"


def test_the_command_has_its_overrides_quoted_for_a_shell(tmp_path):
    found = dict(reproduce(tmp_path, ["data.count=3", "steps.select=[0,1]"], {"seed": 7}, "train"))
    assert found["command"] == "python train.py data.count=3 'steps.select=[0,1]'"
    assert found["seeds"] == "seed 7"
    assert "torch " in found["versions"]
