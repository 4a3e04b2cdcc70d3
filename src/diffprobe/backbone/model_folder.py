"""A model's files: where they are, the networks and tokenizers in them, and fingerprints of what was loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.errors import UserError, one_line
from diffprobe.weights import check_names, check_unchanged, header_of

SD14 = Path(str(files("diffprobe") / "backbone" / "configs" / "stable-diffusion-v1-4"))  # configs without weights
CHECKPOINTS = (".safetensors", ".ckpt")
DENOISER_CONFIGS = ("unet/config.json", "transformer/config.json", "config.json")
LIBRARIES = ("diffusers", "transformers")
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")  # others may read pickles
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}  # file names of weights


def find_model(path: str) -> Path | str:
    """The folder or checkpoint file that `path` names, or `path` itself if it reads like a hub id.

    Raises:
        UserError: it is neither; or it is 'pocket' and the built-in model's weights are missing or damaged.
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


def download(path: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """A hub model's folder with files of these patterns, from the hub or the local cache; UserError without either."""
    from huggingface_hub import snapshot_download

    try:  # unlike diffusers and transformers, this does not retry for minutes without a network
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's libraries raise many kinds
        raise unreachable(path, error) from error


def download_configs(path: str, revision: str | None = None) -> Path:
    """As `download`, of a pipeline's index and its denoiser's config alone."""
    return download(path, ["model_index.json", *DENOISER_CONFIGS], revision)


def read_config(file: Path) -> dict[str, Any]:
    """A config file of diffusers. Raises UserError if it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error


def unreadable(path: str, error: Exception) -> UserError:
    """The error for a model folder that exists and does not load."""
    return UserError(f"cannot load {path!r} as a pipeline in safetensors: {type(error).__name__}: {one_line(error)}")


def unreachable(path: str, error: Exception) -> UserError:
    """The error for a hub id that neither the hub nor the local cache has."""
    return UserError(
        f"cannot get {path!r}: no folder of that name here, and the Hugging Face hub or its local cache did not "
        f"give it. Name a local pipeline folder, or download it once where there is a network: "
        f"hf download {path} ({type(error).__name__}: {one_line(error)})"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the progress bars and warnings of diffusers and transformers off the terminal."""
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


def read_networks(folder: Path, wanted: Collection[str], dtype: torch.dtype) -> dict[str, nn.Module]:
    """The networks of a pipeline folder, of those `wanted` by the pipeline, by their names in model_index.json.

    Raises:
        UserError: a part is missing or of another library, or its files do not hold exactly its weights.
    """
    networks: dict[str, nn.Module] = {}
    for name, entry in read_config(folder / "model_index.json").items():
        if name in wanted and isinstance(entry, list) and len(entry) == 2 and entry != [None, None]:
            library, class_name = map(str, entry)
            kind = _network_class(folder, name, library, class_name)
            needed = kind is not None or name.startswith(("tokenizer", "scheduler"))
            if needed and not (folder / name).is_dir():
                raise UserError(f"no folder {folder / name}, which model_index.json names; get the model again")
            if kind is not None:
                networks[name] = _read_network(folder / name, kind, library, dtype)
    return networks


def _network_class(folder: Path, name: str, library: str, class_name: str) -> Any:
    """None for a tokenizer or scheduler, or a class that the library does not have.

    Only diffusers and transformers are imported: a module that the file names may be anybody's code.
    """
    if name.startswith("tokenizer") and class_name not in TOKENIZERS:
        raise UserError(
            f"{folder / 'model_index.json'}: {name} is of {library}, a {class_name}, and the tokenizers of the "
            f"supported models are {', '.join(TOKENIZERS)}"
        )
    if library not in LIBRARIES:
        raise UserError(
            f"{folder / 'model_index.json'}: {name} is of {library}, and only parts of {' and '.join(LIBRARIES)} are "
            "loaded; no code of a model's own is run"
        )
    kind = getattr(import_module(library), class_name, None)
    return kind if isinstance(kind, type) and issubclass(kind, nn.Module) else None


def _read_network(folder: Path, kind: Any, library: str, dtype: torch.dtype) -> nn.Module:
    check_files(folder, STEMS[library])
    try:
        network, loaded = kind.from_pretrained(
            folder,
            **{"torch_dtype" if library == "diffusers" else "dtype": dtype},
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused by check_loaded, by name
        )
    except Exception as error:  # whatever a broken folder makes several libraries raise
        raise UserError(
            f"cannot load {folder} as a {kind.__name__} in safetensors: {type(error).__name__}: {one_line(error)}"
        ) from error
    check_loaded(str(folder), network, loaded)
    return network


def check_loaded(
    what: str, network: nn.Module, loaded: Mapping[str, Any], unused: Mapping[str, str] | None = None
) -> None:
    """Checks by the `output_loading_info` of `from_pretrained` that a network was filled exactly; see `check_names`."""
    weights = network.state_dict()
    mismatched = [(name, there, here) for name, there, here in loaded["mismatched_keys"]]
    empty = {name for name, value in weights.items() if value.is_meta}
    missing = {*loaded["missing_keys"], *empty} - {name for name, _, _ in mismatched}
    check_names(what, len(weights), missing, loaded["unexpected_keys"], mismatched, unused=unused)


def check_files(folder: Path, stem: str) -> None:
    """Checks `<stem>.safetensors`, or the files in `<stem>.safetensors.index.json`, before a library reads them.

    Raises:
        UserError: they are missing, damaged, not in safetensors, or not those that their index says.
    """
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} holds an adapter (adapter_config.json), a LoRA that was not fused: load it with peft, call "
            "merge_and_unload() and save the model again"
        )
    whole, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if whole.is_file():
        header_of(whole)
    elif index.is_file():
        _check_shards(folder, index)
    else:
        raise _no_weights(folder, whole.name)


def _check_shards(folder: Path, index: Path) -> None:
    try:
        shard_of: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} is no index of weights; get it again") from error
    shards = list(dict.fromkeys(shard_of.values()))
    for shard in shards:
        file = folder / str(shard)
        if not file.is_file():
            raise UserError(f"{file} is missing, one of {len(shards)} files of weights; get it again")
        names = header_of(file)
        gone = [name for name, place in shard_of.items() if place == shard and name not in names]
        if gone:
            raise UserError(
                f"{file} does not hold {gone[0]}, which {index.name} says it does ({len(gone)} weights); get it again"
            )


def _no_weights(folder: Path, wanted: str) -> UserError:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for name in names:
        if name.endswith((".safetensors", ".safetensors.index.json")):
            return UserError(
                f"{folder} has weights only of a variant ({name}): load it in diffusers with variant=..., and save "
                f"it again without, or rename them ({wanted})"
            )
    for name in names:
        if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")):
            return UserError(
                f"{folder} has its weights as a pickle ({name}), which could run code and is not read: load it in "
                "diffusers where you trust it, and save it again with safe_serialization=True"
            )
    return UserError(f"{folder} has no weights: there is no {wanted}; get the model again")


def check_tokenizer(what: str, tokenizer: Any, config: Any) -> None:
    """Checks that a tokenizer gives the tokens that a text encoder was trained on.

    One without its vocabulary or merges would give tokens all the same, and other images. Its number of words must be
    that of the encoder's table (less up to 2 % of padding), different words must have different tokens within that
    table, and words of the vocabulary must not be split. The longest text is set to the encoder's where it is longer.

    Args:
        what: names the tokenizer in errors.
        config: of the text encoder.

    Raises:
        UserError: it is not the encoder's tokenizer, or files of it are missing.
    """
    mend = "get the tokenizer's files again (vocabulary and merges, or tokenizer.json, or spiece.model)"
    rows = config.vocab_size
    if not 0.98 * rows <= len(tokenizer) <= rows:  # T5 has 32100 words and a table of 32128 rows
        raise UserError(f"{what} has {len(tokenizer)} words and its text encoder {rows}; {mend}")
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and tokenizer.model_max_length > longest:
        tokenizer.model_max_length = longest
    tokens = {word: _tokens(tokenizer, word) for word in ("a", "dog", "red", "table", "of", "water")}
    for one, other in combinations(tokens, 2):
        if tokens[one] == tokens[other]:
            raise UserError(f"{what} gives {one!r} and {other!r} the same tokens; {mend}")
    largest = max(max(ids, default=0) for ids in tokens.values())
    if largest >= rows:
        raise UserError(f"{what} gives the token {largest}, and its text encoder has {rows} words; {mend}")
    vocabulary = {_plain_word(entry): number for entry, number in tokenizer.get_vocab().items()}
    words = sorted(word for word in vocabulary if len(word) >= 5)
    tried = words[:: max(1, len(words) // 40)]
    split = [word for word in tried if _tokens(tokenizer, word) != [vocabulary[word]]]
    if 2 * len(split) > len(tried):  # a few words may be split otherwise by a good tokenizer too
        raise UserError(f"{what} spells {split[0]!r} in parts, which its vocabulary has: merges are missing; {mend}")


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _plain_word(entry: str) -> str:
    """The word of a vocabulary's entry, '' if it is none: CLIP marks a word's end (</w>), T5 its start."""
    word = entry.removesuffix("</w>") if entry.endswith("</w>") else entry[1:] if entry.startswith("▁") else ""
    return word if word.isascii() and word.isalpha() and word.islower() else ""


def fingerprint_of(module: nn.Module) -> str:
    """SHA-256 of a network's class, configuration and weights (names, shapes, dtypes, bytes), in hexadecimal.

    The same on every device, in every memory format and wherever the weights came from.
    """
    config: Any = getattr(module, "config", {})
    config = dict(config.to_dict() if hasattr(config, "to_dict") else config)
    ignored = ("transformers_version", "dtype", "torch_dtype")  # added by transformers
    config = {key: value for key, value in config.items() if not key.startswith("_") and key not in ignored}
    tensors = sorted(module.state_dict().items())
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        digests = pool.map(_digest, (tensor for _, tensor in tensors))
        weights = [
            (name, list(tensor.shape), str(tensor.dtype), digest)
            for (name, tensor), digest in zip(tensors, digests, strict=True)
        ]
    return _hash_of([type(module).__name__, config, weights])


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def fingerprint_of_tokenizer(tokenizer: Any) -> str:
    """SHA-256 of all that determines the tokens of a text: vocabulary, merges, normalisation, truncation, padding."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}  # of the last call
    return _hash_of(
        [
            type(tokenizer).__name__,
            rules,
            tokenizer.model_max_length,
            [tokenizer.padding_side, tokenizer.truncation_side],
            {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        ]
    )


def _hash_of(described: list[Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()
