"""The main study on a random network: what it reports, what it never looks at, and that it repeats itself."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from diffprobe.activations.sources import Generation
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing
from tests.reference.score_rows import rows_of
from tests.tiny import tiny_layers

PROMPTS = [Prompt("a cat", seed, f"image_{seed}") for seed in range(10)]
SOURCE = Generation(PROMPTS, sampling_steps=3)


def brightness(images, names, properties):
    """A labeler: bright pixels are salient and near."""
    grey = images.mean(1)
    middle = grey.flatten(1).median(1).values[:, None, None]
    maps = {"saliency": (grey > middle).float(), "depth": grey, "shading": 1 - grey}
    return {name: maps[name] for name in properties}


@pytest.fixture(scope="module")
def probing_config(tiny_backbone):
    layers = tiny_layers("self_attention&stage=decoder")
    return ProbingConfig(layers[-2:], steps=[0, 2], probe_config=ProbeConfig(epochs=2))


@pytest.fixture(scope="module")
def findings(tiny_backbone, probing_config):
    return run_probing(
        tiny_backbone, SOURCE, brightness, probing_config, ExecutionConfig(batch_size=4, example_count=1)
    )


def test_probes_and_controls_are_scored_on_the_same_images(findings, probing_config):
    by_control = {
        control: {(row.split, row.image) for row in rows_of(findings.scores) if row.control == control}
        for control in ("none", "permuted", "position")
    }
    assert by_control["none"] == by_control["permuted"] == by_control["position"]
    wanted = {(layer.name, step) for layer in probing_config.layers for step in probing_config.steps}
    for control in ("none", "permuted"):
        assert {(row.layer, row.step) for row in rows_of(findings.scores) if row.control == control} == wanted


def test_training_images_are_never_scored(findings):
    scored = set(findings.scores["image"])
    assert not scored & {PROMPTS[row].name for row in findings.split.train}
    assert scored == {PROMPTS[row].name for row in (*findings.split.validation, *findings.split.test)}


def test_test_labels_do_not_change_what_is_trained_or_chosen(tiny_backbone, probing_config, findings):
    def corrupted(images, names, properties):
        maps = brightness(images, names, properties)
        return {name: values.index_fill(0, torch.tensor(findings.split.test), 0) for name, values in maps.items()}

    other = run_probing(tiny_backbone, SOURCE, corrupted, probing_config, ExecutionConfig(batch_size=4))
    for name in probing_config.properties:
        for layer in probing_config.layers:
            assert torch.equal(findings.bank.weight(name, layer.name), other.bank.weight(name, layer.name))
    assert findings.bank.thresholds == other.bank.thresholds


def test_the_study_repeats_itself_counts_evaluations_and_tells_its_stages(tiny_backbone, probing_config, findings):
    told = []
    means = ExecutionConfig(batch_size=4, log=told.append)
    again = run_probing(tiny_backbone, SOURCE, brightness, probing_config, means)
    pd.testing.assert_frame_equal(again.scores, findings.scores)
    pd.testing.assert_frame_equal(again.summaries, findings.summaries)
    assert findings.evaluations == 10 * 3 + 10 * 2
    assert told == [
        "running 10 images through 3 steps",
        "training 12 probes on 6 images",
        "control: the same probes on a network with permuted weights",
    ]


def test_shown_images_are_test_images(findings):
    assert [one.row for one in findings.examples] == findings.split.test[:1]


def test_an_unknown_control_property_or_threshold_is_refused(probing_config):
    for wrong in ({"controls": ["shuffled"]}, {"properties": ["depht"]}, {"threshold": 1.5}):
        with pytest.raises(UserError):
            ProbingConfig(probing_config.layers, [0], **wrong)
