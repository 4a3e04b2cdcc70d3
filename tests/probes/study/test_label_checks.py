"""Labels that no probe can be wrong about are told of, whether or not the position control was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.study.study import label_warnings, one_valued, skip_flat
from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing
from diffprobe.properties import PROPERTIES
from tests.probes.study.test_two_pass import SOURCE
from tests.reference.score_rows import Score, rows_of, table_of
from tests.tiny import tiny_layers


def row(value: float | None, **changes) -> Score:
    made = Score("m", "position", -1, None, "saliency", "ridge", "position", "test", "a", "dice", value)
    return replace(made, **changes)


def test_maps_of_one_value_are_found():
    maps = torch.eye(4).expand(3, 4, 4).clone()
    maps[1] = 1
    assert one_valued({"saliency": maps, "depth": torch.rand(3, 4, 4)}, ["a", "b", "c"], PROPERTIES) == [
        ("saliency", "b")
    ]


def test_only_what_a_blind_map_reaches_on_test_images_is_told():
    assert label_warnings(table_of([row(0.95), row(0.94)]), [], PROPERTIES, 9) == []
    assert (
        label_warnings(
            table_of([row(1.0, split="validation"), row(1.0, layer="up"), row(1.0, metric="dice_background")]),
            [],
            PROPERTIES,
            9,
        )
        == []
    )
    (line,) = label_warnings(table_of([row(0.98), row(0.96), row(None)]), [], PROPERTIES, 9)
    assert "saliency labels are nearly the same" in line
    assert "Dice 0.97" in line
    (line,) = label_warnings(table_of([row(0.99, property="depth", metric="spearman")]), [], PROPERTIES, 9)
    assert "rank correlation 0.99" in line


def test_images_without_both_classes_are_counted():
    (line,) = label_warnings(table_of([]), [("saliency", name) for name in "abcd"], PROPERTIES, 9)
    assert "the saliency labels of 4 of 9 images have no foreground pixel, or no background" in line
    assert "a, b, c, ..." in line


def test_only_their_dice_is_left_out():
    flat = [("saliency", "a"), ("depth", "a")]
    rows = [row(1.0), row(0.5, image="b"), row(0.2, property="depth", metric="rmse")]
    assert [one.value for one in rows_of(skip_flat(table_of(rows), flat, PROPERTIES))] == [None, 0.5, 0.2]


def nearly_alike(images, names, properties):
    """The same square in every image; none in the third."""
    maps = torch.zeros(len(images), *images.shape[-2:])
    maps[:, 20:90, 30:100] = 1
    maps[[place for place, name in enumerate(names) if name == SOURCE.names[2]]] = 0
    return dict.fromkeys(properties, maps)


@pytest.mark.parametrize("live", [False, True])
def test_a_run_without_that_control_is_warned_too(tiny_backbone, live):
    layers = tiny_layers("self_attention&stage=decoder")[-1:]
    probe_config = ProbeConfig("ridge", solver="ridge", strengths=(1.0,))
    probing_config = ProbingConfig(layers, steps=[0], properties=["saliency"], controls=[], probe_config=probe_config)
    told: list[str] = []
    means = ExecutionConfig(batch_size=4, one_pass=live, log=told.append)
    found = run_probing(tiny_backbone, SOURCE, nearly_alike, probing_config, means)
    assert [line for line in told if line in found.warnings] == found.warnings
    assert set(found.scores["control"]) == {"none"}
    assert len(found.warnings) >= 1
    assert f"of 1 of {len(SOURCE.names)} images" in found.warnings[0]
    assert {score.image for score in rows_of(found.scores) if score.value is None} <= {SOURCE.names[2]}
    assert all(score.value is None for score in rows_of(found.scores) if score.image == SOURCE.names[2])
    in_test = SOURCE.names[2] in [SOURCE.names[place] for place in found.split.test]
    assert in_test or "Dice 1.00" in found.warnings[1]
