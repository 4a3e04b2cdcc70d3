"""The commands of docs/labels.md that label classes with a segmentation model work, at a small size."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from diffprobe.labels.segmentation import TransformersSegmentation, main
from tests.commands import ROOT, train
from tests.labels.test_depth import dpt
from tests.labels.tiny_segmentation import save_model

PAGE = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
SMALL = (
    *("data.count=8", "steps.sampling=2", "steps=last", "layers=headline", "probe=quick", "control=none"),
    *("logger=csv", "report.examples=1", "model.device=cpu"),
)
# What the model of this test knows, in place of people and skies
CLASSES = {"[person,sky,other]": "[wall,sky,other]", "[person, sky, other]": "[wall, sky, other]"}


def commands() -> list[list[str]]:
    """The words of each command of the section."""
    section = PAGE.split("\n## Classes\n")[1].split("\n## ")[0]
    for named, known in CLASSES.items():
        assert named in section
        section = section.replace(named, known)
    blocks = re.findall(r"^```bash\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [[word for word in shlex.split(line) if word != "..."] for line in lines]


def kept(folder: Path) -> dict[str, int]:
    """The files of maps, and when they were written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def run(words: list[str], model: str, folder: Path, name: str) -> pd.DataFrame:
    words = [word.replace("MODEL", model) for word in words[2:]]
    done = train(*words, *SMALL, f"hydra.run.dir=runs/{name}", cwd=folder)
    assert not done.returncode, done.stderr
    return pd.read_csv(folder / "runs" / name / "summary.csv")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # classes that few images lack
def test_the_commands_run_as_written_and_maps_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model")
    first, names, of_file, beside = commands()
    summary = run(first, model, tmp_path, "first")
    scores = summary[(summary.property == "segments") & (summary.metric == "mean_iou")]
    assert len(scores)
    assert scores["mean"].notna().all()
    before = kept(tmp_path / "labels" / "segments")
    assert len(before) == 8
    (path, *_) = (tmp_path / "labels").rglob("*.safetensors")
    assert set(load_file(path)["map"].unique().tolist()) <= {0.0, 1.0, 2.0}

    def fail(*arguments: object) -> None:
        raise AssertionError("maps that are kept are computed again")

    with monkeypatch.context() as patch:  # the trial on noise is before
        patch.setattr(TransformersSegmentation, "__call__", fail)
        again = run(first, model, tmp_path, "again")
    pd.testing.assert_frame_equal(again, summary)
    assert kept(tmp_path / "labels" / "segments") == before

    capsys.readouterr()
    assert names[:3] == ["python", "-m", "diffprobe.labels.segmentation"]
    assert names[4:] == [">", "classes.txt"]
    assert main([names[3].replace("MODEL", model)]) == 0
    (tmp_path / "classes.txt").write_text(capsys.readouterr().out)
    everything = run(of_file, model, tmp_path, "all")
    assert {"dice person", "dice screen door"} <= set(everything.metric)

    before = kept(tmp_path / "labels" / "segments")
    assert len(before) == 16
    (tmp_path / "depth").mkdir()
    both = run([*beside, f"labeler.depth.model={dpt(tmp_path / 'depth')}"], model, tmp_path, "both")
    assert set(both.property) == {"depth", "segments"}
    assert kept(tmp_path / "labels" / "segments") == before
    assert len(kept(tmp_path / "labels" / "depth")) == 8
