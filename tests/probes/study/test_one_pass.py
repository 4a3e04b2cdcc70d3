"""A study that keeps no activation finds what one finds that keeps them all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffprobe.activations.activations import LayerGroup
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.controls import CONTROLS
from diffprobe.probes.study import one_pass as live
from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing
from tests.probes.study.test_two_pass import PROMPTS, SOURCE, brightness
from tests.reference.score_rows import rows_of
from tests.tiny import tiny_layers

RECIPE = ProbeConfig("ridge", solver="ridge", strengths=(1e-3, 1.0))
COMPARABLE = ("none", "permuted", "fresh", "latent", "pixels", "decoder", "position")


@pytest.fixture(scope="module")
def probing_config(tiny_backbone):
    layers = tiny_layers("self_attention&stage=decoder")
    groups = [LayerGroup("both", (layers[0], layers[-1]))]  # one of them is not probed alone, and their grids differ
    return ProbingConfig(layers[-2:], steps=[0, 2], groups=groups, controls=list(CONTROLS), probe_config=RECIPE)


@pytest.fixture(scope="module")
def found(tiny_backbone, probing_config):
    return run_probing(
        tiny_backbone, SOURCE, brightness, probing_config, ExecutionConfig(batch_size=3, one_pass=True, example_count=2)
    )


@pytest.fixture(scope="module")
def kept(tiny_backbone, probing_config):
    return run_probing(
        tiny_backbone,
        SOURCE,
        brightness,
        probing_config,
        ExecutionConfig(batch_size=3, dtype="float32", example_count=2),
    )


def table(scores):
    return {replace(row, value=None): row.value for row in scores if row.control in COMPARABLE}


def test_scores_of_network_and_controls_are_those_of_stored_activations(found, kept):
    ours, theirs = table(rows_of(found.scores)), table(rows_of(kept.scores))
    assert {"both", "position", "latent"} < {row.layer for row in theirs}
    assert ours.keys() == theirs.keys()
    far = [row for row, value in theirs.items() if ours[row] != pytest.approx(value, abs=2e-3)]
    assert len(far) <= len(theirs) // 100, far[:3]  # a pixel at a threshold may fall to either side


def test_both_ways_tell_alike_which_strengths_lie_at_the_edge(found, kept):
    assert found.bank.strengths == kept.bank.strengths
    assert found.warnings[-1].split(" probes")[0] == kept.warnings[-1].split(" probes")[0]
    at_edge = [value for layers in found.bank.strengths.values() for each in layers.values() for value in each]
    assert f"the largest, 1, was chosen by {at_edge.count(1.0)} of {len(at_edge)} probes" in found.warnings[-1]


def test_the_bank_and_the_pictures_are_those_of_stored_activations(found, kept):
    for layer in kept.bank.layers:
        torch.testing.assert_close(
            found.bank.weight("depth", layer), kept.bank.weight("depth", layer), rtol=1e-2, atol=1e-2
        )
    assert [one.row for one in found.examples] == [one.row for one in kept.examples]
    for ours, theirs in zip(found.examples, kept.examples, strict=True):
        torch.testing.assert_close(ours.steps, theirs.steps, atol=1e-3, rtol=0)
        torch.testing.assert_close(ours.final, theirs.final, atol=1e-3, rtol=0)
        torch.testing.assert_close(ours.labels["depth"], theirs.labels["depth"], atol=1e-3, rtol=0)
        for layer, said in theirs.predictions["depth"].items():
            torch.testing.assert_close(ours.predictions["depth"][layer], said, atol=2e-3, rtol=0)


def test_test_images_are_handed_on_with_their_probes_and_activations_either_way(tiny_backbone, probing_config):
    alone = replace(probing_config, controls=())
    seen: list[dict[str, tuple]] = []
    for one_pass in (True, False):
        own: dict[str, tuple] = {}

        def on_test(bank, batch, own=own):
            for place, name in enumerate(batch.names):
                values = {layer: every[:, place].cpu() for layer, every in batch.values.items()}
                own[name] = (bank.strengths, values, batch.targets["depth"][place].cpu())

        execution = ExecutionConfig(batch_size=3, dtype="float32", one_pass=one_pass, on_test=on_test)
        results = run_probing(tiny_backbone, SOURCE, brightness, alone, execution)
        assert sorted(own) == sorted(PROMPTS[row].name for row in results.split.test)
        seen.append(own)
    for name, (strengths, values, target) in seen[0].items():
        other_strengths, other_values, other_target = seen[1][name]
        assert strengths == other_strengths
        torch.testing.assert_close(target, other_target, atol=1e-3, rtol=0)
        assert values.keys() == other_values.keys() == {layer.name for layer in alone.inputs}
        for layer in values:
            torch.testing.assert_close(values[layer], other_values[layer], atol=1e-3, rtol=1e-3)


def test_every_image_is_seen_once_and_evaluations_are_images_times_steps(
    tiny_backbone, probing_config, found, monkeypatch
):
    seen: list[int] = []
    load = SOURCE.batch

    def counted(rows, size=None):
        seen.extend(rows)
        return load(rows, size)

    monkeypatch.setattr(SOURCE, "batch", counted)
    alone = replace(probing_config, controls=())
    findings = run_probing(tiny_backbone, SOURCE, brightness, alone, ExecutionConfig(batch_size=3, one_pass=True))
    assert sorted(seen) == list(range(len(PROMPTS)))
    assert findings.evaluations == len(PROMPTS) * 3
    assert found.evaluations == len(PROMPTS) * (3 + 2 * 2)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_shuffled_labels_are_each_used_once_and_never_for_their_own_image(
    tiny_backbone, probing_config, monkeypatch, batch_size
):
    shown: dict[tuple[str, str], list[tuple[torch.Tensor, torch.Tensor]]] = {}
    monkeypatch.setattr(live.OnePass, "take", logged(shown, live.OnePass.take))
    alone = replace(probing_config, controls=("labels",), groups=())
    found = run_probing(tiny_backbone, SOURCE, brightness, alone, ExecutionConfig(batch_size=batch_size, one_pass=True))
    split = found.split
    for part, rows in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        own, dealt = shown[part, "none"], shown[part, "labels"]
        assert len(own) == len(dealt) == len(rows)
        labels = [place_of(own, 1, label) for _, label in dealt]
        images = [place_of(own, 0, activation) for activation, _ in dealt]
        assert sorted(images) == sorted(labels) == list(range(len(rows)))
        assert all(image != label for image, label in zip(images, labels, strict=True))


def logged(shown, original):
    """Adds (activation, depth map) of each image that a pass of the network or of shuffled labels is shown."""

    def run(one, part, batch):
        (activation, *_), maps = batch.values.values(), batch.targets["depth"]
        assert activation.shape[1] == len(maps) == len(batch.names)
        shown.setdefault((part, one.keys[2]), []).extend(zip(activation.transpose(0, 1), maps, strict=True))
        return original(one, part, batch)

    return run


def place_of(own, part, wanted) -> int:
    (place,) = [place for place, pair in enumerate(own) if torch.equal(pair[part], wanted)]
    return place


def test_test_images_change_nothing_but_their_scores(tiny_backbone, probing_config, found):
    def corrupted(images, names, properties):
        maps = brightness(images, names, properties)
        hidden = {PROMPTS[row].name for row in found.split.test}
        return {
            key: torch.stack([one * 0 if name in hidden else one for one, name in zip(values, names, strict=True)])
            for key, values in maps.items()
        }

    alone = replace(probing_config, controls=())
    other = run_probing(tiny_backbone, SOURCE, corrupted, alone, ExecutionConfig(batch_size=3, one_pass=True))
    for key, value in found.bank.state_dict().items():
        assert torch.equal(value, other.bank.state_dict()[key])
    assert found.bank.thresholds == other.bank.thresholds


def test_probes_that_need_stored_activations_are_refused(tiny_backbone, probing_config):
    for solver in ("adam", "exact"):
        with pytest.raises(UserError, match=r"features\.store=none"):
            run_probing(
                tiny_backbone,
                SOURCE,
                brightness,
                replace(probing_config, probe_config=ProbeConfig(solver=solver)),
                ExecutionConfig(one_pass=True),
            )
