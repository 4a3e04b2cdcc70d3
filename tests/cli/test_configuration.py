"""Every choice of every group composes into settings that pass the checks; wrong ones are named with the nearest."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from diffprobe.analyses.inputs import chosen_steps
from diffprobe.cli.errors import explanation
from diffprobe.errors import UserError
from diffprobe.parts import class_name
from diffprobe.properties import PAPERS, PROPERTIES
from diffprobe.runs.settings import check_analysis as checked_analysis
from diffprobe.runs.settings import checked

CONF = Path(__file__).parents[2] / "conf"
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(CONF.iterdir())
    if folder.name not in ("experiment", "classifier") and list(folder.glob("*.yaml"))
}
CLASSIFIERS = sorted(path.stem for path in CONF.glob("classifier/*.yaml"))  # a group of one analysis
EXPERIMENTS = [
    f"experiment={path.relative_to(CONF / 'experiment').with_suffix('')}"
    for path in sorted((CONF / "experiment").rglob("*.yaml"))
]


OF_ANALYSES = ("analysis", "masks", "measure", "objects")  # groups of analyze.py alone
PRESETS_OF_ANALYSES = ("diff_props", "semantic_lens")


def composed(script: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(script, list(overrides))


def settings(*overrides: str):
    return checked(composed("train", *overrides))


def analysis_settings(*overrides: str):
    return checked_analysis(composed("analyze", *overrides))


def given(config):
    """The configuration with a value for everything that a choice leaves to the user."""
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "binary" if key == "property.kind" else "somewhere")
    return config


@pytest.mark.parametrize("turn", range(max(map(len, GROUPS.values()))))
def test_every_choice_makes_valid_settings(turn):
    """One of each group at a time, until all were chosen, in both commands: what is wrong is told with its key."""
    chosen = {group: choices[turn % len(choices)] for group, choices in GROUPS.items()}
    shared = [f"{group}={choice}" for group, choice in chosen.items() if group not in OF_ANALYSES]
    assert checked(given(composed("train", *shared))).seed == 0
    if chosen["analysis"] == "video":  # its debug settings are those of videos
        chosen["objects"] = "moving_scenes"
    own = [f"{group}={chosen[group]}" for group in OF_ANALYSES]
    assert checked_analysis(given(composed("analyze", *shared, *own))).seed == 0


@pytest.mark.parametrize("preset", EXPERIMENTS)
def test_every_preset_makes_valid_settings(preset):
    if preset.removeprefix("experiment=").split("/")[0] in PRESETS_OF_ANALYSES:
        assert checked_analysis(given(composed("analyze", preset))).seed == 0
    else:
        assert checked(given(composed("train", preset))).seed == 0


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_classifier_makes_valid_settings(classifier):
    found = analysis_settings("analysis=classification", f"classifier={classifier}")
    assert found.job == "classification"


def test_the_default_is_the_papers_protocol_on_the_built_in_model():
    found = settings()
    assert found.model.path == "pocket"
    assert found.layers.select == "self_attention"
    assert chosen_steps(found.steps.select, range(found.steps.sampling)) == list(range(15))
    assert list(found.property.names) == ["saliency", "depth", "shading"]
    assert (found.probe.epochs, found.probe.batch_size, found.probe.bias) == (30, 4, False)
    assert found.probe.learning_rates == {
        name: item.learning_rate for name, item in PROPERTIES.items() if name in PAPERS
    }
    assert list(found.control.names) == ["permuted", "position"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.fractions=[0.5,0.5]", r"data.fractions=.0.5, 0.5.: give exactly 3"),
        ("probe.epochs=many", "probe.epochs: .*many"),
        ("probe.epochs=0", "probe.epochs=0: must be at least 1"),
        ("+learning_rate=3", "learning_rate"),
        ("model=local", r"model.path is not set; give it as model.path=VALUE"),
        ("data=images", r"data.images is not set; give it as data.images=VALUE"),
        ("data=prompt_files", r"data.prompts is not set; give it as data.prompts=VALUE"),
        ("data.count=some", "data.count: .*some"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(override, message):
    with pytest.raises(UserError, match=message):
        settings(override)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("modle=pocket", "'model'"),
        ("data.cuont=3", "'data.count'"),
        ("probe.epoch=3", "'probe.epochs'"),
        ("model=pockt", "model=pocket"),
        ("layers=self_atention", "layers=self_attention"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_valid_key(override, nearest):
    with pytest.raises(HydraException) as caught:
        settings(override)
    line = explanation(caught.value)
    assert line is not None
    assert nearest in line
    assert "\n" not in line


@pytest.mark.parametrize("select", ["lst", [15], [-1], [], [0, "x"], [0.7], True, [True], None, {"a": 1}])
def test_steps_outside_the_trajectory_are_refused(select):
    with pytest.raises(UserError, match=r"steps\.select"):
        chosen_steps(select, range(15))


def test_steps_are_sorted_and_one_may_stand_alone():
    assert chosen_steps([4, 0, 4], range(15)) == [0, 4]
    assert chosen_steps(7, range(15)) == [7]


def test_names_of_steps_mean_what_they_say_at_any_number_of_steps():
    last, first = (settings(f"steps={name}").steps.select for name in ("last", "first"))
    for sampling in (1, 2, 3, 15, 50, 1000):
        there = range(sampling)
        assert chosen_steps(last, there) == [sampling - 1]
        assert chosen_steps("first", there) == [0]
        assert chosen_steps([0, "last"], there) == sorted({0, sampling - 1})
        assert chosen_steps(first, there) == list(range(max(1, round(sampling / 3))))


def test_the_first_steps_of_fifteen_are_five_as_in_the_papers():
    assert chosen_steps(settings("steps=first").steps.select, range(15)) == [0, 1, 2, 3, 4]


def test_steps_of_a_preset_that_are_not_there_are_named():
    found = settings("experiment=quick", "steps.sampling=8")
    with pytest.raises(UserError, match=r"steps\.select=\[0, 4, 9, 14\]: choose from 0 to 7"):
        chosen_steps(found.steps.select, range(8))


def test_a_programming_error_is_not_explained_away():
    assert explanation(RuntimeError("bug")) is None
    error = RuntimeError("wrapped")
    error.__cause__ = UserError("no such layer")
    assert explanation(error) == "no such layer"


def test_real_images_are_noised_unless_asked_otherwise():
    assert class_name(settings("data=images", "data.images=somewhere").trajectory) == "noised"
    assert class_name(settings("data=images", "data.images=here", "trajectory=inversion").trajectory) == "inversion"


PRESETS = [choice for choice in EXPERIMENTS if "scene_representation" in choice]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_of_the_papers_runs_offline_with_one_override_and_tells_the_published_numbers(preset):
    found = settings(preset, "model=pocket", "labeler=pocket", "data.prompts=null")
    assert (found.model.path, found.property.threshold) == ("pocket", 0.5)
    assert found.report.published["depth"]["spearman"] == 0.71
    for key in ("data.prompts", "labeler.path"):
        other = {"data.prompts": "labeler.path", "labeler.path": "data.prompts"}[key]
        with pytest.raises(UserError, match=rf"{key} is not set"):
            settings(preset, f"{other}=somewhere")


@pytest.mark.parametrize("override", ["hydra/launcher=joblib", "hydra/launcher=submitit_local", "hydra/launcher=slurm"])
def test_every_launcher_composes(override):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train", [override], return_hydra_config=True).hydra.launcher._target_


def test_a_plugin_that_is_not_installed_is_named_with_its_extra():
    text = (
        "In 'x': Could not find 'hydra/sweeper/optuna' Available options in 'hydra/sweeper': basic Config search path"
    )
    line = explanation(HydraException(text))
    assert line is not None
    assert "needs the extra 'hpo'" in line
