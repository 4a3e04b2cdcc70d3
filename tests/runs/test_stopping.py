"""A run that is stopped says so, closes what is open, and is not taken for a finished one, nor for another's."""

from __future__ import annotations

import json
import os
import signal

import pytest
from omegaconf import OmegaConf

from diffprobe.probes.adam import ProbeBankModule
from tests.commands import ROOT, command, one_line, overrides, train
from tests.report.test_tracking import exit_codes


@pytest.mark.slow
def test_sigterm_while_probes_train_ends_the_tracked_run_and_the_same_command_makes_it(material, tmp_path, monkeypatch):
    run = tmp_path / "run"
    typed = [item for item in overrides(material, run) if item != "probe=quick"]
    arguments = [*typed, "features=disk", "control=none", "property=depth", "probe=linear"]
    arguments += ["probe.epochs=6", "report.examples=0", f"features.folder={tmp_path / 'stores'}"]
    batches = []

    def stopped(module, *_):
        batches.append(module)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(ProbeBankModule, "training_step", stopped)
        done = train(*arguments)
    assert done.returncode == 143
    assert len(batches) == 1
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("stopped by SIGTERM; ")
    assert f"hydra.run.dir={run} goes on from what is kept in {tmp_path / 'stores'}" in told
    assert exit_codes(run) == [143]
    assert not (run / "environment.json").exists()
    assert not (run / "scores.parquet").exists()
    (run / "learning_curve.csv").write_text("of a longer list of inputs")
    refused = one_line(train(*arguments, "seed=1"))
    assert "an unfinished run of another configuration (seed is 0 there, 1 here)" in refused
    assert (run / "learning_curve.csv").exists()
    again = train(*arguments)
    assert again.returncode == 0, again.stderr
    assert json.loads((run / "environment.json").read_text())["network_evaluations"] == 0
    assert not (run / "learning_curve.csv").exists()


@pytest.mark.parametrize("kind", [*sorted(path.stem for path in (ROOT / "conf" / "analysis").glob("*.yaml")), None])
def test_every_kind_of_run_refuses_the_folder_of_another_before_any_work(kind, tmp_path):
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save({"seed": 0}, tmp_path / ".hydra" / "config.yaml")
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "depth.safetensors").write_text("of another run")
    script, given = ("train.py", []) if kind is None else ("analyze.py", [f"analysis={kind}"])
    told = one_line(command(script, *given, "logger=csv", f"hydra.run.dir={tmp_path}"))
    assert str(tmp_path) in told
    assert (tmp_path / "probes" / "depth.safetensors").read_text() == "of another run"
