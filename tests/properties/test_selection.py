"""What is probed is chosen by name or defined by the user, and what is wrong is told in one line with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from diffprobe.errors import UserError
from diffprobe.parts import make
from diffprobe.properties import (
    PAPERS,
    PROPERTIES,
    CustomProperty,
    Property,
    PropertySelection,
    as_properties,
    property_from,
    property_named,
)
from diffprobe.properties.binary import Binary
from diffprobe.properties.categorical import Categorical
from diffprobe.properties.continuous import Continuous
from diffprobe.properties.depth import Depth
from diffprobe.properties.vector import Vector
from diffprobe.runs.settings import checked
from tests.commands import ROOT

CUSTOM = ("property=custom", "property.name=parts")
CATEGORICAL = (*CUSTOM, "property.kind=categorical")


def configured(*overrides: str) -> list[Property]:
    """What a run of train.py with these overrides probes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return make(checked(compose("train", list(overrides))).property).properties


def refused(what) -> str:
    """The one line that it is refused with."""
    with pytest.raises(UserError) as caught:
        what()
    line = str(caught.value)
    assert "\n" not in line
    return line


# A property of one's own


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["property.kind=binary"], Binary("parts")),
        (["property.kind=continuous", "property.learning_rate=0.01"], Continuous("parts", learning_rate=0.01)),
        (["property.kind=depth"], Depth("parts")),
        (["property.kind=categorical", "property.classes=[on,off]"], Categorical("parts", classes=("on", "off"))),
        (
            ["property.kind=categorical", "property.classes=[1,2]", "property.ignore=255"],
            Categorical("parts", classes=("1", "2"), ignore=255),
        ),
        (["property.kind=vector"], Vector("parts")),
        (
            ["property.kind=vector", "property.channels=2", "property.unit=false"],
            Vector("parts", channels=2, unit=False),
        ),
    ],
)
def test_every_kind_is_made_from_settings_from_python_and_from_its_own_definition(overrides, wanted):
    assert configured(*CUSTOM, *overrides) == [wanted]
    definition = wanted.definition()
    assert property_from(definition) == wanted
    arguments = {name: value for name, value in definition.items() if name in CustomProperty.__dataclass_fields__}
    custom = CustomProperty(**arguments)
    assert custom.properties == [wanted]
    assert custom.names == ["parts"]


def test_classes_come_from_the_lines_of_a_file(tmp_path, monkeypatch):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffground\r\n\r\n  left leg \n\n\tÄrmel".encode())
    wanted = [Categorical("parts", classes=("ground", "left leg", "Ärmel"))]
    assert configured(*CATEGORICAL, f"property.classes={path}") == wanted
    assert CustomProperty("parts", "categorical", classes=str(path)).properties == wanted
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configured(*CATEGORICAL, "property.classes='~/classes.txt'") == wanted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"b\xe9ret\nhat\n", "are no text in UTF-8"),
        (b"\xff\xfea\x00\n\x00b\x00", "are no text in UTF-8"),
        (b"", "give at least 2"),
        (b"alone\n\n \n", "give at least 2"),
        (b"a\nb\na\n", "a is there twice; give each once"),
        (b"a\nb\x07\n", "must not hold line breaks or other control characters"),
        (None, "No such file"),
    ],
)
def test_a_file_of_classes_that_names_none_is_refused_by_its_name(tmp_path, content, said):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    for line in (
        refused(lambda: configured(*CATEGORICAL, f"property.classes={path}")),
        refused(lambda: CustomProperty("parts", "categorical", classes=str(path)).properties),
    ):
        assert str(path) in line
        assert said in line


def test_classes_from_a_folder_or_a_pipe_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is a folder" in refused(lambda: configured(*CATEGORICAL, f"property.classes={tmp_path}"))
    assert "it is a pipe" in refused(lambda: configured(*CATEGORICAL, f"property.classes={tmp_path / 'pipe'}"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (CATEGORICAL, "property parts: kind categorical needs its classes; give a list of names, or a text file"),
        ((*CATEGORICAL, "property.classes=[a]"), "property.classes=[a]: give at least 2"),
        ((*CATEGORICAL, "property.classes=[]"), "property.classes=[]: give at least 2"),
        ((*CATEGORICAL, "property.classes=[a,a]"), "property.classes=[a, a]: a is there twice; give each once"),
        ((*CATEGORICAL, "property.classes=[a,'']"), "property.classes is empty"),
        ((*CATEGORICAL, "property.classes=[a,[b]]"), "property.classes: must be text, not [b]"),
        (
            (*CATEGORICAL, "property.classes=[a,b]", "property.ignore=none"),
            "property.ignore: must be a whole number, not none",
        ),
        ((*CUSTOM, "property.kind=binary", "property.classes=[a,b]"), "property parts: kind binary has no classes"),
        ((*CUSTOM, "property.kind=binary", "property.ignore=255"), "property parts: kind binary has no ignore"),
        ((*CUSTOM, "property.kind=vector", "property.ignore=0"), "property parts: kind vector has no ignore"),
        ((*CUSTOM, "property.kind=catagorical"), "property.kind=catagorical: did you mean categorical? choose one of"),
        (CUSTOM, "property.kind is not set; give it as property.kind=VALUE"),
        (("property=custom", "property.kind=binary"), "property.name is not set; give it as property.name=VALUE"),
        (("property=custom", "property.kind=binary", "property.name=../x"), "property.name=../x: is used as a name of"),
        ((*CUSTOM, "property.kind=vector", "property.channels=0"), "property.channels=0: must be at least 1"),
        ((*CUSTOM, "property.kind=vector", "property.unit=1"), "property.unit: must be true or false, not 1"),
        ((*CUSTOM, "property.kind=depth", "property.learning_rate=0"), "property.learning_rate=0: must be above 0"),
    ],
)
def test_what_defines_no_property_is_refused_with_its_setting(overrides, said):
    assert refused(lambda: configured(*overrides)).startswith(said)


@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"name": "a"},
        {"name": "a", "kind": "colour"},
        {"name": "a", "kind": ["binary"]},
        {"kind": "binary"},
        {"name": "a", "kind": "binary", "unit": True},
        {"name": "a", "kind": "categorical"},
        {"name": "a", "kind": "categorical", "classes": ["x"]},
        {"name": "a", "kind": "categorical", "classes": ["x", "x"]},
    ],
)
def test_a_recorded_definition_of_no_property_is_refused(definition):
    line = refused(lambda: property_from(definition))
    assert "defines no property: " in line or "give at least two, each once" in line


# A choice of several


def test_known_ones_come_before_the_users_own_in_their_order():
    own = "+property.own=[{name:a,kind:categorical,classes:[x,y],ignore:0},{name:b,kind:vector,unit:false}]"
    wanted = [
        PROPERTIES["shading"],
        PROPERTIES["depth"],
        Categorical("a", classes=("x", "y"), ignore=0),
        Vector("b", unit=False),
    ]
    assert configured("property.names=[shading,depth]", own) == wanted
    assert configured("property.names=[]", own) == wanted[2:]


def test_the_papers_properties_are_probed_unless_others_are_chosen():
    assert [item.name for item in configured()] == list(PAPERS)
    groups = sorted(path.stem for path in Path(ROOT / "conf/property").glob("*.yaml"))
    chosen = {group: [item.name for item in configured(f"property={group}")] for group in groups if group != "custom"}
    assert chosen.pop("all") == list(PAPERS)
    assert max(chosen.values(), key=len) == list(PROPERTIES)
    single = {group: names for group, names in chosen.items() if len(names) == 1}
    assert single == {name: [name] for name in PROPERTIES}


OWN = {
    "{name:a,kind:binary,classs:[x,y]}": "property.own[0]: no setting 'classs'; a property has name, kind, classes,",
    "{name:a,kind:binary,threshold:0.5}": "property.own[0]: no setting 'threshold'; a property has name, kind,",
    "{name:a,classes:[x,y]}": "property.own[0]: no kind; a property has name, kind, classes, ignore, channels, unit,",
    "{kind:binary,unit:true}": "property.own[0]: no name; a property has name, kind,",
    "{name:a}": "property.own[0]: no kind; a property has",
    "3": "property.own: must be a mapping such as",
    "{name:a,kind:binry}": "property.own[0].kind=binry: did you mean binary? choose one of binary, continuous,",
    "{name:a,kind:[binary]}": "property.own[0].kind: must be text, not [binary]",
    "{name:null,kind:binary}": "property.own[0].name is null",
    "{name:'a/b',kind:binary}": "property.own[0].name=a/b: is used as a name of files",
    "{name:a,kind:vector,channels:many}": "property.own[0].channels: must be a whole number, not many",
    "{name:a,kind:vector,learning_rate:.inf}": "property.own[0].learning_rate: must be a number",
    "{name:a,kind:categorical,classes:[x]}": "property.own[0].classes=[x]: give at least 2",
    "{name:a,kind:categorical,classes:[x,x]}": "property.own[0].classes=[x, x]: x is there twice; give each once",
    "{name:a,kind:categorical}": "property a: kind categorical needs its classes; give a list of names, or a text",
    "{name:a,kind:depth,classes:[x,y]}": "property a: kind depth has no classes; leave classes out",
    "{name:a,kind:depth,ignore:0}": "property a: kind depth has no ignore; leave ignore out",
    "{name:depth,kind:depth}": "property depth is there twice, among depth, depth; give each a name of its own",
    "{name:a,kind:depth},{name:a,kind:binary}": "property a is there twice, among depth, a, a; give each a name",
    "{name:b,kind:depth},{name:a,kind:binry}": "property.own[1].kind=binry: did you mean binary?",
}


@pytest.mark.parametrize("own", OWN)
def test_what_is_wrong_with_one_of_ones_own_is_told_with_its_place(own):
    assert refused(lambda: configured("property.names=[depth]", f"+property.own=[{own}]")).startswith(OWN[own])


def test_nothing_to_probe_is_refused():
    said = "property: nothing to probe; give property.names, or property.own"
    assert refused(lambda: configured("property.names=[]")) == said
    assert refused(lambda: PropertySelection([]).properties) == said


def test_an_unknown_name_is_answered_with_the_nearest():
    assert refused(lambda: property_named("nrmals")) == "unknown property 'nrmals': did you mean normals?"
    assert refused(lambda: property_named("zzz")).endswith(f"choose from {', '.join(PROPERTIES)}.")
    assert "did you mean" in refused(lambda: PropertySelection(["shapes"]).properties)


def test_known_names_and_properties_mix_and_none_comes_twice():
    own = Binary("mine")
    assert as_properties(["depth", own]) == {"depth": PROPERTIES["depth"], "mine": own}
    for twice in (["depth", "depth"], ["depth", Binary("depth")], [own, Continuous("mine")]):
        assert "is there twice" in refused(lambda twice=twice: as_properties(twice))


def test_a_threshold_is_of_masks():
    with pytest.raises(UserError, match="kind continuous has no threshold"):
        _ = CustomProperty("albedo", "continuous", threshold=0.5).properties
