"""Where a model is: in the package, a folder, a checkpoint file or on the hub; its configs, and errors about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from diffprobe.errors import UserError
from diffprobe.weights import check_unchanged

CHECKPOINTS = (".safetensors", ".ckpt")
CONFIGS = ["model_index.json", "unet/config.json", "transformer/config.json", "config.json"]


def find_model(path: str) -> Path | str:
    """The folder or checkpoint file that `path` names, or `path` itself if it reads like a hub id.

    Raises:
        UserError: it is neither; or it is 'pocket' and the built-in model's weights are not there, or damaged.
    """
    if path == "pocket":
        folder = Path(str(files("diffprobe") / "pocket" / "weights" / "pipeline"))
        if not (folder / "model_index.json").is_file():
            raise UserError(
                f"the pocket model has no weights in {folder}; train them: python -m diffprobe.pocket.training all"
            )
        check_unchanged(folder.parent, folder.name)
        return folder
    place = Path(path).expanduser()
    if place.is_dir() or (place.suffix in CHECKPOINTS and place.is_file()):
        return place.resolve()
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path) and place.suffix not in CHECKPOINTS:
        return path
    raise UserError(
        f"no model {path!r}: not a folder or {' or '.join(CHECKPOINTS)} file here, nor 'pocket', "
        "nor a hub id of the form owner/name"
    )


def read_config(file: Path) -> dict[str, Any]:
    """A config file of diffusers.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error


def fetch_configs(path: str, revision: str | None = None) -> Path:
    """The folder with a hub model's index and its denoiser's config, and nothing else of it.

    Raises:
        UserError: neither the hub nor the local cache gives them.
    """
    from huggingface_hub import snapshot_download

    try:  # falls back to the local cache; diffusers' own load_config retries for half a minute without a network
        return Path(snapshot_download(path, revision=revision, allow_patterns=CONFIGS))
    except Exception as error:  # the hub's libraries raise many kinds
        raise unreachable(path, error) from error


def unreadable(path: str, error: Exception) -> UserError:
    """The error for a model folder that exists and does not load."""
    return UserError(f"cannot load {path!r} as a pipeline in safetensors: {_one_line(error)}")


def unreachable(path: str, error: Exception) -> UserError:
    """The error for a hub id that cannot be had."""
    return UserError(
        f"cannot get {path!r}: no folder of that name here, and the Hugging Face hub or its local cache did not "
        f"give it. Name a local pipeline folder, or download it once where there is a network: "
        f"hf download {path} ({_one_line(error)})"
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the loading bars and notices of diffusers and transformers off the terminal."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries: tuple[Any, ...] = (of_diffusers, of_transformers)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
