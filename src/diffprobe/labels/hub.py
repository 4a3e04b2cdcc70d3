"""Image models of transformers: where their files are."""

from __future__ import annotations

from pathlib import Path

from diffprobe.backbone.locate import unreachable
from diffprobe.errors import UserError


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
