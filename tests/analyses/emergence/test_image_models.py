"""Image models on unfinished images, on a random network and a labeler that is plain to follow."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from diffprobe.analyses.emergence.image_models import (
    IMAGE_MODEL,
    ProbesUnderTest,
    check_labeler,
    score_image_models,
    step_names,
)
from diffprobe.analyses.trained_probes import score_probes
from diffprobe.errors import UserError
from diffprobe.labels.files import FilesLabeler
from diffprobe.probes.study.two_pass import ExecutionConfig, run_probing
from tests.probes.study.test_two_pass import SOURCE, brightness, probing_config  # noqa: F401 (a fixture)
from tests.reference.score_rows import rows_of
from tests.reference.scores import dice, spearman


class Labeler:
    """`brightness`, and what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, images, names, properties):
        self.asked += names
        return brightness(images, names, properties)


@pytest.fixture(scope="module")
def findings(tiny_backbone, probing_config):  # noqa: F811
    return run_probing(
        tiny_backbone, SOURCE, brightness, probing_config, ExecutionConfig(batch_size=4, dtype="float32")
    )


@pytest.fixture(scope="module")
def probed(findings):
    extraction = findings.extraction
    return ProbesUnderTest(
        findings.bank, extraction, extraction.activations, findings.targets, findings.split.test, "linear"
    )


@pytest.fixture(scope="module")
def seen(tiny_backbone, probed):
    return score_image_models(tiny_backbone, Labeler(), probed, shown=1)


def test_every_test_image_is_labelled_after_every_step_under_a_name_of_its_own(tiny_backbone, probed):
    labeler = Labeler()
    scores, _ = score_image_models(tiny_backbone, labeler, probed)
    images = [SOURCE.names[row] for row in probed.rows]
    assert labeler.asked == step_names(images, [0, 2])
    assert labeler.asked[0] == f"{images[0]}_step_0"
    assert {(row.layer, row.control, row.split, row.probe) for row in rows_of(scores)} == {
        (IMAGE_MODEL, IMAGE_MODEL, "test", "linear")
    }
    assert {(row.image, row.step) for row in rows_of(scores)} == {(image, step) for image in images for step in (0, 2)}


def test_metrics_and_timesteps_are_those_of_the_probes(findings, seen):
    real = {
        (row.property, row.metric, row.step, row.timestep)
        for row in rows_of(findings.scores)
        if (row.split, row.control) == ("test", "none")
    }
    assert {(row.property, row.metric, row.step, row.timestep) for row in rows_of(seen[0])} == real


def test_scores_are_those_of_the_maps_against_the_label_of_the_finished_image(tiny_backbone, probed, seen):
    row = probed.rows[0]
    first = probed.extraction.decode_steps(tiny_backbone, row)[:1]
    maps = brightness(first, ["any"], ["saliency", "depth"])
    found = {
        (score.property, score.metric): score.value
        for score in rows_of(seen[0])
        if (score.image, score.step) == (SOURCE.names[row], 0)
    }
    target = {name: values[row].numpy() for name, values in probed.targets.items()}
    assert found["saliency", "dice"] == pytest.approx(dice(maps["saliency"][0].numpy(), target["saliency"]))
    assert found["depth", "spearman"] == pytest.approx(spearman(maps["depth"][0].numpy(), target["depth"]))


def test_after_the_last_step_the_image_model_agrees_with_itself(seen):
    last = [row.value for row in rows_of(seen[0]) if row.step == 2 and row.metric in ("dice", "spearman")]
    assert last == pytest.approx([1.0] * len(last))


def test_probes_scored_without_training_score_as_they_did_when_they_were_trained(findings, probed):
    def values(scores):
        return {(row.layer, row.step, row.property, row.image, row.metric): row.value for row in scores}

    trained = values(row for row in rows_of(findings.scores) if (row.split, row.control) == ("test", "none"))
    known = (probed.bank, probed.activations, probed.targets, probed.rows)
    given = values(rows_of(score_probes(*known, model="other name", probe=probed.probe)))
    assert given == pytest.approx(trained)


def test_what_is_shown_is_what_was_seen_of_the_first_test_image(tiny_backbone, probed, seen):
    ((image, maps),) = seen[1]
    assert image.row == probed.rows[0]
    assert torch.equal(image.steps, probed.extraction.decode_steps(tiny_backbone, image.row))
    assert torch.equal(maps["depth"], brightness(image.steps, [], ["depth"])["depth"])
    assert image.predictions["depth"].keys() == set(probed.bank.layers)
    assert torch.equal(image.labels["shading"], probed.targets["shading"][image.row])


def test_maps_of_finished_images_alone_are_refused_before_any_work(tmp_path):
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "image_1.png").touch()
    with pytest.raises(UserError, match=r"2 of 2 images, such as image_1_step_0, image_1_step_2"):
        check_labeler(FilesLabeler(tmp_path), ["image_1"], [0, 2], ["depth"], 64)
    for step in (0, 2):
        Image.new("L", (8, 8)).save(tmp_path / "depth" / f"image_1_step_{step}.png")  # an unfinished image may be flat
    check_labeler(FilesLabeler(tmp_path), ["image_1"], [0, 2], ["depth"], 64)
