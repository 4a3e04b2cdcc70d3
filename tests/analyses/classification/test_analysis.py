"""`analyze.py analysis=classification`, as a person runs it."""

import csv

import pytest

from diffprobe.probes.score_table import read_scores, select
from tests.commands import command
from tests.tasks import refusal
from tests.tiny import build_tiny_classifier

pytestmark = pytest.mark.slow


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def classify(folder, *arguments):
    return command(
        "analyze.py",
        "analysis=classification",
        "logger=csv",
        "report.examples=1",
        f"hydra.run.dir={folder}",
        *arguments,
        blank_figures=True,
    )


def test_the_built_in_world_is_classified_step_by_step_and_held_against_rendered_scenes(tmp_path):
    done = classify(tmp_path / "run", "data.count=6", "steps.sampling=4", "steps.select=[1,3]")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    named = rows(folder / "stable.csv")
    assert f"left out {6 - len(named)} of 6 prompts" in done.stdout
    top = rows(folder / "top.csv")
    assert {row["step"] for row in top} == {"1", "3", ""}
    assert len(top) == 5 * (2 * len(named) + len(named))
    assert {row["metric"] for row in rows(folder / "summary.csv")} == {"confidence", "top1", "top5", "stable"}
    assert "rendered scenes" in (folder / "report.txt").read_text()
    page = (folder / "report.html").read_text()
    assert "python analyze.py analysis=classification logger=csv" in page
    assert {path.name for path in (folder / "figures").iterdir()} >= {"class_over_steps.png", "class_example_1.pdf"}
    again = classify(folder, "data.count=6", "steps.sampling=4", "steps.select=[1,3]")
    assert "skipped, since it is finished" in again.stdout


def test_any_classifier_of_transformers_sees_the_images_of_a_prompt_file_and_real_photos(
    tmp_path, tiny_pipeline_folder
):
    from PIL import Image

    build_tiny_classifier(tmp_path / "net", ["lemon", "orange, fruit", "tench"])
    (tmp_path / "prompts.csv").write_text("prompts,seeds\na lemon,1\ntwo Oranges,2\na house,3\n")
    (tmp_path / "photos" / "lemon").mkdir(parents=True)
    (tmp_path / "photos" / "tench").mkdir()
    for name, colour in (("lemon/1", "yellow"), ("lemon/2", "gold"), ("tench/1", "grey")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "photos" / f"{name}.png")
    done = classify(
        tmp_path / "run",
        "model=local",
        f"model.path={tiny_pipeline_folder}",
        f"data.prompts={tmp_path / 'prompts.csv'}",
        "steps.sampling=2",
        "classifier=transformers",
        f"classifier.model={tmp_path / 'net'}",
        "analysis.classes={oranges?: fruit}",
        f"analysis.photos={tmp_path / 'photos'}",
    )
    assert done.returncode == 0, done.stderr
    stable = rows(tmp_path / "run" / "stable.csv")
    assert [(row["prompt"], row["right"]) for row in stable] == [("a lemon", "lemon"), ("two Oranges", "orange, fruit")]
    real = set(select(read_scores(tmp_path / "run"), control="real")["image"])
    assert real == {"lemon/1", "lemon/2"}  # no prompt asks for a tench


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["classifier=vgg16"], "needs torchvision"),
        (["analysis.classes={cube: dog}"], "knows no class 'dog'"),
        (["analysis.photos=nowhere"], "analysis.photos=nowhere"),
        (["trajectory=clean"], "makes its own images"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line_before_any_work(arguments, told):
    assert told in refusal("analysis=classification", "data.count=3", *arguments)
