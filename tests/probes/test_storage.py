from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffprobe.errors import UserError
from diffprobe.probes import bank as storage
from diffprobe.probes.bank import ProbeBank, load_bank, save_bank
from diffprobe.properties import Standardisation

OF_THE_FIRST_FILES = ("property", "properties", "standardisation", "thresholds", "layers", "steps")
LAYERS = {"up_blocks.3.b": 5, "down_blocks.0.a": 3}


def bank(bias: bool = False, seed: int = 3, head: str = "linear") -> ProbeBank:
    made = ProbeBank(
        LAYERS,
        [4, 9],
        ["saliency", "depth"],
        head=head,
        bias=bias,
        seed=seed,
        standardisations={"depth": Standardisation(15.740597, 9.281932)},
    )
    made.strengths["depth"] = {"up_blocks.3.b": [1e-6, 0.1], "down_blocks.0.a": [1.0, 0.1]}
    made.thresholds["saliency"] = {"up_blocks.3.b": [0.35, 0.5], "down_blocks.0.a": [0.1, 0.95]}
    return made


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_saved_bank_comes_back_equal(tmp_path: Path, bias: bool, head: str) -> None:
    saved = bank(bias, head=head)
    assert [path.name for path in save_bank(saved, tmp_path)] == ["saliency.safetensors", "depth.safetensors"]
    loaded = load_bank(tmp_path)
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in loaded.state_dict().items())
    for attribute in (
        "channels",
        "layers",
        "steps",
        "properties",
        "standardisations",
        "thresholds",
        "strengths",
        "bias",
        "head",
    ):
        assert getattr(loaded, attribute) == getattr(saved, attribute)
    assert list(loaded.properties) == ["saliency", "depth"]
    activation = torch.randn(2, 1, 5, 4, 4)
    assert torch.equal(loaded("up_blocks.3.b", activation)["depth"], saved("up_blocks.3.b", activation)["depth"])


def test_the_file_says_what_it_holds(tmp_path: Path) -> None:
    saved = bank(bias=True)
    save_bank(saved, tmp_path)
    with safe_open(tmp_path / "depth.safetensors", framework="pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        assert torch.equal(file.get_tensor("up_blocks.3.b/step_9"), saved.weight("depth", "up_blocks.3.b")[1])
        assert file.get_tensor("down_blocks.0.a/step_4/bias").shape == (1,)
    assert (metadata["property"], metadata["head"]) == ("depth", "linear")
    assert metadata["standardisation"] == {"mean": 15.740597, "std": 9.281932}
    assert (metadata["layers"], metadata["steps"]) == (list(LAYERS), [4, 9])


def test_a_file_of_before_there_were_heads_is_read(tmp_path: Path) -> None:
    saved = bank(bias=True)
    for path in save_bank(saved, tmp_path):
        with safe_open(path, framework="pt") as file:
            metadata = {key: value for key, value in file.metadata().items() if key in OF_THE_FIRST_FILES}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        save_file(tensors, path, metadata)
    loaded = load_bank(tmp_path)
    assert loaded.head == "linear"
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bank()
    save_bank(old, tmp_path)

    def interrupted(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_bank(bank(seed=8), tmp_path)
    assert torch.equal(load_bank(tmp_path).weight("depth", "up_blocks.3.b"), old.weight("depth", "up_blocks.3.b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.safetensors", "saliency.safetensors"]


def test_one_property_alone_can_be_loaded(tmp_path: Path) -> None:
    save_bank(bank(), tmp_path)
    (tmp_path / "saliency.safetensors").unlink()
    assert list(load_bank(tmp_path).properties) == ["depth"]


def test_an_empty_folder_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        load_bank(tmp_path)
    (tmp_path / "depth.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"depth\.safetensors"):
        load_bank(tmp_path)


def test_files_of_different_runs_are_not_mixed(tmp_path: Path) -> None:
    save_bank(bank(), tmp_path)
    for other in (ProbeBank(LAYERS, [0, 1], ["depth"]), ProbeBank(LAYERS, [4, 9], ["depth"], head="mlp")):
        save_bank(other, tmp_path)
        with pytest.raises(UserError, match="different runs"):
            load_bank(tmp_path)


def test_no_flipped_bit_changes_a_probe(tmp_path: Path) -> None:
    """Nor its threshold, nor the scale of its predictions; every 7th byte is tried, for time."""
    saved = bank()
    path = save_bank(saved, tmp_path)[1]
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            loaded = load_bank(tmp_path)
        except UserError:
            continue
        assert torch.equal(loaded.weight("depth", "up_blocks.3.b"), saved.weight("depth", "up_blocks.3.b")), place
        assert loaded.standardisations == saved.standardisations, place


def test_a_changed_number_and_a_changed_scale_are_named(tmp_path: Path) -> None:
    path = save_bank(bank(), tmp_path)[1]
    whole = path.read_bytes()
    for changed in (whole[:-2] + bytes([whole[-2] ^ 0x40]) + whole[-1:], whole.replace(b"15.740597", b"15.740598")):
        assert changed != whole
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"depth\.safetensors is damaged: the checksum"):
            load_bank(tmp_path)


def test_a_file_under_anothers_name_is_refused(tmp_path: Path) -> None:
    saliency, depth = save_bank(bank(), tmp_path)
    saliency.write_bytes(depth.read_bytes())
    with pytest.raises(UserError, match=r"saliency\.safetensors holds probes of depth"):
        load_bank(tmp_path)


def test_probes_of_something_else_are_refused_where_it_matters(tmp_path: Path) -> None:
    save_bank(bank(), tmp_path, provenance="these images")
    assert list(load_bank(tmp_path, provenance="these images").properties) == ["saliency", "depth"]
    load_bank(tmp_path)
    with pytest.raises(UserError, match="of another model, or of other images"):
        load_bank(tmp_path, provenance="those images")
