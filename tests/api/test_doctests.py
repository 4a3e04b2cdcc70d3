"""The examples in the docstrings of the Python API run as they are written, each in a folder of its own."""

import doctest
import importlib

import pytest

import diffprobe

MODULES = ("layers", "models", "prototypes", "results", "settings", "studies")
EXAMPLES = [
    test
    for name in MODULES
    for test in doctest.DocTestFinder().find(importlib.import_module(f"diffprobe.api.{name}"))
    if test.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_an_example_runs_as_written(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


@pytest.mark.parametrize("name", diffprobe.__all__)
def test_every_public_name_has_a_docstring_and_every_function_an_example(name):
    public = getattr(diffprobe, name)
    assert public.__doc__
    if not isinstance(public, type):
        assert ">>> import diffprobe as dp" in public.__doc__
