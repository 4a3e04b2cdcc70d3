"""Trackers: what reaches them, and that no run is left unfinished."""

from __future__ import annotations

import json
import os
import runpy
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pandas import DataFrame

from diffprobe.errors import UserError
from diffprobe.report import tracking
from diffprobe.report.publish import publish, write_gif
from diffprobe.report.report import Report, Table
from diffprobe.report.tracking import RunName, Tracker
from tests.report.made_up_report import MadeUpRun, make_report

WANDB = "lightning.pytorch.loggers.WandbLogger"
CSV = {"_target_": "lightning.pytorch.loggers.CSVLogger"}


def wandb_tracker(folder: Path, mode: str = "offline", **options) -> Tracker:
    return Tracker({"_target_": WANDB, "mode": mode, "project": "diffprobe"}, folder, **options)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory of our own, to see what lands in it; no W&B settings from outside."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def records(folder: Path) -> list:
    """Every record of the one offline run below a folder (a log in LevelDB's format: blocks of 32 KiB)."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, at, pending, found = path.read_bytes(), 7, b"", []
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7].ljust(7, b"\0"))
        if at + 7 + length > len(data):
            break  # still being written
        pending += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(Record.FromString(pending))
            pending = b""
    return found


def exit_codes(folder: Path) -> list[int]:
    """How the run ended. W&B's own process writes a moment after `finish` returns, so this waits for it."""
    for _ in range(100):
        found = [record.exit.exit_code for record in records(folder) if record.WhichOneof("record_type") == "exit"]
        if found:
            return found
        time.sleep(0.1)
    return []


def history(folder: Path) -> list[dict]:
    rows = [record.history.item for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


class TestCsv:
    def test_the_training_logger_writes_below_the_run_folder(self, tmp_path):
        logger = Tracker(CSV, tmp_path).training_logger("permuted")

        logger.log_metrics({"loss": 1.0}, step=0)
        logger.save()
        assert "loss" in (tmp_path / "training" / "permuted" / "metrics.csv").read_text()

    def test_wandb_is_not_imported(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it would fail
        as_imported = runpy.run_path(tracking.__file__)["Tracker"]
        with as_imported(CSV, tmp_path) as tracker:
            tracker.training_logger("train").log_metrics({"loss": 1.0}, step=0)
            tracker.log_report(make_report())
            assert "curves.csv" in tracker.describe()

    def test_curves_of_a_report_are_written_and_without_any_there_is_no_file(self, tmp_path):
        tracker = Tracker(CSV, tmp_path)
        tracker.log_report(Report("nothing"))
        assert list(tmp_path.iterdir()) == []
        tracker.log_report(make_report())
        assert (tmp_path / "curves.csv").read_text() == "denoising_step,saliency/dice/best\n1,0.5\n2,\n"

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("lightning.pytorch.loggers.CometLogger", "choose CSVLogger"),
            ("lightning.pytorch.loggers.TensorBoardLogger", "tensorboard"),
        ],
    )
    def test_a_logger_that_cannot_be_made_is_refused_before_any_work(self, tmp_path, monkeypatch, target, message):
        monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
        monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
        with pytest.raises(UserError, match=message), Tracker({"_target_": target}, tmp_path):
            pass


class TestWandb:
    @pytest.mark.slow
    def test_an_offline_run_holds_the_whole_report(self, tmp_path, home):
        with wandb_tracker(tmp_path, config={"steps": 15}) as tracker:
            tracker.training_logger("probes").log_metrics({"train/loss": 0.5}, step=3)
            publish(make_report(), **vars(MadeUpRun(tmp_path, tracker)))
            assert str(tmp_path) in tracker.describe()

        assert exit_codes(tmp_path) == [0]
        rows = history(tmp_path)
        assert [row["denoising_step"] for row in rows if "saliency/dice/best" in row] == [1]
        overlays = [row for row in rows if any("predictions/saliency" in key for key in row)]
        assert [row["denoising_step"] for row in overlays] == [1, 2, 3]
        media = [path for path in tmp_path.glob("wandb/offline-run-*/files/media/**/*") if path.is_file()]
        assert any("figures/scores" in str(path) for path in media)
        assert any("mask" in str(path) for path in media)
        (table,) = [json.loads(path.read_text()) for path in media if path.name.endswith(".table.json")]
        assert table["columns"][:3] == ["model", "layer", "step"]
        assert len(table["data"]) == 30
        artifacts = [r.artifact.type for r in records(tmp_path) if r.WhichOneof("record_type") == "artifact"]
        assert {"tables", "probes"} <= set(artifacts)
        assert any(row.get("probes-train/loss") == 0.5 for row in rows)

    def test_a_missing_value_of_a_table_is_none(self, tmp_path, home):
        table = Table(DataFrame({"step": [0, None], "mean": [None, 0.5]}).astype({"step": "Int64"}))
        with wandb_tracker(tmp_path) as tracker:
            tracker.log_report(Report("run", tables={"rows": table}))

        assert exit_codes(tmp_path) == [0]
        (path,) = tmp_path.glob("wandb/offline-run-*/files/media/**/*.table.json")
        assert json.loads(path.read_text())["data"] == [[0, None], [None, 0.5]]

    def test_curves_are_drawn_over_the_denoising_step(self, tmp_path, home):
        with wandb_tracker(tmp_path) as tracker:
            tracker.training_logger("probes").log_metrics({"loss": 0.5}, step=0)
            tracker.log_report(make_report())

        assert exit_codes(tmp_path) == [0]
        metrics = [record.metric for record in records(tmp_path) if record.WhichOneof("record_type") == "metric"]
        over = {metric.name or metric.glob_name: metric.step_metric for metric in metrics}
        assert over["saliency/dice/best"] == "denoising_step"
        assert over["predictions/saliency"] == "denoising_step"
        assert over["*"] == "trainer/global_step"

    def test_the_summary_of_a_run_has_scores_and_not_the_ends_of_their_intervals(self, tmp_path, home):
        names = ["denoising_step", "depth/spearman/best", "depth/spearman/best_low", "depth/spearman/best_high"]
        with wandb_tracker(tmp_path) as tracker:
            tracker.log_report(Report("x", scalars=DataFrame([[1.0, 0.5, 0.4, 0.6]], columns=names)))

        assert exit_codes(tmp_path) == [0]
        metrics = [record.metric for record in records(tmp_path) if record.WhichOneof("record_type") == "metric"]
        in_summary = {metric.name: not metric.summary.none for metric in metrics if metric.name in names[1:]}
        assert in_summary == {names[1]: True, names[2]: False, names[3]: False}
        assert history(tmp_path)[0]["depth/spearman/best_low"] == 0.4  # it is in the curves all the same

    def test_a_run_is_listed_by_its_folder_and_grouped_by_its_sweep(self, tmp_path, home):
        with wandb_tracker(tmp_path, name=RunName("emergence", "seeds/0", "seeds")):
            pass

        assert exit_codes(tmp_path) == [0]
        run = next(record.run for record in records(tmp_path) if record.WhichOneof("record_type") == "run")
        assert (run.job_type, run.display_name, run.run_group, run.project) == (
            "emergence", "seeds/0", "seeds", "diffprobe",
        )  # fmt: skip

    def test_a_figure_that_moves_is_a_film(self, tmp_path, home):
        moving = write_gif(tmp_path / "moving.gif", np.zeros((2, 8, 8, 3), np.uint8))
        with wandb_tracker(tmp_path) as tracker:
            tracker.log_report(Report("moving"), {"moving": moving})

        assert exit_codes(tmp_path) == [0]
        (value,) = [row["figures/moving._type"] for row in history(tmp_path) if "figures/moving._type" in row]
        assert value == "video-file"
        assert list(tmp_path.glob("wandb/offline-run-*/files/media/videos/figures/*.gif"))

    def test_nothing_lands_in_the_home_directory_and_the_environment_is_restored(self, tmp_path, home, monkeypatch):
        monkeypatch.setenv("WANDB_CACHE_DIR", "/somewhere")
        run = tmp_path / "run"
        run.mkdir()

        with wandb_tracker(run) as tracker:
            tracker.log_report(make_report())

        assert list(home.rglob("*")) == []
        assert os.environ["WANDB_CACHE_DIR"] == "/somewhere"
        assert "WANDB_DATA_DIR" not in os.environ

    @pytest.mark.parametrize(("error", "code"), [(RuntimeError("stop"), 1), (KeyboardInterrupt(), 130)])
    def test_a_run_that_breaks_off_is_finished_as_failed(self, tmp_path, home, error, code):
        def body():
            with wandb_tracker(tmp_path) as tracker:
                tracker.training_logger("probes").log_metrics({"train/loss": 0.5}, step=0)
                raise error

        with pytest.raises(type(error)):
            body()
        assert exit_codes(tmp_path) == [code]

    def test_two_runs_in_one_process_each_stay_in_their_folder(self, tmp_path, home):
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            with wandb_tracker(tmp_path / name, config={"name": name}):
                pass

        assert exit_codes(tmp_path / "first") == exit_codes(tmp_path / "second") == [0]

    def test_disabled_takes_everything_and_writes_no_run(self, tmp_path, home):
        with wandb_tracker(tmp_path, mode="disabled") as tracker:
            tracker.training_logger("probes").log_metrics({"loss": 0.5}, step=0)
            tracker.log_report(make_report())

        assert not list(tmp_path.glob("wandb/*run*"))

    def test_only_the_first_process_of_a_distributed_run_tracks(self, tmp_path, home, monkeypatch):
        from lightning.pytorch.utilities import rank_zero_only

        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with wandb_tracker(tmp_path):
            pass

        assert not list(tmp_path.glob("wandb/*run*"))

    def test_arguments_of_the_logger_reach_wandb(self, tmp_path, home):
        chosen = {
            "_target_": "lightning.pytorch.loggers.WandbLogger",
            "mode": "offline",
            "tags": ["pilot"],
            "name": "a",
        }
        with Tracker(chosen, tmp_path, name=RunName("probing", "probing/1")):
            pass

        assert exit_codes(tmp_path) == [0]
        run = next(record.run for record in records(tmp_path) if record.WhichOneof("record_type") == "run")
        assert (list(run.tags), run.display_name) == (["pilot"], "a")

    def test_online_without_a_login_says_what_to_do(self, tmp_path, home, monkeypatch):
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        with pytest.raises(UserError, match=r"wandb login"), wandb_tracker(tmp_path, mode="online"):
            pass
        assert "WANDB_DATA_DIR" not in os.environ

    def test_absent_wandb_is_one_clear_line(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(UserError, match=r"pip install wandb.*logger=csv"), wandb_tracker(tmp_path):
            pass


def report_with_curves() -> Report:
    names = ["denoising_step", "depth/spearman/best", "depth/spearman/best_low"]
    return Report("x", scalars=DataFrame([[1.0, 0.5, 0.4], [2.0, 0.7, float("nan")]], columns=names))


def picture_file(folder: Path) -> Path:
    from PIL import Image

    path = folder / "scores.png"
    Image.fromarray(np.full((4, 6, 3), 128, np.uint8)).save(path)
    return path


def test_tensorboard_gets_losses_settings_curves_and_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger"}
    with Tracker(chosen, tmp_path, {"probe": {"name": "linear"}}) as tracker:
        logger = tracker.training_logger("train")
        logger.log_metrics({"loss": 0.5}, step=3)
        logger.finalize("success")
        tracker.log_report(report_with_curves(), {"scores": picture_file(tmp_path)})
        assert "curves.csv" in tracker.describe()
    found = EventAccumulator(str(tmp_path / "training" / "curves"))
    found.Reload()
    assert [(each.step, each.value) for each in found.Scalars("depth/spearman/best")] == [
        (1, 0.5),
        (2, pytest.approx(0.7)),
    ]
    assert [each.step for each in found.Scalars("depth/spearman/best_low")] == [1]
    assert found.Images("figures/scores")
    losses = EventAccumulator(str(tmp_path / "training" / "train"))
    losses.Reload()
    assert [each.value for each in losses.Scalars("loss")] == [0.5]
    assert "name: linear" in (tmp_path / "training" / "curves" / "hparams.yaml").read_text()


class TestMlflow:
    """With the real package, where it is installed."""

    @pytest.fixture
    def chosen(self, tmp_path, monkeypatch):
        pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.chdir(tmp_path)
        return {
            "_target_": "lightning.pytorch.loggers.MLFlowLogger",
            "experiment_name": "diffprobe",
            "tracking_uri": f"file:{tmp_path / 'mlruns'}",
        }

    def the_run(self, chosen):
        from mlflow.tracking import MlflowClient

        client = MlflowClient(chosen["tracking_uri"])
        (run,) = client.search_runs([client.get_experiment_by_name("diffprobe").experiment_id])
        return client, run

    def test_one_run_gets_losses_settings_curves_and_files(self, tmp_path, chosen):
        config = {"probe": {"name": "linear"}, "seed": 3}
        with Tracker(chosen, tmp_path / "run", config, RunName("probing", "probing/first")) as tracker:
            for stage in ("train", "train_control"):
                tracker.training_logger(stage).log_metrics({"loss": 0.5}, step=3)
            picture = picture_file(tmp_path)
            tracker.log_report(report_with_curves(), {"scores": picture}, {"tables": [picture]})
            told = tracker.describe()
        client, run = self.the_run(chosen)
        assert run.info.run_id in told
        assert (run.info.status, run.info.run_name) == ("FINISHED", "probing/first")
        assert run.data.params == {"probe/name": "linear", "seed": "3"}
        assert {"train-loss", "train_control-loss"} <= run.data.metrics.keys()
        points = client.get_metric_history(run.info.run_id, "depth/spearman/best")
        assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.7)]
        assert [each.path for each in client.list_artifacts(run.info.run_id, "figures")] == ["figures/scores.png"]

    def test_a_run_that_is_interrupted_has_failed(self, tmp_path, chosen):
        with pytest.raises(KeyboardInterrupt), Tracker(chosen, tmp_path):
            raise KeyboardInterrupt
        assert self.the_run(chosen)[1].info.status == "FAILED"

    def test_a_server_that_is_not_there_is_one_line_before_any_work(self, tmp_path, chosen):
        away = {**chosen, "tracking_uri": "unknown://nowhere"}
        with pytest.raises(UserError, match="MLFlowLogger"), Tracker(away, tmp_path):
            pass


@pytest.mark.slow
@pytest.mark.programs
def test_a_signal_to_all_processes_of_a_job_stops_the_run_without_a_traceback(home, tmp_path):
    """As SLURM sends it. W&B's own process does not heed SIGUSR1, and ends at SIGTERM before it can note anything."""
    ended = {signal.SIGUSR1: [138], signal.SIGTERM: []}
    work = f"""
import sys
from pathlib import Path
import psutil
from diffprobe.report.tracking import Tracker
from diffprobe.signals import Stopped
for number in {[int(number) for number in ended]}:
    try:
        folder = Path(sys.argv[1]) / str(number)
        with Tracker({{"_target_": "{WANDB}", "mode": "offline", "project": "diffprobe"}}, folder):
            (other,) = psutil.Process().children()
            other.send_signal(number)
            if number == {int(signal.SIGTERM)}:
                other.wait(20)
            raise Stopped(number)
    except Stopped as stopped:
        print(stopped.line)
"""
    done = subprocess.run(
        [sys.executable, "-c", work, str(tmp_path)], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "stopped by SIGUSR1\nstopped by SIGTERM\n"
    assert "Traceback" not in done.stderr
    assert {number: exit_codes(tmp_path / str(int(number))) for number in ended} == ended
