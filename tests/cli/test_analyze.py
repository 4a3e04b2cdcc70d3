"""`python analyze.py` on objects as a person runs it: on their own model and images; wrong; again; swept."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from diffprobe.analyses.drift.drift import DriftRow
from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import ObjectRow
from diffprobe.prototypes.separation import SetRow, TestRow
from tests.commands import command, one_line
from tests.data.layouts import some_scenes, walk, write_coco, write_davis, write_voc
from tests.report.test_tracking import exit_codes
from tests.rows import read_rows
from tests.tasks import checked_analysis

LAYERS = "[down_blocks.2.resnets.0,down_blocks.2.resnets.1]"
FEW = ["statistics.resamples=50", "statistics.permutations=50", "report.examples=1"]
SCENES = 6


@pytest.fixture(scope="session")
def objects(tmp_path_factory) -> Path:
    """The same scenes as VOC and as COCO, and two videos as DAVIS."""
    folder = tmp_path_factory.mktemp("objects")
    scenes = some_scenes(SCENES, start=1)
    write_voc(folder, scenes)
    write_coco(folder / "coco", scenes)
    write_davis(folder / "DAVIS", {"left": walk(scenes[0], 3), "right": walk(scenes[1], 3)})
    return folder


def overrides(material: Path, objects: Path, run: Path, kind: str = "voc") -> list[str]:
    roots = {"voc": objects, "coco": objects / "coco", "davis": objects / "DAVIS"}
    counts = {"voc": [f"objects.count={SCENES}"], "coco": [f"objects.count={SCENES}"], "davis": []}
    return [
        "model=local",
        f"model.path={material / 'model'}",
        f"objects={kind}",
        f"objects.root={roots[kind]}",
        *counts[kind],
        f"layers.select={LAYERS}",
        *FEW,
        f"hydra.run.dir={run}",
    ]


def analyze(*arguments: str, cwd: Path):
    return command("analyze.py", *arguments, cwd=cwd, blank_figures=True)


@pytest.mark.slow
def test_a_separation_fills_the_run_folder_and_is_not_made_twice(material, objects, tmp_path) -> None:
    run = tmp_path / "run"
    given = overrides(material, objects, run)
    done = analyze(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_rows(run / "objects.csv", ObjectRow)
    assert {row.dataset for row in found} == {"voc"}
    sets, tests = read_rows(run / "sets.csv", SetRow), read_rows(run / "tests.csv", TestRow)
    layers = LAYERS.strip("[]").split(",")
    assert {row.layer for row in sets} == set(layers)
    pairs = len(found) * (len(found) - 1) // 2
    for layer in layers:
        assert sum(row.n for row in sets if row.layer == layer) == pairs
        assert load_file(run / "prototypes" / f"{layer}.safetensors")["step_0"].shape[0] == len(found)
    assert {"kruskal", "auc", "dunn_paper", "order_holds", "mean_average_precision"} <= {row.statistic for row in tests}
    permuted = [row for row in tests if row.statistic == "permutation_between_images"]
    assert all(row.p_holm is not None and row.p is not None and row.p_holm >= row.p for row in permuted)
    assert {path.name for path in (run / "tables").iterdir()} >= {"means.csv", "means.md", "means.tex", "pairs.tex"}
    assert {"distributions_pearson.png", "retrieval.pdf", "separation.png"} <= {
        path.name for path in (run / "figures").iterdir()
    }
    assert "scsi < scdi < dcsi < dcdi" in (run / "report.txt").read_text()
    assert "scsi &lt; scdi" in (run / "report.html").read_text()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["network_evaluations"] == SCENES
    assert exit_codes(run) == [0]

    again = analyze(*given, cwd=tmp_path)
    assert "skipped, since it is finished" in again.stdout
    retold = analyze(f"run={run}", cwd=tmp_path)
    assert "is an analysis" in one_line(retold)
    assert not any((tmp_path / "runs").iterdir())
    other = analyze(*given, "masks=hard", cwd=tmp_path)
    assert "masks.hard" in one_line(other)


@pytest.mark.slow
def test_voc_and_coco_copies_of_the_same_scenes_give_the_same_prototypes(material, objects, tmp_path) -> None:
    for kind in ("voc", "coco"):
        done = analyze(*overrides(material, objects, tmp_path / kind, kind), "logger=csv", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    rows = {kind: read_rows(tmp_path / kind / "objects.csv", ObjectRow) for kind in ("voc", "coco")}
    assert [row.label for row in rows["voc"]] == [row.label for row in rows["coco"]]
    assert [row.area for row in rows["voc"]] == [row.area for row in rows["coco"]]
    name = f"{LAYERS.strip('[]').split(',')[0]}.safetensors"
    voc, coco = (load_file(tmp_path / kind / "prototypes" / name)["step_0"] for kind in ("voc", "coco"))
    assert voc.numpy() == pytest.approx(coco.numpy(), rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_jobs_of_a_sweep_over_layers_and_timesteps_evaluate_the_network_once(material, objects, tmp_path) -> None:
    layers = LAYERS.strip("[]")
    given = [
        item
        for item in overrides(material, objects, tmp_path)
        if not item.startswith(("hydra.run.dir", "layers.select"))
    ]
    done = analyze(
        "-m",
        *given,
        f"layers.select={layers}",
        "trajectory=noised",
        "trajectory.timesteps=[10],[10,300]",
        f"prototypes.layers={LAYERS}",
        "logger=csv",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    evaluations = [
        json.loads((tmp_path / "sweep" / str(job) / "environment.json").read_text())["network_evaluations"]
        for job in range(4)
    ]
    assert sum(evaluations) == 2 * SCENES


@pytest.mark.slow
def test_changed_images_are_held_against_unchanged_ones(material, objects, tmp_path) -> None:
    run = tmp_path / "run"
    changes = "analysis.changes={rotation:[90],flip:[1],shift:[2]}"
    done = analyze(
        *overrides(material, objects, run),
        "analysis=transforms",
        changes,
        "objects.count=3",
        "logger=csv",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(run / "drift.csv", DriftRow)
    own = {(row.change, row.layer): row for row in rows if row.set == "self"}
    objects_there = len(read_rows(run / "objects.csv", ObjectRow))
    assert {row.n for (change, _), row in own.items() if change == "rotation"} == {objects_there}
    assert {row.n for (change, _), row in own.items() if change == "shift"} == {0}  # all are pushed out
    with (run / "vanished.csv").open() as file:
        assert {row["change"] for row in csv.DictReader(file)} == {"shift"}
    assert list((run / "figures").glob("drift_*.png"))
    assert (run / "report.txt").read_text().strip()


@pytest.mark.slow
def test_images_noised_and_denoised_again_are_held_against_clean_ones(material, objects, tmp_path) -> None:
    run = tmp_path / "run"
    done = analyze(
        *overrides(material, objects, run),
        "analysis=denoising",
        "analysis.strengths=[0.5]",
        "analysis.sampling_steps=[2]",
        "analysis.strength=0.5",
        "steps.sampling=4",
        "objects.count=2",
        "logger=csv",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(run / "drift.csv", DriftRow)
    assert {(row.change, row.strength) for row in rows} == {("strength", 0.5), ("denoising_steps", 1.0)}
    assert all(row.mean is not None and row.mean > 0 for row in rows if row.set == "self")


@pytest.mark.slow
def test_objects_of_videos_are_held_against_themselves_some_frames_on(material, objects, tmp_path) -> None:
    run = tmp_path / "run"
    done = analyze(
        *overrides(material, objects, run, "davis"),
        "analysis=video",
        "objects=davis",
        "analysis.gaps=[1,2,50]",
        "logger=csv",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(run / "drift.csv", DriftRow)
    assert {(row.strength, row.set) for row in rows} >= {(1.0, "self"), (2.0, "self"), (1.0, "reidentification")}
    assert 50.0 not in {row.strength for row in rows}
    assert list((run / "figures").glob("video_*.png"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objects.root=nowhere", "JPEGImages"),
        ("measure.names=[euklidean]", "measure.names=.*euclidean"),
        ("measure.precision=float16", "measure.precision=float16: choose one of"),
        ("layers.select=down_blocks.2.resnet.0", "down_blocks.2.resnets.0"),
        ("steps.select=[3]", "steps.select="),
        ("statistics.resamples=0", "statistics.resamples=0: must be at least 1"),
        ("analysis=transforms +analysis.changes.spin=[1]", "no change 'spin'"),
        ("analysis=transforms analysis.changes.scale=[0]", "scale by 0"),
        ("analysis=transforms analysis.changes.scale=2", "analysis.changes.scale=2: give a list of numbers"),
        ("analysis=transforms trajectory=noised trajectory.timesteps=[1,2]", "a change is compared at one step"),
        ("trajectory=generation", "trajectory=generation makes its own images"),
        ("trajectory.timesteps=[1000]", "choose from 0 to 999"),
        ("trajectory.timesteps=[500]", "with noise off"),
        ("prototypes.folder=/dev/null/x", "/dev/null is a file, not a folder"),
        ("objects=scenes objects.count=1", "distances are between at least 2"),
        ("analysis=video", "analysis=video needs videos"),
        ("analysis=video objects=moving_scenes objects.count=1 analysis.gaps=[1000]", "goes on for 16 frames"),
        ("layers.select=null", "at least one layer"),
    ],
)
def test_what_a_person_got_wrong_is_told_before_any_work(override, message, material, objects, tmp_path) -> None:
    # What is typed of other objects does not go with those of the case.
    others = ("hydra.", "objects") if "objects=" in override else ("hydra.",)
    given = [item for item in overrides(material, objects, tmp_path) if not item.startswith(others)]
    with pytest.raises(UserError, match=message):
        checked_analysis(*given, *override.split())


@pytest.mark.slow
def test_an_error_is_one_line_and_leaves_nothing(material, objects, tmp_path) -> None:
    done = analyze(*overrides(material, objects, tmp_path / "run"), "analysis.resamples=1", cwd=tmp_path)
    assert one_line(done).startswith("error: analysis.resamples=1: must be at least 19")
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.slow
def test_a_broken_image_stops_the_run_or_is_named_and_left_out(material, objects, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(objects / "VOCdevkit", copy / "VOCdevkit")
    broken = sorted((copy / "VOCdevkit" / "VOC2012" / "JPEGImages").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:100])
    given = [
        *overrides(material, objects, tmp_path / "run"),
        f"objects.root={copy}",
        "objects.count=null",
        "logger=csv",
    ]
    stopped = analyze(*given, cwd=tmp_path)
    assert broken.stem in one_line(stopped)
    done = analyze(*given, "objects.on_error=skip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "problems.csv").open() as file:
        (problem,) = csv.DictReader(file)
    assert problem["image"] == broken.stem
    assert f"left out {broken.stem}" in done.stdout
