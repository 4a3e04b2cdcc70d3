"""The reference on the site: nothing that there is is left out. `mkdocs build --strict` (.ci/run) checks the rest."""

import re
import sys
from importlib import import_module

import pytest

import diffprobe
from tests.pages import ROOT


@pytest.fixture
def made(monkeypatch):
    """The generated pages by name."""
    monkeypatch.syspath_prepend(str(ROOT / "website"))
    modules = {name: import_module(name) for name in ("commands", "names", "tutorial", "settings", "text")}
    yield {
        "names": modules["names"].page(),
        "settings": modules["settings"].groups_page(),
        "presets": modules["settings"].presets_page(),
        "commands": modules["commands"].page(),
        "notebook": modules["tutorial"].page(ROOT / "notebooks" / "02_main_study.ipynb"),
    }
    for name in modules:
        sys.modules.pop(name)


def test_it_has_every_name_choice_preset_and_command(made):
    assert sorted(re.findall(r"heading: dp\.(\w+)", made["names"])) == sorted(diffprobe.__all__)
    parts = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", made["settings"], re.DOTALL | re.MULTILINE))
    for path in (ROOT / "conf").rglob("*.yaml"):
        group, _, choice = path.relative_to(ROOT / "conf").with_suffix("").as_posix().rpartition("/")
        if group.split("/")[0] == "experiment" and choice != "base":
            assert f"## experiment={f'{group}/{choice}'.removeprefix('experiment/')}\n" in made["presets"]
        elif group and group.split("/")[0] not in ("experiment", "debug"):
            assert f"`{choice}`" in parts[group], path
    assert "| `--verify` | read every byte and compare every checksum |" in made["commands"]
    assert "## python -m diffprobe.backbone.certify\n" in made["commands"]


def test_a_setting_has_its_values_range_and_meaning(made):
    (draws,) = re.findall(r"^\| `draws` \|.*", made["settings"], re.MULTILINE)
    assert draws.endswith("| a whole number at least 1 and at most 1000 | of noise, whose activations are averaged |")
    (solver,) = re.findall(r"^\| `solver` \|.*", made["settings"], re.MULTILINE)
    assert solver == "| `solver` | `adam`, `exact`, `ridge` | one of adam, ridge, exact | or ridge, exact |"


def test_a_notebook_has_its_outputs_and_pictures(made):
    text, pictures = made["notebook"]
    assert pictures
    assert all(f"]({name})" in text and content.startswith(b"\x89PNG") for name, content in pictures.items())
    assert '<div class="output">' in text
    assert "<style" not in text
