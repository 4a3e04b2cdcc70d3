"""What is typed wins over presets and analyses, or is refused; no choice is overruled without a word."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from diffprobe.analyses.inputs import chosen_steps
from diffprobe.cli.keys import GLOBAL, check_typed
from diffprobe.errors import UserError
from diffprobe.runs.settings import leaves
from tests.commands import ROOT

CONF = ROOT / "conf"
OF_ANALYSES = ("diff_props", "semantic_lens")
PRESETS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix("")) for path in CONF.rglob("experiment/**/*.yaml")
)
COMPOSED_LATE = sorted(
    path for path in (*CONF.glob("experiment/**/*.yaml"), *CONF.glob("analysis/*.yaml"), *CONF.glob("debug/*.yaml"))
)
GROUPS = {
    str(folder.relative_to(CONF)): sorted(
        str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")
    )
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name not in ("hydra", "experiment", "debug", "classifier")
}


@cache
def said(path: Path, package: str) -> dict:
    """What a file of the configuration sets, by dotted key."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    own = {name: value for name, value in content.items() if name not in ("defaults", "hydra")}
    return dict(leaves(own, "" if path.read_text().startswith(GLOBAL) else package)) if own else {}


def composed(script: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(script, list(overrides), return_hydra_config=True)


def refusal(script: str, *overrides: str, conf: Path = CONF) -> str:
    """What `check_typed` says of a command line; nothing if it takes it."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(script, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    hydra = HydraConfig.get()
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    try:
        check_typed(config, hydra)
    except UserError as error:
        return str(error)
    return ""


@cache
def of_choices() -> dict[str, str]:
    """The choice that sets a key, by key."""
    return {
        key: f"{group}={choice}"
        for group, choices in GROUPS.items()
        if group != "analysis"
        for choice in choices
        for key in said(CONF / group / f"{choice}.yaml", group)
    }


@pytest.mark.parametrize("path", COMPOSED_LATE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_presets_and_analyses_set_no_key_that_a_choice_of_a_group_sets(path):
    """Their own keys come last, so that such a key would overrule a choice that was typed, whichever it is."""
    own = said(path, path.parent.name)
    overruled = {key: of_choices()[other] for key in own for other in of_choices() if f"{key}.".startswith(f"{other}.")}
    assert not overruled


def other_choices(preset: str) -> dict[str, str]:
    """A choice of every group that a preset chooses from, or sets keys of: not its own, and not always the first."""
    content: Any = OmegaConf.to_container(OmegaConf.load(CONF / "experiment" / f"{preset}.yaml"))
    defaults = [item for item in content.get("defaults", []) if isinstance(item, dict)]
    own = {group.split("/")[-1]: choice for item in defaults for group, choice in item.items()}
    touched = sorted((own.keys() | content.keys()) & GROUPS.keys() - {"analysis"})
    others = {name: [choice for choice in GROUPS[name] if choice != own.get(name)] for name in touched}
    return {name: choices[PRESETS.index(preset) % len(choices)] for name, choices in others.items()}


@pytest.mark.parametrize("preset", PRESETS)
def test_choices_typed_beside_a_preset_win_over_it(preset):
    """One of each group; that no preset has a key to overrule another by is the test above."""
    script = "analyze" if preset.split("/")[0] in OF_ANALYSES else "train"
    choices = other_choices(preset)
    config = composed(script, f"experiment={preset}", *(f"{name}={choice}" for name, choice in choices.items()))
    for name, choice in choices.items():
        for key, value in said(CONF / name / f"{choice}.yaml", name).items():
            if value != "???" and "${" not in str(value):
                assert OmegaConf.select(config, key) == value, (key, choice)


def test_the_last_step_is_typed_beside_the_quick_preset():
    config = composed("train", "experiment=quick", "steps=last")
    assert chosen_steps(config.steps.select, range(15)) == [14]


def test_layers_are_typed_beside_a_table_and_beside_an_analysis():
    config = composed("analyze", "experiment=diff_props/table4", "layers=decoder_resnets")
    assert (config.layers.select, config.layers.groups) == ("resnet&stage=decoder", None)
    assert (
        composed("analyze", "analysis=intervention", "layers=decoder").layers.select == "self_attention&stage=decoder"
    )
    assert not composed("train", "experiment=scene_representation/controls", "control=none").control.names


def test_presets_mean_what_they_meant():
    quick = composed("train", "experiment=quick")
    assert (list(quick.steps.select), quick.data.count, quick.report.examples) == ([0, 4, 9, 14], 20, 1)
    controls = composed("train", "experiment=scene_representation/controls")
    assert list(controls.control.names) == ["permuted", "decoder", "position"]
    assert (controls.steps.select, controls.property.threshold) == ("last", 0.5)
    table = composed("analyze", "experiment=diff_props/table3").layers
    assert (table.select, list(table.groups)) == (None, ["encoder16", "decoder16"])
    by_timestep = composed("analyze", "experiment=diff_props/layers_by_timestep")
    assert (by_timestep.layers.select, len(by_timestep.trajectory.timesteps)) == ("resnet", 10)
    assert composed("analyze", "analysis=intervention").layers.select[0] == "down_blocks.0.resnets.?"


@pytest.fixture
def conf_with_presets_of_a_user(tmp_path) -> Path:
    """The configuration beside a preset that overrules a choice by a key, as a person may write one."""
    for path in CONF.rglob("*.yaml"):
        there = tmp_path / path.relative_to(CONF)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(path.read_text())
    mine = "# @package _global_\ndefaults:\n  - override /layers: headline\nsteps:\n  select: [0, 4]\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(mine)
    return tmp_path


def test_a_choice_that_a_preset_overrules_is_refused_with_the_key_to_type(conf_with_presets_of_a_user):
    conf = conf_with_presets_of_a_user
    found = refusal("train", "experiment=mine", "steps=last", conf=conf)
    assert "steps=last says steps.select=last" in found
    assert "[0, 4]" in found
    assert "type steps.select=VALUE" in found
    assert refusal("train", "experiment=mine", conf=conf) == ""
    assert refusal("train", "experiment=mine", "steps=last", "steps.select=[3]", conf=conf) == ""
    assert refusal("train", "experiment=mine", "steps.sampling=8", "layers=resnets", conf=conf) == ""


def test_two_choices_of_a_group_are_refused():
    assert "experiment is given twice, quick and many_images" in refusal(
        "train", "experiment=quick", "experiment=many_images"
    )
    assert "layers is given twice, decoder and resnets" in refusal("train", "layers=decoder", "layers=resnets")
    assert refusal("train", "experiment=quick", "experiment=quick") == ""


def test_an_empty_mapping_that_would_change_nothing_is_refused():
    found = refusal("analyze", "analysis=transforms", "analysis.changes={}")
    assert "leave one out with ~analysis.changes.NAME" in found
    assert refusal("analyze", "analysis=transforms", "~analysis.changes.flip") == ""


def test_keys_typed_beside_a_choice_win_over_it():
    typed = ("layers.select=resnet", "layers=headline", "probe=ridge", "probe.name=mine", "labeler=files")
    config = composed("train", *typed, "labeler.path=somewhere")
    assert (config.layers.select, config.probe.name, config.probe.solver) == ("resnet", "mine", "ridge")
    assert refusal("train", *typed, "labeler.path=somewhere") == ""


def test_a_run_folder_without_a_name_is_refused():
    assert "hydra.run.dir='' names no folder" in refusal("train", "hydra.run.dir=''")
    assert refusal("train", "hydra.run.dir=here") == ""


def test_references_in_what_is_typed_are_not_looked_up():
    assert refusal("train", "probe.name='${nope}'", "layers=headline") == ""


def test_a_learning_rate_that_nothing_is_trained_with_is_refused():
    rate = "probe.learning_rates.depth=0.01"
    search = "experiment=learning_rate_search"
    assert "property.names=[saliency] has no depth" in refusal("train", search, "property=saliency", rate)
    assert "probe.solver=ridge knows no learning rate" in refusal("train", search, "probe=ridge", rate)
    assert refusal("train", search, rate) == ""


ANALYSES = sorted(path.stem for path in CONF.glob("analysis/*.yaml"))
SIZES = ("count", "frames", "examples", "epochs", "iterations", "trials", "resamples", "permutations", "sampling")


@pytest.mark.parametrize("analysis", [None, *ANALYSES])
def test_debug_makes_every_size_small(analysis):
    of_analysis = [] if analysis is None else [f"analysis={analysis}"]
    config = composed("train" if analysis is None else "analyze", *of_analysis, "debug=default")
    sizes = {
        key: value
        for key, value in leaves(OmegaConf.to_container(config))
        if not key.startswith("hydra.") and key.rpartition(".")[2] in SIZES and not isinstance(value, str)
    }
    assert len(sizes) > 3
    assert {key: value for key, value in sizes.items() if value is None or value > 50} == {}


def test_debug_makes_what_is_typed_beside_it_small_and_keys_that_are_typed_win():
    typed = ("objects=voc", "objects.root=somewhere", "debug=default")
    assert composed("analyze", *typed).objects.count == 6
    assert composed("analyze", *typed, "objects.count=9").objects.count == 9
    assert refusal("analyze", *typed) == ""
    assert composed("analyze", "analysis=video", "objects=davis", "debug=default").objects.frames == 3
