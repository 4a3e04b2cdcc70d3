"""`python train.py` with other probes, all controls, groups of layers, and a learning curve."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from diffprobe.probes.bank import load_bank
from diffprobe.probes.controls import CONTROLS
from diffprobe.probes.score_table import read_scores
from diffprobe.probes.summaries import read_summary, summary_rows
from tests.commands import IMAGES, one_line, overrides, train
from tests.reference.score_rows import rows_of


@pytest.mark.slow
def test_one_pass_keeps_nothing_and_tells_all(material, tmp_path):
    arguments = [item for item in overrides(material, tmp_path / "run") if not item.startswith("probe=")]
    group = 'layers.groups={ends: ["down_blocks.0.attentions.0*&self_attention", "mid_block*&self_attention"]}'
    done = train(*arguments, "probe=ridge", "features=none", "control=all", group, "logger=csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "held at a time, and not kept" in done.stdout
    assert "shuffled labels" in done.stdout
    assert "probe.strengths: the" in done.stdout  # 8 images choose among 7 penalties for 72 probes
    assert "probe.strengths: the" in (tmp_path / "run" / "report.txt").read_text()
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["network_evaluations"] == IMAGES * (2 + 2 * 2)  # the steps, and again for two control networks
    scores = rows_of(read_scores(tmp_path / "run"))
    assert {row.control for row in scores} == {"none", *CONTROLS}
    assert {row.probe for row in scores} == {"ridge"}
    assert "ends" in load_bank(tmp_path / "run" / "probes").layers
    selectivity = summary_rows(read_summary(tmp_path / "run" / "selectivity.csv"))
    assert {row.control for row in selectivity} == {"selectivity"}
    assert "raw pixels" in (tmp_path / "run" / "tables" / "best_layers.tex").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # no store


@pytest.mark.slow
def test_exact_probes_learn_from_ever_more_images(material, tmp_path):
    arguments = [item for item in overrides(material, tmp_path / "run") if not item.startswith("probe=")]
    curve = ("report.learning_curve=[2,4]", "control=position", "property=depth", "steps.select=[1]", "logger=csv")
    done = train(*arguments, "probe=exact", *curve, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    points = pd.read_csv(tmp_path / "run" / "learning_curve.csv")
    assert set(points["images"]) == {2, 4}
    assert set(points["probe"]) == {"exact"}
    assert (tmp_path / "run" / "figures" / "learning_curves.png").is_file()


@pytest.mark.slow
def test_what_cannot_be_is_refused_before_any_work(material, tmp_path):
    good = [*overrides(material, tmp_path / "run"), "logger=csv"]
    for wrong, said in (
        (["features=none"], "probe.solver=ridge"),
        (["report.learning_curve=[2,400]"], "learning curve over"),
        (["layers.groups={position: [self_attention]}"], "a control has that name"),
        (["probe.solver=lbfgs"], "choose one of adam, ridge, exact"),
    ):
        done = train(*good, *wrong, cwd=tmp_path)
        assert said in one_line(done), wrong
        assert "running" not in done.stdout
