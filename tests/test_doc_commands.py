"""What pages tell people to type exists: commands are composed and checked as before a run, Python has the names."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import zip_longest

import pytest

import diffprobe
from diffprobe.cli.composing import compose_typed
from diffprobe.runs.settings import check_analysis, checked
from diffprobe.signatures import signature_of
from tests.pages import ROOT, Page, pages

SCRIPTS = ("train.py", "analyze.py")
COMMAND = re.compile(r"(^|\s)(python3? ([\w/]+\.py|-m diffprobe)|diffprobe (train|analyze)\b)")
KMEANS = ROOT / "tests" / "integration" / "examples" / "kmeans"
# The changelog names what there was.
PAGES = [page for page in pages() if page.path != "CHANGELOG.md"]
# What stands for something of the reader's: a value that fits. All else that stands for a file is a name like another.
FITTING = (
    (r"\bdiffprobe (train|analyze)\b", r"python \1.py"),
    (r"\$PYTHONPATH", str(KMEANS)),
    (r"\$PWD", str(ROOT)),
    (r"\$\{?\w+\}?", "7"),
    (r"<date>_<time>", "DATE_TIME"),
    (r"(?<=objects\.root=)\w+", "VOCdevkit"),
)
# Made of files that the page tells the reader to write first.
OF_THE_READER = ("=mine",)
# Settings of the analysis that docs/extending.md writes.
OF_AN_EXAMPLE = ("analysis.clusters=1", "+analysis.cluster=3")
# Endings of files whose names look like keys.
FILES = {"csv", "html", "json", "md", "parquet", "png", "py", "safetensors", "txt", "yaml"}


def lines_of(page: Page) -> Iterator[str]:
    """Every line of a block, and every word of code, that may be a command."""
    for block in page.blocks("bash", "sh", ""):
        yield from block.replace("\\\n", " ").splitlines()
    yield from page.words


def lines_of_presets() -> Iterator[tuple[str, str]]:
    """Preset and command, of the indented lines of the comments that presets begin with."""
    for path in sorted((ROOT / "conf" / "experiment").rglob("*.yaml")):
        text = re.sub(r"\\\n#", " ", path.read_text())
        yield from ((path.relative_to(ROOT).as_posix(), line) for line in re.findall(r"^#   (.*)$", text, re.MULTILINE))


def commands() -> list[tuple[str, str]]:
    """Page or preset, and command, of those that run one of ours."""
    found = []
    of_pages = [(page.path, line) for page in PAGES for line in lines_of(page)]
    for place, line in [*of_pages, *lines_of_presets()]:
        for part in line.split(" && "):
            if COMMAND.search(part) and (place, part) not in found:
                found.append((place, part.strip()))
    return found


def words_of(command: str) -> list[str]:
    """The arguments after `python`, with fitting values; `...` stands for what the reader adds."""
    for placeholder, value in FITTING:
        command = re.sub(placeholder, value, command)
    words = shlex.split(command, comments=True)
    words = words[next(at for at, word in enumerate(words) if word in ("python", "python3")) + 1 :]
    end = next((at for at, word in enumerate(words) if word in ("|", ">", "#")), len(words))
    return [word for word in words[:end] if not word.endswith("...")]


def jobs(overrides: list[str]) -> list[list[str]]:
    """The jobs of a sweep in which every choice is tried once, or the one run."""
    if "-m" not in overrides:
        return [overrides]
    lists = [[item] if item.startswith("hydra") else values(item) for item in overrides if item != "-m"]
    first = [each[0] for each in lists]
    return [[one or other for one, other in zip(row, first, strict=True)] for row in zip_longest(*lists)]


def values(item: str) -> list[str]:
    """`group=a,b` as `group=a` and `group=b`; of a key the first value. Commas within brackets stay."""
    key, _, value = item.partition("=")
    parts = re.split(r",(?![^\[{(]*[\]})])", value)
    return [f"{key}={part}" for part in (parts if (ROOT / "conf" / key).is_dir() else parts[:1])]


@cache
def check(script: str, *overrides: str) -> None:
    for job in jobs(list(overrides)):
        config, _ = compose_typed(job, script.removesuffix(".py"))
        (checked if script == "train.py" else check_analysis)(config)


@pytest.mark.parametrize(("page", "command"), commands(), ids=[f"{page}: {line[:60]}" for page, line in commands()])
def test_a_command_is_one_that_there_is(page, command, monkeypatch):
    if any(name in command for name in OF_THE_READER):
        pytest.skip("composed of files that the page tells the reader to write")
    monkeypatch.syspath_prepend(str(KMEANS))
    program, *arguments = words_of(command)
    if program in SCRIPTS:
        if not any(word.startswith("--") for word in arguments):  # --help and what else ends before a run
            check(program, *arguments)
        return
    if program != "-m":
        assert (ROOT / program).is_file()
        return
    module, *arguments = arguments
    place = ROOT / "src" / module.replace(".", "/")
    source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
    assert '__name__ == "__main__"' in source
    for word in arguments:
        assert not word.startswith("--") or f'"{word}"' in source, f"{module} has no {word}"
    if module == "diffprobe.try_labels":
        check("train.py", *(word for word in arguments if "=" in word))


def test_commands_are_found():
    assert len(commands()) > 110
    assert ("README.md", "python train.py") in commands()
    assert (
        words_of("diffprobe train seed=1 ...  # more") == words_of("python train.py seed=1") == ["train.py", "seed=1"]
    )
    assert values("seed=[1,2],[3]") == ["seed=[1,2]"]
    assert jobs(["-m", "seed=1,2", "layers=x,y"]) == [["seed=1", "layers=x"], ["seed=1", "layers=y"]]


@pytest.mark.parametrize("wrong", ["layers=everything", "probe.epoch=3", "probe.epochs=-1", "analysis=kmean"])
def test_a_command_that_there_is_not_is_found(wrong):
    with pytest.raises(Exception, match=r"(?i)could not|unknown|at least|key|find"):
        check("analyze.py", wrong)


def test_extras_that_pages_install_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        for names in re.findall(r"\.\[([\w,]+)\]'", page.text):
            assert set(names.split(",")) <= set(extras), f"{page.path}: {names}"


def test_choices_and_keys_in_texts_exist():
    """`group=choice` and `group.key` between backticks; what is open is not judged: a class's other arguments."""
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"hydra"}
    keys = known_keys(groups)
    wrong = []
    for page in PAGES:
        for word in (part for code in page.words for part in code.split() if "..." not in part):
            choice = re.fullmatch(r"([\w/]+)=([a-z][\w/]*(?:,[a-z][\w/]*)*)", word)
            if choice and choice[1].split("/")[0] in groups:
                names = choice[2].split(",")
                wrong += [
                    (page.path, word) for name in names if not (ROOT / "conf" / choice[1] / f"{name}.yaml").exists()
                ]
            key = re.fullmatch(r"\+?(\w+)\.(\w+)(?:\.\w+)*(?:=.*)?", word)
            if key and key[1] in keys and key[2] not in keys[key[1]] | FILES:
                wrong.append((page.path, word))
    assert [(page, word) for page, word in wrong if word not in OF_AN_EXAMPLE] == []


def known_keys(groups: set[str]) -> dict[str, set[str]]:
    """Of each group whose classes take named arguments only: those, and the keys that files set."""
    import yaml

    keys: dict[str, set[str]] = {}
    for group in groups - {"experiment", "debug", "callbacks", "trainer", "logger"}:
        found = keys.setdefault(group, set())
        for path in (ROOT / "conf" / group).rglob("*.yaml"):
            content = yaml.safe_load(path.read_text()) or {}
            content = content.get(group, content)
            found |= set(content)
            found |= {key for item in content.get("defaults", ()) if isinstance(item, dict) for key in item}
            signature = signature_of(content["_target_"]) if "_target_" in content else None
            found |= set(signature.arguments) if signature else set()
    for name in ("train", "analyze"):
        for group, content in yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text()).items():
            if group in keys and isinstance(content, dict):
                keys[group] |= set(content)
    return keys


@pytest.mark.parametrize("page", [page for page in PAGES if page.blocks("python")], ids=lambda page: page.path)
def test_names_of_python_exist(page: Page):
    for block in page.blocks("python"):
        for node in ast.walk(ast.parse(re.sub(r"^[!%].*$", "", block, flags=re.MULTILINE))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffprobe":
                module = import_module(node.module or "")
                assert [each.name for each in node.names if not hasattr(module, each.name)] == []
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dp":
                assert node.attr in diffprobe.__all__, f"dp.{node.attr}"
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("dp."):
                name = ast.unparse(node.func)[3:]
                signature = signature_of(f"{diffprobe._PLACES[name]}.{name}")
                assert signature is not None
                given = {each.arg for each in node.keywords if each.arg}
                assert signature.open_ended or given <= set(signature.arguments), f"dp.{name}: {given}"
