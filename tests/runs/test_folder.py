"""Which run folders are finished, and how they are locked, recorded and cleared."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffprobe.errors import UserError
from diffprobe.runs.folder import (
    FINISHED,
    is_finished,
    record_configuration,
    remove_results,
    run_lock,
)
from diffprobe.runs.settings import checked
from tests.runs.made_up_folder import composed, run_folder


def test_a_folder_is_finished_by_its_last_file_and_its_configuration(tmp_path):
    there = run_folder(tmp_path, "seed=1")
    assert is_finished(there, checked(composed("seed=1")))
    assert is_finished(there, checked(composed("seed=1", "job=other", "model.device=cpu")))
    with pytest.raises(UserError, match=r"seed is 1 there, 2 here.*nothing was overwritten"):
        is_finished(there, checked(composed("seed=2")))
    (there / FINISHED).unlink()
    assert not is_finished(there, checked(composed("seed=1")))


def test_an_unfinished_run_goes_on_with_its_own_settings_only(tmp_path):
    there = run_folder(tmp_path, "seed=1")
    (there / FINISHED).unlink()
    (there / "learning_curve.csv").write_text("of seed 1")
    assert not is_finished(there, checked(composed("seed=1", "model.device=cpu")))
    with pytest.raises(UserError, match=r"an unfinished run of another configuration \(seed is 1 there, 2 here\)"):
        is_finished(there, checked(composed("seed=2")))
    assert (there / "learning_curve.csv").read_text() == "of seed 1"


def test_a_folder_with_files_that_no_run_has_left_is_refused_but_for_logs(tmp_path):
    settings = checked(composed())
    assert not is_finished(tmp_path / "new", settings)
    (tmp_path / ".hydra").mkdir()  # of a run that was killed before it had written its configuration
    for name in ("train.log", "slurm-12.out", "log.txt"):
        (tmp_path / name).write_text("running")
    assert not is_finished(tmp_path, settings)
    for name in ("scores.csv", "photos"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"is not empty \(photos and 1 more\).*hydra\.run\.dir=FOLDER"):
        is_finished(tmp_path, settings)


def test_what_an_unfinished_run_left_is_made_again_and_what_is_not_its_own_stays(tmp_path):
    results = ["scores.parquet", "report.html", "probes/depth.safetensors", "figures/old.png", "tables/best_layers.md"]
    others = ["train.log", "notes.md", "wandb/offline-run/run.wandb", "stores/pocket/manifest.json"]
    for name in (*results, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    remove_results(tmp_path)
    assert [name for name in (*results, *others) if (tmp_path / name).exists()] == others


def test_one_process_at_a_time_makes_a_run_in_a_folder_and_removes_what_a_killed_one_left(tmp_path):
    left = [tmp_path / f".scores.csv.elsewhere.{process}.0a1b2c3d.tmp" for process in (1, 2)]
    left.append(tmp_path / "figures" / ".a.png.elsewhere.3.0a1b2c3d.tmp.png")
    (tmp_path / "figures").mkdir()
    for path in left:
        path.write_text("half")
    with run_lock(tmp_path, print):
        assert not any(path.exists() for path in left)
        with pytest.raises(UserError, match="another process is making a run in"), run_lock(tmp_path, print):
            pass
    with run_lock(tmp_path, print):
        pass


def test_a_configuration_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    save, written = OmegaConf.save, []

    def killed(content, path):
        written.append(path)
        if len(written) == 3:
            Path(path).write_text("half")
            raise KeyboardInterrupt
        save(content, path)

    monkeypatch.setattr(OmegaConf, "save", killed)
    hydra = OmegaConf.create({"overrides": {"task": ["seed=1"]}})
    with pytest.raises(KeyboardInterrupt):
        record_configuration(tmp_path, composed("seed=1"), hydra)
    assert sorted(path.name for path in (tmp_path / ".hydra").iterdir()) == ["hydra.yaml", "overrides.yaml"]
