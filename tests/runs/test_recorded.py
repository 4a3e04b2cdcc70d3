"""A run folder of a stranger is read, and none of it is run, looked up or written to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffprobe.analyses.comparison.runs import read_run
from diffprobe.analyses.inputs import Inputs
from diffprobe.analyses.trained_probes import read_probes
from diffprobe.app import equipment
from diffprobe.app.equipment import load_from_run
from diffprobe.cli import running as reporting
from diffprobe.cli.gathering import find_jobs
from diffprobe.errors import UserError
from diffprobe.labels.files import FilesLabeler
from diffprobe.labels.labeler import PerProperty
from diffprobe.parts import CLASSES, check_recorded, make, targets
from diffprobe.runs.folder import (
    is_finished,
    read_overrides,
    read_recorded,
    read_settings,
    record_configuration,
)
from diffprobe.runs.settings import checked
from tests.commands import command, one_line
from tests.runs import made_up_folder
from tests.runs.made_up_folder import composed

CONF = Path(__file__).parents[2] / "conf"


def run_folder(folder: Path, *overrides: str) -> Path:
    made_up_folder.run_folder(folder, *overrides)
    (folder / "scores.csv").write_text(
        "model,layer,step,timestep,property,probe,control,split,image,metric,value\n"
        "pocket,a,0,1.0,saliency,linear,none,test,scene-0,dice,0.5\n"
    )
    return folder


def rewrite(folder: Path, change) -> Path:
    path = folder / ".hydra" / "config.yaml"
    path.write_text(change(path.read_text()))
    return folder


READERS = {
    "settings": read_settings,
    "recorded": read_recorded,
    "app": load_from_run,
    "probes": lambda folder: read_probes(folder, Inputs(checked(composed()), print, read_settings)),
    "gather": lambda folder: find_jobs(folder.parent),
    "compare": lambda folder: read_run("it", folder),
    "report": lambda folder: reporting.rebuild_report(folder, 0),
    "finished": lambda folder: is_finished(folder, checked(composed())),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("job: ${oc.env:DIFFPROBE_SECRET}", r"looks up \$\{oc\.env"),
        ("job: 'x ${ oc.env : DIFFPROBE_SECRET }'", r"looks up"),
        ("job: ${oc.decode:${oc.env:DIFFPROBE_SECRET}}", r"looks up"),
        ("job: !!python/object/apply:os.system ['touch RAN']", "is not YAML"),
        ("job: &a [1, 2]\nother: [*a, *a]", "refers to itself"),
        ("job: [unclosed", "is not YAML"),
    ],
)
def test_no_reader_of_a_run_folder_runs_or_looks_up_anything(tmp_path, monkeypatch, reader, line, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFPROBE_SECRET", "not-to-be-seen")
    folder = run_folder(tmp_path / "sweep" / "0")
    rewrite(folder, lambda text: "".join(each for each in text.splitlines(True) if not each.startswith("job:")) + line)
    with pytest.raises(UserError, match=said) as error:
        READERS[reader](folder)
    assert "not-to-be-seen" not in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    "content", [b"", b"- a\n- b\n", b"3\n", b"\xff\xfe\x00", b"a: " + b"[" * 5000, b"x: " + b"y" * 2**21]
)
def test_what_is_no_configuration_is_one_line(tmp_path, content):
    folder = run_folder(tmp_path / "run")
    (folder / ".hydra" / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml") as error:
        read_recorded(folder)
    assert "\n" not in str(error.value)


def test_pipes_and_devices_are_not_read(tmp_path):
    path = run_folder(tmp_path / "run") / ".hydra" / "config.yaml"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"config\.yaml is no file"):
        read_recorded(tmp_path / "run")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"config\.yaml is no file"):
        read_recorded(tmp_path / "run")


def test_interpolations_within_the_configuration_are_kept(tmp_path):
    folder = run_folder(tmp_path / "run", "labeler=image_models", "model.device=cpu")
    assert "${model.device}" in (folder / ".hydra" / "config.yaml").read_text()
    assert read_settings(folder).labeler.depth.device == "cpu"


def test_what_a_run_looked_up_is_recorded_as_it_was_found(tmp_path, monkeypatch):
    """So that the folder can be read where the variable is not set, or is another."""
    monkeypatch.setenv("DIFFPROBE_PLACE", "/data")
    config = composed("data.prompts='${oc.env:DIFFPROBE_PLACE}/p.csv'")
    hydra = OmegaConf.create({"overrides": {"task": []}})
    record_configuration(tmp_path, config, hydra)
    monkeypatch.delenv("DIFFPROBE_PLACE")
    assert read_settings(tmp_path).data.prompts == "/data/p.csv"


TARGETS = [
    "os.system",
    "diffprobe.backbone.load.os.system",
    "diffprobe.labels.files.np.save",
    "diffprobe.files.write_text",
    "diffprobe.pocket.training.card.install",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("place", ["itself", "argument", "part"])
def test_only_the_packages_own_classes_are_made_from_what_a_run_folder_records(tmp_path, target, place):
    foreign = {"_target_": target, "command": f"touch {tmp_path / 'ran'}", "path": str(tmp_path / "ran"), "text": ""}
    files = {"_target_": "diffprobe.labels.files.FilesLabeler", "path": foreign}
    parts = {"_target_": "diffprobe.labels.labeler.PerProperty", "depth": {**foreign, "_partial_": True}}
    chosen = {"itself": foreign, "argument": files, "part": parts}[place]
    folder = run_folder(tmp_path / "run")
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    config.labeler = chosen
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    with pytest.raises(UserError, match=rf"labeler.*_target_={target}"):
        read_settings(folder)
    assert not (tmp_path / "ran").exists()


def test_a_class_of_one_group_is_not_made_for_another():
    with pytest.raises(UserError, match=r"logger\._target_=diffprobe\.labels"):
        check_recorded({"logger": {"_target_": "diffprobe.labels.pocket.PocketLabeler"}})
    check_recorded({"labeler": {"_target_": "diffprobe.labels.pocket.PocketLabeler"}})
    check_recorded({"labeler": {"_target_": "mine.Labeler"}}, also=["mine.Labeler"])


@pytest.mark.parametrize("chosen", [None, {}, {"path": "x"}, "diffprobe.labels.files.FilesLabeler"])
def test_what_names_no_class_is_refused(chosen):
    with pytest.raises(UserError, match="names no class"):
        make(OmegaConf.create({"labeler": chosen}).labeler)


def test_every_choice_of_the_configuration_can_be_made():
    """The list of classes is that of conf/, no more and no less."""
    for group, known in CLASSES.items():
        contents: list = [OmegaConf.to_container(OmegaConf.load(path)) for path in (CONF / group).rglob("*.yaml")]
        contents.append(OmegaConf.to_container(OmegaConf.load(CONF / "analyze.yaml")).get(group))
        named = {target for content in contents for _, target in targets(content)}
        assert named == set(known), group


def test_labelers_are_made_with_their_parts(tmp_path):
    (tmp_path / "depth").mkdir()
    config = composed("labeler=image_models", "labeler/depth=files", f"labeler.depth.path={tmp_path}")
    found = make(config.labeler)
    assert isinstance(found, PerProperty)
    assert isinstance(found.labeler_of("depth"), FilesLabeler)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_the_page_makes_no_class_of_a_strangers_run(tmp_path, target):
    folder = run_folder(tmp_path / "run")
    own = "_target_: diffprobe.labels.pocket.PocketLabeler"
    rewrite(folder, lambda text: text.replace(own, f"_target_: {target}\n  command: touch {tmp_path / 'ran'}"))
    with pytest.raises(UserError, match=rf"_target_={target}"):
        load_from_run(folder)
    assert not (tmp_path / "ran").exists()


def test_the_page_keeps_no_maps_where_a_strangers_run_says(tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "run", "labeler=image_models", f"labeler.cache={tmp_path / 'elsewhere'}")
    made: list = []
    monkeypatch.setattr(equipment, "make", lambda chosen: made.append(chosen) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_from_run(folder)
    assert made[0].cache is None


def test_overrides_are_read_as_text(tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=1\n- job=${oc.env:HOME}\n")
    assert read_overrides(folder) == ["seed=1", "job=${oc.env:HOME}"]
    (folder / ".hydra" / "overrides.yaml").write_text("!!python/object/apply:os.system ['touch x']\n")
    with pytest.raises(UserError, match=r"overrides\.yaml"):
        read_overrides(folder)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"overrides\.yaml"):
        read_overrides(folder)


def test_a_configuration_that_is_composed_from_a_run_folder_names_no_class_of_a_stranger(tmp_path: Path) -> None:
    there = run_folder(tmp_path / "theirs")
    path = there / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.labeler = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    OmegaConf.save(config, path)
    done = command("train.py", "-cp", str(path.parent), "-cn", "config", f"hydra.run.dir={tmp_path / 'run'}")
    assert "only classes of this package are made" in one_line(done)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("reader", READERS)
def test_a_run_that_names_the_old_place_of_a_class_is_still_read(tmp_path, reader, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = run_folder(tmp_path / "new" / "0", "property.names=[depth]")
    old = run_folder(tmp_path / "old" / "0", "property.names=[depth]")
    rewrite(old, lambda text: text.replace("diffprobe.properties.PropertySelection", OLD_SELECTION))
    assert OLD_SELECTION in (old / ".hydra" / "config.yaml").read_text()
    assert outcome(reader, old).replace(str(tmp_path / "old"), str(tmp_path / "new")) == outcome(reader, new)


def test_a_comparison_of_runs_is_found_at_the_old_place_of_its_class(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("analysis: {_target_: diffprobe.analyses.comparison.Comparison}\n")
    assert read_recorded(tmp_path).analysis._target_ in CLASSES["analysis"]


OLD_SELECTION = "diffprobe.probes.properties.PropertySelection"


def outcome(reader: str, folder: Path) -> str:
    """What a reader makes of a folder, or says of it."""
    try:
        return f"read: {READERS[reader](folder)}"
    except UserError as error:
        return f"refused: {error}"


def test_an_older_run_is_the_finished_one_of_its_settings_and_probes_the_same(tmp_path):
    old = run_folder(tmp_path, "property.names=[depth,saliency]")
    rewrite(old, lambda text: text.replace("diffprobe.properties.PropertySelection", OLD_SELECTION))
    assert is_finished(old, checked(composed("property.names=[depth,saliency]")))
    with pytest.raises(UserError, match=r"property\.names is .* there"):
        is_finished(old, checked(composed("property.names=[depth]")))
    assert [item.name for item in make(read_settings(old).property).properties] == ["depth", "saliency"]


@pytest.mark.parametrize("target", ["[a]", "{a: 1}", "???", "null", "3", "diffprobe.probes.properties.Other"])
def test_no_other_class_passes_for_the_one_that_moved(tmp_path, target):
    folder = run_folder(tmp_path)
    rewrite(folder, lambda text: text.replace("diffprobe.properties.PropertySelection", target))
    with pytest.raises(UserError, match=r"property\._target_=.*PropertySelection"):
        read_settings(folder)
