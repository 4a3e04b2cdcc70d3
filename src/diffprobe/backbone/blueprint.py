"""A model's denoiser without its weights: enough to list its layers before anything large is downloaded."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffprobe.backbone.load import find_model, quiet, unreachable, unreadable
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def blueprint(path: str) -> UNet2DConditionModel:
    """The denoiser of a model on the meta device, built from its config alone.

    Args:
        path: 'pocket', 'sd14' (its config is shipped), a pipeline folder, a U-Net folder or a hub id.

    Raises:
        UserError: no such model, or its config is not a U-Net's.
    """
    if path == "sd14":
        source: Path | str = Path(str(files("diffprobe") / "backbone" / "configs" / "stable-diffusion-v1-4"))
    else:
        source = find_model(path)
    config = _local_config(source) if isinstance(source, Path) else _hub_config(source)
    with quiet(), torch.device("meta"):
        from diffusers import UNet2DConditionModel

        if config.get("_class_name") != UNet2DConditionModel.__name__:
            raise UserError(f"the denoiser of {path!r} is a {config.get('_class_name')}, not a UNet2DConditionModel")
        try:
            denoiser: Any = UNet2DConditionModel.from_config(config)  # typed as a union with a tuple
        except Exception as error:  # a config of the right class with impossible values
            raise unreadable(path, error) from error
    return denoiser


def _local_config(folder: Path) -> dict[str, Any]:
    file = next((file for file in (folder / "unet" / "config.json", folder / "config.json") if file.is_file()), None)
    if file is None:
        raise UserError(f"{folder} has neither unet/config.json nor config.json; name a pipeline or U-Net folder")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error


def _hub_config(path: str) -> dict[str, Any]:
    from huggingface_hub import snapshot_download

    try:  # falls back to the local cache; diffusers' own load_config retries for half a minute without a network
        folder = snapshot_download(path, allow_patterns="unet/config.json")
    except Exception as error:  # the hub's libraries raise many kinds
        raise unreachable(path, error) from error
    return _local_config(Path(folder))
