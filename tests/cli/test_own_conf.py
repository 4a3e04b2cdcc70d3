"""A user's own `conf/` in the working directory is searched before that of the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diffprobe.cli.conf import conf_folders, package_conf
from diffprobe.cli.keys import read_conf
from tests.commands import ROOT, command, one_line, train

FILES = {
    "property/mine.yaml": "defaults: [custom]\nname: mine\nkind: binary\n",
    "experiment/mine.yaml": "# @package _global_\ndefaults: [{override /property: mine}]\nseed: 7\nmy_key: 1\n",
    "probe/quick.yaml": "defaults: [linear]\nepochs: 3\nmy_key: 1\n",
    "local/default.yaml": "# @package _global_\njob: here\n",
    "model/broken.yaml": "path: [\n",
    "other/list.yaml": "- of another program\n",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to work in, with configurations."""
    for name, text in FILES.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def composed(place: Path, *arguments: str) -> dict:
    done = train(*arguments, "--cfg", "job", cwd=place)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_a_choice_of_the_own_folder_is_one_of_the_group(place):
    assert composed(place, "property=mine")["property"]["name"] == "mine"
    preset = composed(place, "experiment=mine")
    assert (preset["property"]["name"], preset["seed"]) == ("mine", 7)


def test_the_own_file_of_a_name_is_taken_and_the_others_are_the_package_s(place):
    probe = composed(place, "probe=quick")["probe"]
    assert (probe["epochs"], probe["my_key"]) == (3, 1)
    assert composed(place)["probe"]["_target_"] == composed(ROOT)["probe"]["_target_"]


def test_settings_of_the_machine_are_read_from_the_own_folder(place):
    assert composed(place)["job"] == "here"


def test_answers_know_the_choices_and_keys_of_both(place, monkeypatch):
    assert "did you mean property=mine?" in one_line(train("property=mnie", cwd=place))
    assert "my_key is set by presets only (experiment=mine)" in one_line(train("~my_key", cwd=place))
    done = train("--help", cwd=place)
    assert "property: albedo, all, colour, custom, depth, everything, mine," in done.stdout
    package = {(file.group, file.choice) for file in read_conf()}
    monkeypatch.chdir(place)
    both = {(file.group, file.choice) for file in read_conf()}
    assert both - package >= {("property", "mine"), ("experiment", "mine")}
    assert both >= package


def test_a_file_that_cannot_be_read_is_named_where_it_is_chosen(place):
    line = one_line(train("model=broken", cwd=place))
    assert "a configuration cannot be read: " in line
    assert str(place / "conf" / "model" / "broken.yaml") in line


def test_the_folder_of_the_package_is_searched_once(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert conf_folders() == (package_conf(),)
    monkeypatch.chdir(tmp_path)
    assert conf_folders() == (package_conf(),)
    assert package_conf() == ROOT / "conf"


def test_a_folder_of_another_program_is_not_searched_and_is_told_of(place):
    (place / "conf" / "train.yaml").write_text("defaults: [{model: resnet}]\nepochs: 3\n")
    done = train("seed=3", "--cfg", "job", cwd=place)
    (line,) = done.stderr.splitlines()
    assert f"{place / 'conf'} is not searched: it is of another program, since {place / 'conf' / 'train.yaml'}" in line
    assert "lacks the groups callbacks, control, data, " in line
    settings = yaml.safe_load(done.stdout)
    assert (settings["seed"], settings["model"]["path"], settings["job"]) == (3, "pocket", "probing")
    assert "property has no choice 'mine'" in train("property=mine", cwd=place).stderr


def test_a_main_configuration_of_one_s_own_takes_the_place_of_the_package_s(place):
    text = (ROOT / "conf" / "train.yaml").read_text()
    (place / "conf" / "train.yaml").write_text(text.replace("seed: 0", "seed: 5"))
    assert composed(place)["seed"] == 5


def test_a_named_folder_is_that_of_the_working_directory_and_nothing_is_searched_before_it(place):
    """As of a run folder, `-cp RUN/.hydra`."""
    (place / "named").mkdir()
    (place / "named" / "train.yaml").write_text("seed: 1\n")
    (place / "conf" / "train.yaml").write_text("seed: 2\n")
    done = command("train.py", "-cp", "named", "--cfg", "job", cwd=place)
    assert (done.stdout.strip(), done.stderr) == ("seed: 1", "")
