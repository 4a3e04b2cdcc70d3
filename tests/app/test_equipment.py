"""The model, probes and labeler of a session, and where they come from."""

from __future__ import annotations

import os

import pytest
import torch

from diffprobe.analyses.intervention.edits import TokenMoments
from diffprobe.app.equipment import build_equipment, known_runs, load_equipment, load_from_run, trained_bank
from diffprobe.backbone.trajectory import generate
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from tests.app.conftest import LAYERS, PROMPTS, LighterHalf


def test_covariances_are_those_of_the_first_images_at_the_edited_step(equipment):
    moments = TokenMoments()
    texts, seeds = [f"picture {number}" for number in range(5)], list(range(5))
    first = next(generate(equipment.backbone, texts, seeds, steps=3, layers=list(LAYERS)))
    moments.add(0, first.activations)
    assert equipment.covariances.keys() == moments.covariances().keys()
    for key, covariance in moments.covariances().items():
        torch.testing.assert_close(equipment.covariances[key], covariance)


def test_only_the_layers_and_steps_that_images_follow_are_edited(tiny_backbone):
    bank = ProbeBank({**LAYERS, "mid_block.resnets.0": 16}, range(6), ["saliency"], head="mlp")
    found = build_equipment(tiny_backbone, LighterHalf(), bank, PROMPTS, sampling_steps=6)
    assert list(found.editing.layers) == list(LAYERS)
    assert list(found.editing.steps) == [0, 1]
    assert found.editing.method == "gradient"  # of probes that are not linear
    assert found.covariances == {}


@pytest.mark.parametrize(("steps", "name"), [([4, 5], "saliency"), ([0, 1], "depth")])
def test_probes_that_cannot_edit_are_refused(tiny_backbone, steps, name):
    bank = ProbeBank(LAYERS, steps, [name])
    with pytest.raises(UserError, match=rf"probes are of {name} at steps \[{steps[0]}, {steps[1]}\].*first third of 6"):
        build_equipment(tiny_backbone, LighterHalf(), bank, PROMPTS, sampling_steps=6)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no finished run of train\.py"):
        load_from_run(tmp_path)


def test_runs_are_listed_the_newest_first_if_they_are_finished_and_have_probes(tmp_path):
    for number, place in enumerate(("probing/old", "probing/sweep/1", "probing/new", "probing/begun", "drift/one")):
        folder = tmp_path / place
        (folder / "probes").mkdir(parents=True)
        if not place.endswith("one"):
            (folder / "probes" / "depth.safetensors").touch()
        if not place.endswith("begun"):
            (folder / "environment.json").touch()
            os.utime(folder / "environment.json", (number, number))
    assert known_runs(tmp_path) == [str(tmp_path / f"probing/{name}") for name in ("new", "sweep/1", "old")]
    assert known_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "there is no such folder"),
        ("empty", "neither a finished run .* nor a pipeline"),
        ("broken", "broken"),
    ],
)
def test_a_folder_that_holds_no_model_is_told_in_a_line(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match=words) as caught:
        load_equipment(f" {tmp_path / name} ", tmp_path, print)
    assert "\n" not in str(caught.value)


def test_a_model_whose_pictures_the_built_in_labels_are_not_of_is_told_how_to_get_probes(tiny_backbone, tmp_path):
    tiny_backbone.pipeline.save_pretrained(tmp_path / "tiny")
    with pytest.raises(
        UserError, match=r"128 pixels.*python train\.py.*model\.path=.*tiny.*give the folder of that run"
    ):
        load_equipment(str(tmp_path / "tiny"), tmp_path, print)


@pytest.mark.slow
def test_probes_are_trained_at_the_first_start_alone(tiny_backbone, tmp_path):
    told: list[str] = []
    banks = [
        trained_bank(tiny_backbone, LighterHalf(), PROMPTS, tmp_path, told.append, sampling_steps=2) for _ in range(2)
    ]
    assert sum("first start" in line for line in told) == 1
    assert list(banks[0].properties) == ["saliency", "depth", "shading"]
    for one, other in zip(banks[0].parameters(), banks[1].parameters(), strict=True):
        assert torch.equal(one, other)
    file = next(tmp_path.rglob("depth.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + bytes([whole[-2] ^ 0x40]) + whole[-1:])
    mended = trained_bank(tiny_backbone, LighterHalf(), PROMPTS, tmp_path, told.append, sampling_steps=2)
    assert any("depth.safetensors is damaged" in line and "trained again" in line for line in told)
    for one, other in zip(banks[0].parameters(), mended.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    trained_bank(tiny_backbone, LighterHalf(), PROMPTS[1:] + PROMPTS[:1], tmp_path, told.append, sampling_steps=2)
    assert sum("first start" in line for line in told) == 2
