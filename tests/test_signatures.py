"""What a class takes is read from its source: as it would be imported, and without importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml

from diffprobe import signatures
from diffprobe.ranges import Number
from diffprobe.signatures import Unread, signature_of

CONF = Path(__file__).parents[1] / "conf"


def _targets(content: Any):
    if isinstance(content, dict):
        if "_target_" in content:
            yield content["_target_"]
        for inner in content.values():
            yield from _targets(inner)


TARGETS = sorted({target for path in CONF.rglob("*.yaml") for target in _targets(yaml.safe_load(path.read_text()))})


def _bare(hint: Any) -> Any:
    """A hint as far as it can be compared: a class that was not imported is `Any`, and so is whatever stands there."""
    if get_origin(hint) is Annotated:
        inner, *ranges = get_args(hint)
        return (_bare(inner), *ranges)
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_args(hint) and not callable(hint):
        return (str(get_origin(hint)), *map(_bare, get_args(hint)))
    if get_args(hint):
        return (str(get_origin(hint) or Union), *(_bare(each) for each in get_args(hint) if each is not ...))
    known = (int, float, str, bool, Path, type(None))
    return hint if hint in known else Any


@pytest.mark.parametrize("target", TARGETS)
def test_a_signature_is_read_as_it_is_imported(target):
    read, imported = signature_of(target, imported=False), signatures._imported(target)
    assert read is not None
    assert imported is not None
    assert read.open_ended == imported.open_ended
    assert list(read.arguments) == list(imported.arguments)
    for name, argument in read.arguments.items():
        assert argument.required == imported.arguments[name].required, name
        if target.startswith("diffprobe."):
            assert _bare(argument.hint) == _bare(imported.arguments[name].hint), name


def test_reading_imports_nothing_heavy():
    code = (
        "import sys; from diffprobe.signatures import signature_of\n"
        f"for target in {TARGETS!r} + ['lightning.Trainer']: assert signature_of(target, imported=False), target\n"
        "assert not {'torch', 'lightning', 'diffusers', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_lightnings_trainer_is_read_with_all_its_arguments():
    import inspect

    import lightning

    found = signature_of("lightning.Trainer", imported=False)
    assert found is not None
    assert list(found.arguments) == list(inspect.signature(lightning.Trainer).parameters)
    assert found.arguments["gradient_clip_val"].hint == (int | float | None)
    assert "16-mixed" in str(found.arguments["precision"].hint)
    accelerator = get_args(found.arguments["accelerator"].hint)
    assert accelerator[0] is str
    assert issubclass(accelerator[1], Unread)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A folder from which modules can be imported, and whose sources are read anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    signatures._module.cache_clear()
    yield tmp_path
    signatures._module.cache_clear()


def test_a_class_of_ones_own_is_read_through_imports_bases_and_constants(package):
    (package / "mine").mkdir()
    (package / "mine" / "__init__.py").write_text("from .means import KMeans as Clusters\nraise SystemExit('run')\n")
    (package / "mine" / "means.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from typing import Annotated, ClassVar\n"
        "import torch\n"
        "from diffprobe.ranges import Choice, Number\n"
        "LEAST, MOST = 2, 50\n"
        "STARTS = {'random': torch.rand, 'first': torch.ones}\n"
        "Count = Annotated[int, Number(LEAST, MOST)]\n"
        "class Base:\n"
        "    def __init__(self, seed: int = 0, **others): pass\n"
        "class Inherits(Base):\n"
        "    pass\n"
        "@dataclass(frozen=True)\n"
        "class KMeans:\n"
        "    clusters: Count\n"
        "    start: Annotated[str, Choice(*STARTS)] = 'random'\n"
        "    device: torch.device | None = None\n"
        "    names: list[str] = field(default_factory=list)\n"
        "    made: ClassVar[int] = 0\n"
        "    hidden: int = field(init=False)\n"
    )
    found = signature_of("mine.Clusters", imported=False)
    assert found is not None
    assert (found.name, list(found.arguments)) == ("KMeans", ["clusters", "start", "device", "names"])
    assert found.arguments["clusters"].hint == Annotated[int, Number(2, 50)]
    assert found.arguments["clusters"].required
    assert "('random', 'first')" in str(found.arguments["start"].hint)
    assert not found.arguments["names"].required
    inherits = signature_of("mine.means.Inherits", imported=False)
    assert inherits is not None
    assert (list(inherits.arguments), inherits.open_ended) == (["seed"], True)


def test_what_cannot_be_read_is_imported_if_it_may(package):
    (package / "made.py").write_text(
        "def _make():\n    def Thing(size: int = 1): pass\n    return Thing\nThing = _make()\n"
    )
    assert signature_of("made.Thing", imported=False) is None
    found = signature_of("made.Thing")
    assert found is not None
    assert found.arguments["size"].hint is int


@pytest.mark.parametrize("target", ["nowhere.X", "diffprobe.errors.X", "X", "", "..", "diffprobe.errors"])
def test_what_is_not_there_has_no_signature(target):
    assert signature_of(target) is None
