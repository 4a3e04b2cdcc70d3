"""The known properties, and that no code but their own says their names."""

from __future__ import annotations

import re
from pathlib import Path

from diffprobe.properties import PAPERS, PROPERTIES, PROPERTY_NAMES

SOURCE = Path(__file__).parents[2] / "src/diffprobe"
# Their definitions, the plain list for checks of settings, the built-in world that has them, and models that label one
OWN = (
    "properties/known.py",
    "properties/__init__.py",
    "pocket/",
    *(f"labels/{name}.py" for name in (*PAPERS, "pocket", "onnx_normals")),
)
WORDS = {"shape", "colour", "depth"}  # also of tensors, of objects, and a kind


def test_names_that_are_written_twice_are_the_same():
    assert tuple(PROPERTIES) == PROPERTY_NAMES


def test_no_other_code_names_a_property():
    names = "|".join(sorted(set(PROPERTIES) - WORDS))
    said = re.compile(rf"""["']({names})["']""")
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if not str(path.relative_to(SOURCE)).startswith(OWN)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if said.search(line)
    ]
    assert found == []
