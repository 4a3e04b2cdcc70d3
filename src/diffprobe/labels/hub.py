"""Image models of transformers: where their files are, and how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffprobe.backbone.model_folder import quiet, unreachable
from diffprobe.backbone.parts import check_files, check_loaded
from diffprobe.errors import UserError, one_line


def model_folder(model: str, what: str, setting: str, example: str) -> Path:
    """The folder itself, or where the hub's files are. Without a network, transformers itself tries for minutes.

    Args:
        model: a folder, or a hub id.
        what: 'depth model'; with `setting` and `example` it tells the user what to give.

    Raises:
        UserError: it is neither, or the hub does not give it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if "/" not in model:
        raise UserError(
            f"no {what} {model!r}: neither a folder here nor a hub id; give {setting}=FOLDER or a hub id such as "
            f"{example}"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub's libraries raise many kinds
        raise unreachable(model, error) from error


def load_image_model(
    model: str, task: str, what: str, setting: str, example: str, unused: Mapping[str, str] | None = None
) -> tuple[Any, Any, list[str]]:
    """Image processor (the one on Pillow), network in float32, and the names of unused weights that its files lack.

    Args:
        model, what, setting, example: as in `model_folder`.
        task: that transformers names its loader by: 'DepthEstimation' of AutoModelForDepthEstimation.
        unused: as in `diffprobe.weights.check_names`.

    Raises:
        UserError: there is no such model, it is of another kind, or its files do not hold exactly its weights.
    """
    folder = model_folder(model, what, setting, example)
    if not (folder / "config.json").is_file():
        raise UserError(f"cannot load {model!r} as the {what} of transformers: {folder} has no config.json")
    check_files(folder, "model")
    with quiet():
        import transformers

        try:
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
            network, loaded = getattr(transformers, f"AutoModelFor{task}").from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                trust_remote_code=False,  # None would ask whether to run code that comes with the weights
            )
        except Exception as error:  # whatever a broken folder or an unknown model makes transformers raise
            raise UserError(
                f"cannot load {model!r} as the {what} of transformers in safetensors: {one_line(error)}"
            ) from error
    check_loaded(f"the {what} {model}", network, loaded, unused=unused)
    return processor, network, sorted(loaded["missing_keys"])
