"""Where a model is: in the package, a folder, a checkpoint file or on the hub; its configs, and errors about it.

Short names for the exact weights and configuration of a network, and for the rules of a tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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


# What transformers adds to a configuration of its own accord; the weights say their dtype themselves.
_ASIDE = ("transformers_version", "dtype", "torch_dtype")


def fingerprint_of(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of a network's class, configuration and weights: names, shapes, dtypes, all bytes.

    The same on every device and in every memory format. The configuration is `module.config` where there is one,
    without what says where the weights came from. Tensors are hashed side by side in threads: 3.4 GB of weights take
    about 2 s of one core that has SHA instructions.
    """
    config = {key: value for key, value in _config(module).items() if not key.startswith("_") and key not in _ASIDE}
    tensors = sorted(module.state_dict().items())
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        digests = pool.map(_digest, (tensor for _, tensor in tensors))
        weights = [
            (name, list(tensor.shape), str(tensor.dtype), digest)
            for (name, tensor), digest in zip(tensors, digests, strict=True)
        ]
    described = [type(module).__name__, config, weights]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint_of_tokenizer(tokenizer: Any) -> str:
    """SHA-256, in hexadecimal, of all that makes token ids of a text, wherever the tokenizer was loaded from.

    That is its vocabulary, merges and normalisation, and what it cuts and fills texts to.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # written in Python
        rules: Any = {"vocabulary": sorted(tokenizer.get_vocab().items()), "merges": _merges(tokenizer)}
    else:
        rules = json.loads(backend.to_str())
        rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}  # of the last call
    described = [
        type(tokenizer).__name__,
        rules,
        tokenizer.model_max_length,
        [tokenizer.padding_side, tokenizer.truncation_side],
        {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _merges(tokenizer: Any) -> list[str]:
    ranks: dict[Any, int] = getattr(tokenizer, "bpe_ranks", {})
    return [str(pair) for pair in sorted(ranks, key=lambda pair: ranks[pair])]


def _config(module: nn.Module) -> dict[str, Any]:
    config: Any = getattr(module, "config", {})
    return dict(config.to_dict() if hasattr(config, "to_dict") else config)


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
