"""Probe banks on disk: one safetensors file per property, never half-written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffprobe.errors import UserError
from diffprobe.files import PREFIX, Damaged, read_sealed, replacing, sealed
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.properties import Standardisation

NEEDED = {"property", "properties", "standardisation", "thresholds", "layers", "steps"}  # of a file's metadata


def save_bank(bank: ProbeBank, folder: str | Path, provenance: str | None = None) -> list[Path]:
    """Write `<folder>/<property>.safetensors` for every property of the bank; returns the paths.

    Keys: `<layer>/step_<step>` -> weight [outputs, channels], and `<layer>/step_<step>/bias` -> [outputs] if there is
    one; an mlp has `.../hidden_weight` [hidden, channels] and `.../hidden_bias` [hidden] too, and its weight is
    [outputs, hidden]. Metadata, JSON each: property, head (linear or mlp), standardisation (mean and std in label
    units), thresholds (layer -> one per step; binary properties only), strengths (the same of the penalties that were
    chosen; empty where none is), layers, steps, `provenance` if it is given (what determines the probes), and checksums
    of all this (see `diffprobe.files`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [_save_property(bank, name, folder, provenance) for name in bank.properties]


def load_bank(folder: str | Path, provenance: str | None = None) -> ProbeBank:
    """The bank that `save_bank` wrote to `folder`.

    Args:
        provenance: what its files must say that they were made of; None for anything.

    Raises:
        UserError: there is none; a file is damaged or of another property; or files disagree.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise UserError(f"no probes in {folder}: it should hold one .safetensors file per property.")
    contents = {path.stem: _read(path) for path in files}
    for path, (_, data) in zip(files, contents.values(), strict=True):
        if data["property"] != path.stem:
            raise UserError(f"{path} holds probes of {data['property']}, not of what its name says")
        if provenance is not None and data.get("made_of") != provenance:
            raise UserError(f"{path} holds probes of another model, or of other images")
    tensors, metadata = next(iter(contents.values()))
    for path, (_, other) in zip(files, contents.values(), strict=True):
        if any(other[key] != metadata[key] for key in ("layers", "steps", "head")):
            raise UserError(f"{path} has other layers, steps or heads than {files[0]}: they come from different runs.")
    layers, steps = metadata["layers"], metadata["steps"]
    bank = ProbeBank(
        {layer: _channels(tensors, f"{layer}/step_{steps[0]}") for layer in layers},
        steps,
        metadata["properties"] if set(metadata["properties"]) == set(contents) else list(contents),
        head=metadata["head"],
        bias=any(key.endswith("/bias") for key in tensors),
        standardisations={name: Standardisation(**data["standardisation"]) for name, (_, data) in contents.items()},
    )
    for name, (weights, data) in contents.items():
        if bank.properties[name].binary:
            bank.thresholds[name] = data["thresholds"]
        bank.strengths[name] = data["strengths"]
        _fill(bank, name, weights)
    return bank


def _save_property(bank: ProbeBank, name: str, folder: Path, provenance: str | None) -> Path:
    tensors = {}
    for layer in bank.layers:
        for parameter, values in bank.head_of(name, layer).named_parameters():
            for index, step in enumerate(bank.steps):
                tensors[_key(layer, step, parameter)] = values[index].detach().cpu().contiguous().clone()
    data = {
        "property": name,
        "head": bank.head,
        "properties": list(bank.properties),
        "standardisation": asdict(bank.standardisations[name]),
        "thresholds": bank.thresholds.get(name, {}),
        "strengths": bank.strengths[name],
        "layers": bank.layers,
        "steps": bank.steps,
        **({} if provenance is None else {"made_of": provenance}),
    }
    metadata = {key: json.dumps(value) for key, value in data.items()}
    path = folder / f"{name}.safetensors"
    with replacing(path) as temporary:
        save_file(tensors, temporary, sealed(tensors, metadata))
    return path


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        tensors, texts = _read_unsealed(path) or read_sealed(path)
        metadata = {key: json.loads(value) for key, value in texts.items()}
    except Damaged as damage:
        raise UserError(f"{path} is damaged: {damage}; make the probes again") from damage
    except Exception as error:
        raise UserError(f"{path} is not a file of probes: {error}") from error
    missing, more = NEEDED - set(metadata), set(metadata) - NEEDED - {"head", "made_of", "strengths"}
    if missing or more:
        wrong = f"lacks {', '.join(sorted(missing))}" if missing else f"has {min(more)}, which no probes have"
        raise UserError(f"{path} is not a file of probes: its metadata {wrong}.")
    return tensors, {"head": "linear", "strengths": {}} | metadata  # the first files did not say


def _read_unsealed(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Tensors and metadata of a file from before there were checksums; None for one that has some."""
    with safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
        if any(key.startswith(PREFIX) for key in texts):
            return None
        return {key: file.get_tensor(key) for key in file.keys()}, texts  # noqa: SIM118 (not a dict)


def _fill(bank: ProbeBank, name: str, tensors: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for layer in bank.layers:
            for parameter, values in bank.head_of(name, layer).named_parameters():
                values.copy_(torch.stack([tensors[_key(layer, step, parameter)] for step in bank.steps]))


def _key(layer: str, step: int, parameter: str) -> str:
    probe = f"{layer}/step_{step}"
    return probe if parameter == "weight" else f"{probe}/{parameter}"


def _channels(tensors: dict[str, torch.Tensor], probe: str) -> int:
    """Channels that come into a probe: those of its first weight."""
    return tensors.get(f"{probe}/hidden_weight", tensors[probe]).shape[1]
