"""`python train.py` as a person runs it: on their own model, prompts and maps; wrong; interrupted; swept."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from diffprobe.activations.store.folder import open_store
from diffprobe.backbone.certificate import write_certificate
from diffprobe.backbone.load import load_backbone
from diffprobe.probes.bank import load_bank
from diffprobe.probes.score_table import read_scores
from diffprobe.probes.summaries import read_summary, summary_rows
from diffprobe.properties import PROPERTIES
from tests.commands import IMAGES, ROOT, Forked, command_apart, one_line, overrides, train
from tests.reference.score_rows import rows_of
from tests.report.test_tracking import exit_codes


@pytest.mark.slow
def test_a_study_on_ones_own_model_prompts_and_maps_fills_the_run_folder(material, tmp_path, monkeypatch):
    runs = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    certificate = write_certificate(load_backbone(str(material / "model")), "mine", [])
    done = train(*overrides(material, runs), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (runs / "certificate.json").read_bytes() == certificate.read_bytes()
    assert "24 network evaluations" in done.stdout  # 6 images x (2 steps + 2 of the permuted control)
    scores, summary = rows_of(read_scores(runs)), summary_rows(read_summary(runs / "summary.csv"))
    assert {row.control for row in scores} == {"none", "permuted", "position"}
    assert {row.image for row in scores} <= {f"prompt_{row + 100}_seed_{row + 50}" for row in range(IMAGES)}
    assert {row.metric for row in summary} == {
        *PROPERTIES["saliency"].metrics,
        *PROPERTIES["depth"].metrics,
    }
    (layer,) = load_bank(runs / "probes").layers
    assert layer == "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"
    environment = json.loads((runs / "environment.json").read_text())
    assert environment["network_evaluations"] == 24
    names = {path.name for path in (runs / "figures").iterdir()}
    assert {"scores_over_steps.png", "layers_depth.pdf", "example_1.png"} <= names
    assert (runs / ".hydra" / "config.yaml").is_file()
    assert list((runs / "wandb").glob("offline-run-*/*.wandb"))
    assert "up 3.0" in (runs / "report.txt").read_text()
    assert (runs / "report.html").stat().st_size < 10_000_000


@pytest.mark.slow
def test_a_sweep_leaves_one_folder_a_job_and_disk_and_memory_agree(material, tmp_path):
    sweep = [item for item in overrides(material, tmp_path) if not item.startswith("hydra.run.dir")]
    sweep += [f"hydra.sweep.dir={tmp_path}", "features=memory,disk", "control=none", "logger=csv"]
    done = train("-m", *sweep, "report.examples=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    memory, disk = (rows_of(read_scores(tmp_path / job)) for job in "01")
    assert len(memory) > 0
    assert [row.value for row in memory] == pytest.approx([row.value for row in disk])
    assert len(list((tmp_path / "stores").iterdir())) == 1
    with (tmp_path / "0" / "curves.csv").open() as file:
        assert [row["denoising_step"] for row in csv.DictReader(file)] == ["1", "2"]


@pytest.mark.slow
def test_the_images_of_a_second_prompt_file_are_tested_on(material, tmp_path):
    (tmp_path / "test.csv").write_text("prompts,seeds,prompt_inds\na,50,100\nb,51,101\n")
    lines = (material / "prompts.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.csv").write_bytes(b"".join([lines[0], *lines[3:]]))
    arguments = [item for item in overrides(material, tmp_path / "run") if not item.startswith("data.prompts")]
    arguments += ["property=depth", "control=none", "logger=csv", f"data.prompts={tmp_path / 'train.csv'}"]
    done = train(*arguments, f"data.test_prompts={tmp_path / 'test.csv'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = rows_of(read_scores(tmp_path / "run"))
    assert {row.image for row in scores if row.split == "test"} == {"prompt_100_seed_50", "prompt_101_seed_51"}
    (validation,) = {row.image for row in scores if row.split == "validation"}  # one of the other file's four
    assert validation in {f"prompt_{row + 100}_seed_{row + 50}" for row in (2, 3, 4, 5)}
    arguments += [f"data.test_prompts={tmp_path / 'train.csv'}", f"hydra.run.dir={tmp_path / 'other'}"]
    done = train(*[item for item in arguments if item != f"hydra.run.dir={tmp_path / 'run'}"], cwd=tmp_path)
    assert "has 4 images of data.prompts, first prompt_102_seed_52" in one_line(done)


@pytest.mark.slow
def test_a_dry_run_tells_the_plan_and_leaves_no_store(material, tmp_path):
    done = train(*overrides(material, tmp_path / "run"), "features=disk", "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 images, 24 network evaluations" in done.stdout
    assert "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0" in done.stdout
    assert not (tmp_path / "stores").exists()
    assert not (tmp_path / "run" / "scores.parquet").exists()


@pytest.mark.slow
def test_real_images_go_through_noised_and_a_store_is_used_again(tmp_path):
    from diffprobe.pocket.__main__ import write_scenes

    write_scenes(tmp_path / "scenes", 10)
    arguments = [
        "data=images",
        f"data.images={tmp_path / 'scenes' / 'images'}",
        "labeler=files",
        f"labeler.path={tmp_path / 'scenes' / 'maps'}",
        "trajectory.timesteps=[0,300]",
        "layers=headline",
        "probe=quick",
        "features=disk",
        "property=depth",
        "report.examples=0",
        "logger=csv",
    ]
    first = train(*arguments, f"hydra.run.dir={tmp_path / 'first'}", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    second = train(*arguments, f"hydra.run.dir={tmp_path / 'second'}", cwd=tmp_path)
    assert "40 network evaluations" in first.stdout  # 10 images x 2 timesteps, and again for the control
    assert "; 0 network evaluations" in second.stdout
    one, other = (rows_of(read_scores(tmp_path / run)) for run in ("first", "second"))
    assert {row.timestep for row in one if row.control == "none"} == {0.0, 300.0}
    assert one == other


@pytest.mark.slow
def test_wide_and_turned_photos_and_their_maps_are_checked_before_any_work(tmp_path):
    for folder in ("photos", "maps/saliency"):
        (tmp_path / folder).mkdir(parents=True)
    exif, random = Image.Exif(), np.random.default_rng(0)
    exif[0x0112] = 6
    for number in range(6):
        pixels = random.integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png", exif=exif if number % 2 else None)
        Image.fromarray((pixels[::2, ::2, 0] > 99).astype(np.uint8)).save(tmp_path / f"maps/saliency/{number}.png")
    (tmp_path / "photos/.ipynb_checkpoints").mkdir()
    shutil.copy(tmp_path / "photos/0.png", tmp_path / "photos/.ipynb_checkpoints/0-checkpoint.png")
    arguments = ["data=images", f"data.images={tmp_path / 'photos'}", "data.fit=crop", "trajectory.timesteps=[0]"]
    arguments += ["labeler=files", f"labeler.path={tmp_path / 'maps'}", "property=saliency", "layers=headline"]
    arguments += ["logger=csv", "dry_run=true", f"hydra.run.dir={tmp_path / 'run'}"]
    done = train(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out 1 hidden image" in done.stdout.replace("\n", " ")
    Image.fromarray(np.eye(96, 64, dtype=np.uint8)).save(tmp_path / "maps/saliency/1.png")  # upright, unlike its file
    assert "saliency/1.png of saliency: it is 64 x 96 pixels" in one_line(train(*arguments, cwd=tmp_path))
    shutil.copy(tmp_path / "photos/0.png", tmp_path / "photos/6.png")
    assert "photos/6.png shows the same picture as" in one_line(train(*arguments, cwd=tmp_path))


@pytest.mark.slow
@pytest.mark.programs
def test_two_processes_share_the_work_and_one_tells(material, tmp_path):
    arguments = [*overrides(material, tmp_path / "run"), "features=disk", "logger=csv", "report.examples=0"]
    arguments += ["trainer=ddp", "trainer.accelerator=cpu"]
    done = Forked("train.py", *arguments, cwd=tmp_path, said=tmp_path / "said").end()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder:") == done.stdout.count("Scores on test images") == 1
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["network_evaluations"] == 24
    for store in (tmp_path / "stores").iterdir():
        assert open_store(store).verify().finished
    assert len({row.image for row in rows_of(read_scores(tmp_path / "run"))}) > 1


@pytest.mark.slow
def test_bad_input_gives_one_line_and_no_traceback(material, tmp_path):
    good = [*overrides(material, tmp_path / "run"), "logger=csv"]
    assert "no layer 'up_blocks.9'" in one_line(train(*good, "layers.select=up_blocks.9"))
    assert "did you mean depth" in one_line(train(*good, "property.names=[depht]"))
    assert "nowhere" in one_line(train(*good, "model.path=nowhere"))
    assert "tpu7" in one_line(train(*good, "model.device=tpu7"))
    assert "'model'" in one_line(train(*good, "modle=pocket"))
    assert "needs real images" in one_line(train(*good, "trajectory=inversion"))
    bad = tmp_path / "bad.csv"
    bad.write_text("text,seeds\na,1\n")
    assert "no column 'prompts'" in one_line(train(*good, f"data.prompts={bad}"))
    assert not (tmp_path / "run" / "scores.parquet").exists()


@pytest.mark.slow
def test_help_shows_groups_and_examples(tmp_path):
    done = command_apart("train.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "python train.py model=sd14" in done.stdout
    assert "layers: cross_attention" in done.stdout


def test_no_heavy_library_is_imported_before_the_configuration_is_composed():
    heavy = ["torch", "lightning", "diffusers", "transformers", "wandb", "matplotlib"]
    code = f"import sys, train; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_ctrl_c_ends_the_tracked_run_and_leaves_no_table(material, tmp_path):
    runs = tmp_path / "run"
    arguments = [*overrides(material, runs), "steps.sampling=200", "steps.select=[0]", "control=none"]
    process = Forked("train.py", *arguments, cwd=tmp_path, said=tmp_path / "said")
    process.wait_for("running")
    time.sleep(0.5)
    process.send(signal.SIGINT)
    done = process.end()
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].startswith("interrupted; ")
    assert "Traceback" not in done.stderr
    assert exit_codes(runs) == [130]
    assert not (runs / "scores.parquet").exists()
    assert not list(runs.rglob("*.tmp"))
