"""The commands of docs/your_own_property.md work, at a small size."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from diffprobe.pocket.__main__ import main as write_scenes
from tests.commands import ROOT, train

PAGE = (ROOT / "docs" / "your_own_property.md").read_text(encoding="utf-8")
SMALL = ("layers=headline", "probe=quick", "logger=csv", "report.examples=1")
HEADLINES = {"saliency": "dice", "albedo": "spearman", "colour": "mean_iou", "normals": "mean_angle"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run(block: str, folder: Path) -> None:
    """Lines that start with python in this process, others in a shell."""
    for part in re.split(r"^(python .*)$", block.replace("\\\n", ""), flags=re.MULTILINE):
        if not part.startswith("python "):
            subprocess.run(["bash", "-euc", part], cwd=folder, check=True, timeout=60)
            continue
        _, *words = shlex.split(part.replace("$PWD", str(folder)))
        if words[:2] == ["-m", "diffprobe.pocket"]:
            assert not write_scenes([word if word != "60" else "12" for word in words[2:]])
        else:
            script, *overrides = words
            assert script == "train.py"
            done = train(*overrides, *SMALL, cwd=folder)
            assert not done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # classes that three images lack
def test_the_page_of_own_properties_runs_as_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("bash"):
        run(block, tmp_path)
    for name, properties in (("albedo", ["albedo"]), ("colour", ["colour"]), ("mine", [*HEADLINES])):
        summary = pd.read_csv(tmp_path / "runs" / name / "summary.csv")
        assert set(summary.property) == set(properties)
        for item in properties:
            rows = summary[(summary.property == item) & (summary.metric == HEADLINES[item])]
            assert set(rows.control) == {"none", "permuted", "position"}
            assert rows["mean"].notna().all()
            assert (tmp_path / "runs" / name / "figures" / f"layers_{item}.png").is_file()
        assert (tmp_path / "runs" / name / "figures" / "example_1.png").is_file()
    (code,) = blocks("python")
    (layer,) = set(summary.layer) - {"position"}
    capsys.readouterr()
    exec(re.sub(r'^best = ".*?"', f'best = "{layer}"', code, flags=re.MULTILINE), {})
    assert re.fullmatch(r"\{'red': \S+, 'green': \S+, 'blue': \S+\}\n", capsys.readouterr().out)


def test_the_table_of_the_page_names_every_kind_with_its_scores() -> None:
    from diffprobe.properties import KINDS, property_from
    from diffprobe.properties.metrics import METRICS

    for kind in KINDS:
        definition = {"name": "mine", "kind": kind}
        if kind == "categorical":
            definition["classes"] = ["a", "b"]
        rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind}`")]
        text = "".join(rows)
        if kind == "depth":  # "as continuous, then ..."
            text += "".join(line for line in PAGE.splitlines() if line.startswith("| `continuous`"))
        for metric in property_from(definition).metrics:
            name = metric.split()[0]
            assert f"`{name}`" in text, f"{kind}: {name}"
            assert name in METRICS
