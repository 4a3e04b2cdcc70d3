"""Probe banks on disk: one safetensors file per property, never half-written."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.properties import Standardisation


def save_bank(bank: ProbeBank, folder: str | Path) -> list[Path]:
    """Write `<folder>/<property>.safetensors` for every property of the bank; returns the paths.

    Keys: `<layer>/step_<step>` -> weight [outputs, channels], and `<layer>/step_<step>/bias` -> [outputs] if there is
    one. Metadata, JSON each: property, standardisation (mean and std in label units), thresholds (layer -> one per
    step; binary properties only), layers, steps.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [_save_property(bank, name, folder) for name in bank.properties]


def load_bank(folder: str | Path) -> ProbeBank:
    """The bank that `save_bank` wrote to `folder`. Raises UserError when there is none, or its files disagree."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise UserError(f"no probes in {folder}: it should hold one .safetensors file per property.")
    contents = {path.stem: _read(path) for path in files}
    tensors, metadata = next(iter(contents.values()))
    for path, (_, other) in zip(files, contents.values(), strict=True):
        if other["layers"] != metadata["layers"] or other["steps"] != metadata["steps"]:
            raise UserError(f"{path} has other layers or steps than {files[0]}: they come from different runs.")
    layers, steps = metadata["layers"], metadata["steps"]
    bank = ProbeBank(
        {layer: tensors[f"{layer}/step_{steps[0]}"].shape[1] for layer in layers},
        steps,
        metadata["properties"] if set(metadata["properties"]) == set(contents) else list(contents),
        bias=any(key.endswith("/bias") for key in tensors),
        standardisations={name: Standardisation(**data["standardisation"]) for name, (_, data) in contents.items()},
    )
    for name, (weights, data) in contents.items():
        if bank.properties[name].binary:
            bank.thresholds[name] = data["thresholds"]
        _fill(bank, name, weights)
    return bank


def _save_property(bank: ProbeBank, name: str, folder: Path) -> Path:
    tensors = {}
    for layer in bank.layers:
        weight, bias = bank.weight(name, layer), bank.bias_of(name, layer)
        for index, step in enumerate(bank.steps):
            tensors[f"{layer}/step_{step}"] = weight[index].detach().cpu().contiguous().clone()
            if bias is not None:
                tensors[f"{layer}/step_{step}/bias"] = bias[index].detach().cpu().contiguous().clone()
    metadata = {
        "property": name,
        "properties": list(bank.properties),
        "standardisation": asdict(bank.standardisations[name]),
        "thresholds": bank.thresholds.get(name, {}),
        "layers": bank.layers,
        "steps": bank.steps,
    }
    path = folder / f"{name}.safetensors"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, {key: json.dumps(value) for key, value in metadata.items()})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:
        raise UserError(f"{path} is not a file of probes: {error}") from error
    missing = {"properties", "standardisation", "thresholds", "layers", "steps"} - set(metadata)
    if missing:
        raise UserError(f"{path} is not a file of probes: its metadata lacks {', '.join(sorted(missing))}.")
    return tensors, metadata


def _fill(bank: ProbeBank, name: str, tensors: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for layer in bank.layers:
            keys = [f"{layer}/step_{step}" for step in bank.steps]
            bank.weight(name, layer).copy_(torch.stack([tensors[key] for key in keys]))
            bias = bank.bias_of(name, layer)
            if bias is not None:
                bias.copy_(torch.stack([tensors[f"{key}/bias"] for key in keys]))
