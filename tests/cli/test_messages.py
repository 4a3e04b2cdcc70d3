"""A command line that does not compose is answered with what to type, and never with what was typed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.probing.analysis import Probing
from diffprobe.cli.errors import explanation
from diffprobe.cli.keys import explain_key, typed_arguments
from diffprobe.errors import UserError
from tests.commands import ROOT, one_line, train

CONF = ROOT / "conf"


def answer(script: str, *overrides: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *overrides])
    with (
        pytest.raises((HydraException, ValueError, AssertionError)) as caught,
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        compose(script, list(overrides))
    line = explanation(caught.value, script)
    assert line is not None
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("script", "override", "told"),
    [
        ("train", "features.folder=x", "features.folder belongs to features=disk; give that choice too"),
        ("train", "model.tokenizer=x", "model.tokenizer belongs to model=local or sd15"),
        ("train", "trajectory.timesteps=[0]", "belongs to trajectory=clean, noised or noised_by_100"),
        ("train", "labeler.path=x", "labeler.path belongs to labeler=files"),
        ("train", "labeler.depth.model=x", "belongs to labeler=image_models labeler/depth=transformers"),
        ("train", "objects.count=3", "objects.count is a key of analyze.py, which train.py does not have"),
        ("train", "objects=voc", "objects is a key of analyze.py, which train.py does not have"),
        ("train", "statistics.resamples=30", "a key of analyze.py"),
        ("train", "report.published.depth.spearman=1", "set by presets only (experiment=scene_representation/sd14)"),
        ("analyze", "analysis.gaps=[1]", "analysis.gaps belongs to analysis=video"),
        ("analyze", "classifier.batch_size=1", "classifier.batch_size belongs to classifier=transformers or vgg16"),
        ("analyze", "objects.list=x", "objects.list belongs to objects=coco, davis or voc"),
        ("train", "experiment=diff_props/table1", "experiment=diff_props/table1 needs the group measure"),
        ("train", "probe.learning_rates={dept:0.1}", "the nearest valid key is 'probe.learning_rates.depth'"),
        ("train", "probe.epoch=3", "the nearest valid key is 'probe.epochs'"),
        ("train", "trainr.devices=3", "the nearest valid key is 'trainer.devices'"),
        ("train", "model.qqqq=3", "model has autocast, channels_last"),
        ("train", "qqqq=3", "unknown key 'qqqq'; --help lists"),
        ("train", "~probe.foo", "unknown key 'probe.foo'; probe has"),
        ("analyze", "~run", "run is not set, so there is nothing to leave out"),
        ("train", "~model.path=3", "the value of model.path is pocket; write ~model.path"),
        ("train", "hydra.foo=1", "unknown key 'hydra.foo' of Hydra"),
        ("train", "layers.groups.x=3", "it is given whole, such as layers.groups={x: VALUE}"),
        ("train", "+model.path=x", "model.path is there already; write model.path=VALUE"),
        ("train", "+model=sd14", "the group model is chosen already"),
        ("train", "model@foo=pocket", "write model=CHOICE"),
        (
            "train",
            "seed=1,2",
            "seed=1,2 is several values: a list is written seed=[1,2], and a sweep over them",
        ),
        ("train", "probe=nope", "probe has no choice 'nope'"),
        ("train", "probe=''", "probe has no choice ''"),
        ("train", "experiment=../quick", "did you mean experiment=quick?"),
        ("train", "model=null", "model=null: is no choice of the group model, which are ddpm"),
        ("train", "labeler=null", "labeler=null: is no choice of the group labeler"),
        ("analyze", "classifier=null", "no choice of the group classifier"),
        ("analyze", "debug=null", "debug=null: is no choice of the group debug, which are default, none"),
        ("train", "=1", "there is no key before ="),
        ("train", "seed", "'seed' is no KEY=VALUE"),
        ("train", "seed=[1", "cannot read seed=[1"),
        ("train", "data.prompts=a=b", "such as \"data.prompts='VALUE'\""),
        ("train", "data.prompts=prés.csv", "cannot read data.prompts=prés.csv; a value with characters other than"),
    ],
)
def test_what_does_not_compose_is_answered_with_what_to_type(script, override, told, monkeypatch):
    assert told in answer(script, override, monkeypatch=monkeypatch)


def test_errors_that_came_from_each_other_are_looked_at_once():
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert explanation(first, "train") is None
    second.__context__ = UserError("what to do")
    assert explanation(first, "train") == "what to do"


def test_no_key_is_answered_with_itself():
    """Every key of every choice, asked of both scripts as one that is not there."""
    import re

    from diffprobe.cli.keys import read_conf

    keys = sorted({key for file in read_conf() for key in file.keys})
    assert len(keys) > 100
    for key in keys:
        for script in ("train", "analyze"):
            line = explain_key(key, script)
            assert not re.search(rf"valid key is '{re.escape(key)}'", line), line


def test_home_and_flags_are_put_right_on_the_command_line():
    home = str(Path.home())
    typed = ["data.prompts=~/x.csv", "analysis.runs=[~/a,~/b]", "hydra.run.dir='~/r'", "~seed", "job=a~b", "run=~"]
    assert typed_arguments([*typed, "-m"]) == [
        "-m",
        f"data.prompts={home}/x.csv",
        f"analysis.runs=[{home}/a,{home}/b]",
        f"hydra.run.dir='{home}/r'",
        "~seed",
        "job=a~b",
        f"run={home}",
    ]
    with pytest.raises(UserError, match="no home folder"):
        typed_arguments(["run=~nobody_of_that_name/x"])


@pytest.mark.parametrize("place", ["/proc/foo", "/etc/passwd"])
def test_a_run_folder_that_cannot_be_made_is_named(place):
    line = one_line(train(f"hydra.run.dir={place}", "dry_run=true"))
    assert f"the run folder {place} cannot be made" in line
    assert "hydra.run.dir=FOLDER" in line


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("trainer.gradient_clip_val=1", "++trainer.gradient_clip_val=1"),
        ("trainer.devices=2", "trainer.devices=2"),
        ("analysis._target_=mine.KMeans", "++analysis._target_=mine.KMeans"),
        ("+trainer.benchmark=true", "+trainer.benchmark=true"),
        ("trainr.devices=2", "trainr.devices=2"),
        ("hydra.run.dir=x", "hydra.run.dir=x"),
        ("features.folder=x", "features.folder=x"),  # of another choice, which the answer names
        ("~trainer.devices", "~trainer.devices"),
        ("layers=headline", "layers=headline"),
    ],
)
def test_a_setting_that_no_choice_has_is_left_to_the_class_that_takes_it(typed, taken):
    assert typed_arguments([typed]) == [taken]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "trainer.gradient_clip=1",
            "'trainer.gradient_clip'; the nearest valid key is 'trainer.gradient",
        ),
        ("trainer.max_epochs=3", "trainer.max_epochs is set by the run itself, by probe.epochs"),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp: choose one of auto, ddp"),
        ("trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn: choose one of auto, ddp"),
        ("callbacks.progress_bar.refresh=3", "the nearest valid key is 'callbacks.progress_bar.refresh_rate'"),
        ("callbacks.mine._target_=nowhere.Mine", "callbacks.mine._target_=nowhere.Mine: there is no such class"),
        ("trainer.kind=x", "unknown key 'trainer.kind'; the kind is a choice of its group, trainer=NAME"),
    ],
)
def test_a_setting_that_its_class_does_not_take_is_one_line(override, told, tmp_path):
    assert told in one_line(train(override, f"hydra.run.dir={tmp_path}", "dry_run=true"))


def test_help_loads_no_library_that_takes_seconds():
    import subprocess

    call = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--help"]
    told = subprocess.run(call, check=True, capture_output=True, text=True).stderr
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in told.splitlines() if line.count("|") == 2}
    assert "hydra" in loaded
    assert not loaded & {"torch", "lightning", "diffusers", "transformers", "wandb", "matplotlib", "scipy", "dcor"}


def test_garbage_is_not_collected_before_the_work_begins(tmp_path, monkeypatch):
    collected = []

    def stop(*_):
        collected.append(gc.isenabled())
        raise UserError("this is enough")

    monkeypatch.setattr(Probing, "plan", lambda *_: collected.append(gc.isenabled()) or Plan([]))
    monkeypatch.setattr(Probing, "run", stop)
    ended = train("data.count=5", "layers=headline", "steps=last", f"hydra.run.dir={tmp_path / 'run'}")
    assert (one_line(ended), collected, gc.isenabled()) == ("error: this is enough", [False, True], True)


class UncompletedJobError(RuntimeError):
    """As submitit's, which is known by its name."""


def test_a_lost_job_of_a_sweep_is_named_with_its_state_and_its_log(tmp_path):
    result = tmp_path / "sweep" / ".submitit" / "6_1" / "6_1_0_result.pkl"
    text = f"Job 6_1 (task: 0) with path {result}\nhas not produced any output (state: CANCELLED by 0)\nError stream:\n"
    line = explanation(UncompletedJobError(text), "train")
    assert line is not None
    assert line.startswith("job 6_1 of the sweep ended before it was done (state CANCELLED by 0); ")
    assert f"hydra.sweep.dir={tmp_path / 'sweep'} " in line
    assert line.endswith(f"{result.parent / '6_1_0_log.err'}")
    late = explanation(UncompletedJobError("Job not requeued because: timed-out too many times."), "train")
    assert late is not None
    assert "hydra.launcher.timeout_min" in late
    assert "hydra.launcher.max_num_timeout=N" in late
    assert explanation(UncompletedJobError(), "train") == (
        "a job of the sweep ended before it was done: it left no result"
    )


@pytest.mark.parametrize(("task", "printed"), [("0", 1), ("1", 0)])
def test_an_error_that_all_tasks_find_is_printed_by_the_first(task, printed, tmp_path, monkeypatch):
    slurm = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "python"}
    for name, value in {**slurm, "SLURM_PROCID": task}.items():
        monkeypatch.setenv(name, value)
    done = train("trainer.devices=2", "logger=csv", f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.returncode, done.stderr.count("use --ntasks-per-node"), "Traceback" in done.stderr) == (
        1,
        printed,
        False,
    )
    other = train("seed=-1", "logger=csv", f"hydra.run.dir={tmp_path / 'run'}")  # which one task alone may find
    assert "error: seed=-1" in other.stderr


def test_a_job_that_inherits_the_environment_of_its_sweep_does_not_want_tracebacks(tmp_path):
    ask = "import diffprobe.cli.errors as errors; print(errors._WANTS_TRACEBACK)"
    look = (
        f"from diffprobe.cli.errors import plain_errors; import subprocess, sys; "
        f"plain_errors(lambda: subprocess.run([sys.executable, '-c', {ask!r}], check=True))()"
    )
    plain = {name: value for name, value in os.environ.items() if name not in ("HYDRA_FULL_ERROR", "DIFFPROBE_RAISES")}
    for wanted, more in ((False, {}), (True, {"HYDRA_FULL_ERROR": "1"})):
        done = subprocess.run(
            [sys.executable, "-c", look], env={**plain, **more}, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{wanted}\n"
