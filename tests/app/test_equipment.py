"""Which probes edit, and that they are trained once."""

from __future__ import annotations

import pytest
import torch

from diffprobe.app.equipment import build_equipment, load_from_run, trained_bank
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from tests.app.conftest import LAYERS, PROMPTS, LighterHalf


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
