"""A model's denoiser without its weights: enough to list its layers before anything large is downloaded."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from diffprobe.backbone.families import BY_DENOISER
from diffprobe.backbone.locate import fetch_configs, find_model, quiet, read_config, unreadable
from diffprobe.errors import UserError

SD14 = Path(str(files("diffprobe") / "backbone" / "configs" / "stable-diffusion-v1-4"))
CONFIG_FILES = ("unet/config.json", "transformer/config.json", "config.json")


def denoiser_without_weights(path: str) -> Any:
    """The denoiser of a model on the meta device, built from its config alone.

    Args:
        path: 'pocket', 'sd14' (its config is shipped), a pipeline folder, a denoiser's folder, a hub id, or a Stable
            Diffusion 1.x checkpoint file.

    Raises:
        UserError: no such model, or its config is not of a denoiser that is supported.
    """
    source = SD14 if path == "sd14" else find_model(path)
    if isinstance(source, Path) and source.is_file():
        source = SD14
    config = _denoiser_config(source if isinstance(source, Path) else fetch_configs(source))
    with quiet(), torch.device("meta"):
        import diffusers

        name = _class_name(config)
        if name not in BY_DENOISER:
            raise UserError(f"the denoiser of {path!r} is a {name}, not one of {', '.join(BY_DENOISER)}")
        try:
            return getattr(diffusers, name).from_config(config)
        except Exception as error:  # a config of the right class with impossible values
            raise unreadable(path, error) from error


def _class_name(config: dict[str, Any]) -> str | None:
    name = config.get("_class_name")
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single":
        return "PixArtTransformer2DModel"  # as it was called when PixArt was published
    return name


def _denoiser_config(folder: Path) -> dict[str, Any]:
    file = next((folder / place for place in CONFIG_FILES if (folder / place).is_file()), None)
    if file is None:
        raise UserError(f"{folder} has none of {', '.join(CONFIG_FILES)}; name a pipeline folder or a denoiser's")
    return read_config(file)
