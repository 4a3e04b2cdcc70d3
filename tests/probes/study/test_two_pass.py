"""The main study on a random network: what it reports, what it never looks at, and that it repeats itself."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from diffprobe.activations.sources.generation import Generation
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.probes.config import Recipe
from diffprobe.probes.study.two_pass import Means, Question, study_emergence
from tests.reference.score_rows import rows_of

PROMPTS = [Prompt("a cat", seed, f"image_{seed}") for seed in range(10)]
SOURCE = Generation(PROMPTS, sampling_steps=3)


def brightness(images, names, properties):
    """A labeler: bright pixels are salient and near."""
    grey = images.mean(1)
    middle = grey.flatten(1).median(1).values[:, None, None]
    maps = {"saliency": (grey > middle).float(), "depth": grey, "shading": 1 - grey}
    return {name: maps[name] for name in properties}


@pytest.fixture(scope="module")
def question(tiny_backbone):
    layers = select_layers(catalogue(tiny_backbone.denoiser), "self_attention&stage=decoder")
    return Question(layers[-2:], steps=[0, 2], recipe=Recipe(epochs=2))


@pytest.fixture(scope="module")
def findings(tiny_backbone, question):
    return study_emergence(tiny_backbone, SOURCE, brightness, question, Means(batch_size=4, shown=1))


def test_probes_and_controls_are_scored_on_the_same_images(findings, question):
    by_control = {
        control: {(row.split, row.image) for row in rows_of(findings.scores) if row.control == control}
        for control in ("none", "permuted", "position")
    }
    assert by_control["none"] == by_control["permuted"] == by_control["position"]
    wanted = {(layer.name, step) for layer in question.layers for step in question.steps}
    for control in ("none", "permuted"):
        assert {(row.layer, row.step) for row in rows_of(findings.scores) if row.control == control} == wanted


def test_training_images_are_never_scored(findings):
    scored = set(findings.scores["image"])
    assert not scored & {PROMPTS[row].name for row in findings.split.train}
    assert scored == {PROMPTS[row].name for row in (*findings.split.validation, *findings.split.test)}


def test_test_labels_do_not_change_what_is_trained_or_chosen(tiny_backbone, question, findings):
    def corrupted(images, names, properties):
        maps = brightness(images, names, properties)
        return {name: values.index_fill(0, torch.tensor(findings.split.test), 0) for name, values in maps.items()}

    other = study_emergence(tiny_backbone, SOURCE, corrupted, question, Means(batch_size=4))
    for name in question.properties:
        for layer in question.layers:
            assert torch.equal(findings.bank.weight(name, layer.name), other.bank.weight(name, layer.name))
    assert findings.bank.thresholds == other.bank.thresholds


def test_the_study_repeats_itself_and_depends_on_its_seed(tiny_backbone, question, findings):
    again = study_emergence(tiny_backbone, SOURCE, brightness, question, Means(batch_size=4))
    pd.testing.assert_frame_equal(again.scores, findings.scores)
    pd.testing.assert_frame_equal(again.summaries, findings.summaries)


def test_evaluations_are_counted_and_stages_told(tiny_backbone, question, findings):
    told = []
    study_emergence(tiny_backbone, SOURCE, brightness, question, Means(batch_size=4, tell=told.append))
    assert findings.evaluations == 10 * 3 + 10 * 2
    assert told == [
        "running 10 images through 3 steps",
        "training 12 probes on 6 images",
        "control: the same for the network with permuted weights",
    ]


def test_shown_images_are_test_images(findings):
    assert [one.row for one in findings.shown] == findings.split.test[:1]


def test_an_unknown_control_property_or_threshold_is_refused(question):
    for wrong in ({"controls": ["shuffled"]}, {"properties": ["depht"]}, {"threshold": 1.5}):
        with pytest.raises(UserError):
            Question(question.layers, [0], **wrong)
