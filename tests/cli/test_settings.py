"""Every setting has a type and a range: nonsense is refused with its key before any work, sense is taken."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffprobe.errors import UserError
from diffprobe.parts import CLASSES, Part, Parts
from diffprobe.runs.settings import AnalysisJobSettings, check_analysis
from diffprobe.signatures import signature_of
from tests.commands import ROOT

CONF = ROOT / "conf"


# The choice that has a setting, where it is not the first.
CHOICES = {
    **dict.fromkeys(("analysis.strengths", "analysis.sampling_steps"), "analysis=denoising"),
    **{
        f"analysis.{name}": "analysis=intervention"
        for name in ("range", "methods", "margin", "learning_rate", "frames")
    },
    **dict.fromkeys(("analysis.fractions", "analysis.probes"), "analysis=emergence"),
    "analysis.tokens": "analysis=similarity",
    **dict.fromkeys(("objects.root", "objects.largest_over"), "objects=voc"),
    **{"analysis.gaps": "analysis=video", "analysis.runs": "analysis=compare"},
    **{"data.fit": "data=images", "trajectory.strength": "trajectory=image_to_image"},
}


@cache
def _composed(choice: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("analyze", [choice, *(["data.images=x"] if choice == "data=images" else [])])


def checked_with(key: str, value: Any):
    """The settings of an analysis with one key set."""
    config = deepcopy(_composed(CHOICES.get(key, "analysis=transforms")))
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, key, value, merge=isinstance(value, dict))
    return check_analysis(config)


def refusal(key: str, value: Any) -> str:
    with pytest.raises(UserError) as caught:
        checked_with(key, value)
    line = str(caught.value)
    assert line.startswith(key)
    assert "\n" not in line
    return line


NONSENSE = {
    "steps.select": [[0.7], True, [True], 1.2, [], [0, 0], [-1], -1, "frist", {"a": 1}, None, [None], [1000]],
    "steps.sampling": [0, -1, 1001, 1.5, "many", True, None, "", []],
    "probe.learning_rates": [{"depth": -1}, {"depth": float("nan")}, {"depth": 0}, {"depth": 1e30}, 3],
    "probe.strengths": [[], [0], [-1], [float("nan")], [float("inf")], [1e300], [1e-300], "abc", [1, 1], 0.1],
    "probe.l1": [-1, float("nan"), 1e300, "", True],
    "probe.name": ["", " ", "a/b", "../x", "..", 1.5, True, "x" * 200, "a\nb", []],
    "probe.solver": ["adma", "", None, 3],
    "probe.bias": [0, 1, "yes", 2.0, None],
    "property.names": [["depth", "depth"], ["normal"], "depth", None, [1]],
    "property.threshold": [0, 1, 2, -1, float("nan"), "abc", None, [0.5], True],
    "control.names": [["permuted", "permuted"], ["foo"], None, "permuted"],
    "layers.select": [True, float("nan"), [1.5], [], ["resnet", "resnet"], "", {"a": 1}, [None]],
    "layers.groups": [[], 1.5, -1, "abc", True, {"a": 1.5}, {"a": []}],
    "features.half": ["both", "", "abc", 1.5, True],
    "features.folder": ["", 1.5, None, []],
    "features.batch_size": [0, -1, 10**9, float("inf"), 1e12],
    "features.images_per_shard": [0, 10**9],
    "model.guidance": [float("nan"), float("inf"), -5, 1e30, "abc", None],
    "model.size": [7, 0, -64, 100000, 1.5, ""],
    "model.channels_last": [0, -1, "on"],
    "model.path": ["", None, 1.5, True],
    "model.revision": [1.5, 1e12, "", True],
    "model.autocast": ["float8", "", 16],
    "data.count": [0, -1, 10**8, 1.5, True],
    "data.fractions": [[0.5, 0.5], [-1, 1, 1], [float("nan"), 0.5, 0.5], [0.6, 0.2, 0.2, 0.0], 0, True, []],
    "data.fit": ["", None, "squeeze", 1],
    "trajectory.timesteps": [[0, 0], [], [-1], [float("nan")], [1001], 3, "abc"],
    "trajectory.noise": ["foo", "", False, None],
    "trajectory.draws": [0, -1, 10**6],
    "trajectory.strength": [0, -0.5, 1.5, float("nan")],
    "trainer.devices": [0, -1, 10**6, "auto"],
    "trainer.accelerator": ["foo", "", 0, 1.5],
    "trainer.precision": ["foo", "", 1e12],
    "trainer.strategy": ["foo", "", 0],
    "report.examples": [-1, 10**6, 1.5],
    "report.learning_curve": [[0], [-5], [2, 2], "", [1.5]],
    "report.published": [[1], {"depth": {"foo": 1}}, {"depth": {"spearman": "high"}}],
    "seed": [-1, 2**32, 10**20, 1.5, "abc", None, True],
    "job": ["", "..", "../../x", "/x", float("nan"), True, "a\\b"],
    "dry_run": [1, -1, "yes", None],
    "objects.size": [0, 1, -1, 100000],
    "objects.count": [0, -3, 3_000_000],
    "objects.min_area": [2, -1, float("nan"), 1],
    "objects.largest_over": [1, 5, float("nan")],
    "objects.label": ["foo", ""],
    "measure.names": [[], ["foo"], ["pearson", "pearson"], "pearson"],
    "measure.budget_mb": [0, 1e12, 10**9],
    "statistics.resamples": [0, 1, 10**10, float("inf")],
    "statistics.permutations": [1, -1],
    "analysis.changes": [
        *({"foo": [1]}, {"rotation": [float("nan")]}, {"rotation": [float("inf")]}, {"rotation": 15}),
        *({"rotation": [True]}, {"scale": [1, 1]}, {"scale": ["big"]}, 3),
    ],
    "analysis.strengths": [[float("nan")], [0], [2], [-1], [0.2, 0.2]],
    "analysis.sampling_steps": [[0], [-1], [2000], [5, 5]],
    "analysis.gaps": [[0], [-1], [1.5], [1, 1]],
    "analysis.fractions": [[0], [2], [float("nan")]],
    "analysis.range": [[1, 2, 3], [float("nan"), 1], "x"],
    "analysis.methods": [["foo"], ["pattern", "pattern"]],
    "analysis.margin": [-1, float("nan"), 1e30],
    "analysis.learning_rate": [-1, 0, float("nan")],
    "analysis.frames": [-1, 1.5],
    "masks.hard": ["maybe", 0, None],
    "prototypes.batch_size": [-1, 0, [], ""],
    "prototypes.groups": ["abc", float("inf"), []],
    "run": ["", 1.5, True, 1e12],
    "gather": ["", [], 1e12],
    "labeler": [None, 3, "pocket"],
    "logger": [None, []],
}


@pytest.mark.parametrize("key", NONSENSE)
def test_nonsense_is_refused_with_its_key(key):
    for value in NONSENSE[key]:
        assert refusal(key, value).startswith(key)


def test_the_range_is_told():
    assert "must be at least 1 and at most 1000" in refusal("steps.sampling", 0)
    assert "must be above 0 and below 1" in refusal("property.threshold", 2)
    assert "choose one of saliency, depth, shading" in refusal("property.names", ["normal"])
    assert "must be above 0 and at most 10" in refusal("probe.learning_rates", {"depth": -1})
    assert "must be a whole number, not true" in refusal("steps.select", True)
    assert refusal("property.names", ["depth", "depth"]).endswith("depth is there twice; give each once")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps.select", "last"),
        ("steps.select", [0, "last"]),
        ("steps.select", 3),
        ("property.threshold", 0.5),
        ("layers.groups", {"64": ["resnet"]}),
        ("layers.select", None),
        ("job", "paper/depth"),
        ("job", 2024),
        ("model.guidance", 1),
        ("analysis.changes", {"flip": []}),
        ("trainer.devices", "2"),
        ("seed", 2**32 - 1),
    ],
)
def test_what_is_unusual_and_means_something_is_taken(key, value):
    assert checked_with(key, value).job


def test_home_is_replaced_in_every_path():
    home = str(Path.home())
    for key in ("data.prompts", "features.folder", "objects.root", "analysis.probes", "run", "prototypes.folder"):
        assert OmegaConf.select(checked_with(key, "~/x"), key) == f"{home}/x"
    assert checked_with("analysis.runs", ["~/a", "b"]).analysis.runs == [f"{home}/a", "b"]
    files = {"_target_": "diffprobe.labels.files.FilesLabeler", "path": "~/maps"}
    assert checked_with("labeler", files).labeler.path == f"{home}/maps"


def _settings():
    """(key, hint with its ranges) of every setting: the arguments of every class that conf/ names."""
    for group, targets in CLASSES.items():
        given = getattr(_part(group), "given", {}) if group in get_type_hints(AnalysisJobSettings) else {}
        for target in targets:
            takes = signature_of(target, imported=False)
            assert takes is not None
            if target.startswith("diffprobe."):
                yield from ((f"{group}.{name}", one.hint) for name, one in takes.arguments.items() if name not in given)


def _part(group: str) -> Part:
    hint = get_type_hints(AnalysisJobSettings, include_extras=True)[group]
    hints = [each for each in (hint, *get_args(hint)) if get_origin(each) is Annotated]
    return next(part for each in hints for part in each.__metadata__ if isinstance(part, Part | Parts))


def _bare(hint: Any):
    """The simple types in a hint that have no range: a number, text or list of which anything is taken."""
    if get_origin(hint) is Annotated:
        inner, *_ = get_args(hint)
        return [kind for kind in _bare(inner) if kind not in (inner, *get_args(inner), list)]
    if get_origin(hint) is list:
        return [list, *_bare(get_args(hint)[0])]
    if get_args(hint):
        return [kind for option in get_args(hint) for kind in _bare(option)]
    return [hint] if hint in (int, float, str, Any) else []


def _is_path(hint: Any) -> bool:
    return Path in get_args(hint)  # checked as a path


# Their range depends on other settings, and is checked against them later, or they are text of any kind.
FREE = (
    "labeler.weights",
    "analysis.classes",
    "report.published",
    "property.own",
    "layers.groups",
    "prototypes.groups",
)


def test_every_setting_declares_its_range():
    free = [key for key, hint in _settings() if _bare(hint) and key not in FREE and not _is_path(hint)]
    assert not free


def test_choices_that_are_written_twice_are_the_same():
    from diffprobe.analyses.drift import analysis as drift
    from diffprobe.analyses.intervention import analysis as intervention
    from diffprobe.analyses.intervention.edits import HALVES, METHODS
    from diffprobe.backbone.load import DTYPES
    from diffprobe.data.image_changes import CHANGES, STRENGTHS
    from diffprobe.probes.controls import CONTROL_NAMES, CONTROLS
    from diffprobe.properties import KIND_NAMES, KINDS, PROPERTIES
    from diffprobe.report.report import PUBLISHED

    declared = dict(_settings())

    def options(key: str) -> set[str]:
        return set(_options(declared[key]))

    assert options("property.names") == set(PROPERTIES)
    assert tuple(KINDS) == KIND_NAMES
    of_probes = {metric for item in PROPERTIES.values() for metric in item.metrics if " " not in metric}
    assert {*PUBLISHED} - {"step"} == of_probes
    assert options("control.names") == set(CONTROLS)
    assert tuple(CONTROLS) == CONTROL_NAMES
    assert options("features.dtype") == set(DTYPES)
    assert set(drift.CHANGES) == set(CHANGES) == set(STRENGTHS)
    assert set(intervention.METHODS) == set(METHODS)
    assert options("analysis.half") == set(HALVES)


def _options(hint: Any):
    for inner in get_args(hint):
        yield from getattr(inner, "options", ())
        yield from _options(inner)


@pytest.mark.parametrize("path", sorted(CONF.glob("**/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_arguments_of_every_named_class_fit_its_signature(path):
    content = yaml.safe_load(path.read_text()) or {}
    if "_target_" in content:
        content = {name: value for name, value in content.items() if name != "defaults" and "${" not in str(value)}
        part = _part(path.parent.name) if path.parent.name in CLASSES else Part()
        assert part.checked(content, "group")["_target_"] == content["_target_"]


def test_an_argument_that_a_part_does_not_take_is_refused_with_those_that_it_takes():
    depth = {"_target_": "diffprobe.labels.depth.TransformersDepth", "model": "x", "nonsense": 3}
    with pytest.raises(UserError, match=r"unknown key 'labeler\.depth\.nonsense'; TransformersDepth takes model"):
        Part().checked({"_target_": "diffprobe.labels.labeler.PerProperty", "depth": depth}, "labeler")
    with pytest.raises(UserError, match=r"labeler\.path is not set, and FilesLabeler needs it"):
        Part().checked({"_target_": "diffprobe.labels.files.FilesLabeler"}, "labeler")
    with pytest.raises(UserError, match=r"unknown key 'labeler\.path'; PocketLabeler takes nothing"):
        Part().checked({"_target_": "diffprobe.labels.pocket.PocketLabeler", "path": "x"}, "labeler")


@pytest.mark.parametrize(
    ("target", "argument", "value"),
    [
        ("labels.depth.TransformersDepth", "batch_size", 0),
        ("labels.depth.TransformersDepth", "output", "depth"),
        ("labels.depth.TransformersDepth", "model", ""),
        ("labels.saliency.OnnxSaliency", "threshold", float("nan")),
        ("labels.saliency.OnnxSaliency", "threshold", 2),
        ("labels.saliency.OnnxSaliency", "std", [0, 1, 1]),
        ("labels.saliency.OnnxSaliency", "mean", [0.5]),
        ("labels.saliency.OnnxSaliency", "family", "isnett"),
        ("labels.onnx_normals.OnnxNormals", "family", "omnidatas"),
        ("labels.onnx_normals.OnnxNormals", "field_of_view", 180),
        ("labels.onnx_depth.OnnxDepth", "output", "depth"),
        ("labels.onnx_depth.OnnxDepth", "std", [0, 1, 1]),
        ("labels.files.FilesLabeler", "path", ""),
        ("labels.files.FilesLabeler", "path", 1.5),
        ("labels.classifiers.TransformersClassifier", "batch_size", -1),
    ],
)
def test_arguments_of_parts_have_ranges_too(target, argument, value):
    with pytest.raises(UserError, match=rf"^labeler\.{argument}"):
        Part().checked({"_target_": f"diffprobe.{target}", argument: value}, "labeler")


@pytest.mark.parametrize("group", CLASSES)
def test_what_the_run_itself_gives_are_arguments_of_the_classes_of_its_group(group):
    hint = get_type_hints(AnalysisJobSettings, include_extras=True)[group]
    hints = (hint, *get_args(hint))  # one may be None
    (part,) = (item for each in hints for item in getattr(each, "__metadata__", ()) if isinstance(item, Part | Parts))
    taken = {name for target in CLASSES[group] for name in signature_of(target).arguments}
    taken |= {"mode", "config", "settings", "resume"} if group == "logger" else set()  # of wandb.init
    assert {*getattr(part, "given", {}), *getattr(part, "limits", {})} <= taken


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("logger.mode", "foo", "logger.mode=foo: choose one of offline, online, disabled"),
        ("logger.project", "", "logger.project is empty"),
        ("logger.save_dir", "elsewhere", "logger.save_dir is set by the run itself"),
    ],
)
def test_arguments_of_the_logger_are_checked(key, value, message):
    assert refusal(key, value).startswith(message)


def test_an_argument_that_the_analysis_gives_is_refused():
    assert refusal("trajectory.partial_denoising", {"strength": 1}).startswith(
        "trajectory.partial_denoising is set by the run itself"
    )
