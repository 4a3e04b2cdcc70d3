"""The networks of a pipeline folder, each with every weight from its files.

Whether a tokenizer is whole: one without its vocabulary or merges gives tokens all the same, and other images.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffprobe.backbone.model_folder import read_config
from diffprobe.errors import UserError, one_line
from diffprobe.weights import check_names, header_of

WORDS = ("a", "dog", "red", "table", "of", "water")
MINIMUM_KNOWN = 0.98  # of the text encoder's words: T5 has 32100 words and a table of 32128 rows
MINIMUM_LETTERS = 5  # letters of a word that is in the vocabulary as a whole, and should be found there
WORDS_TRIED = 40
HOW_TO_MEND = "get the tokenizer's files again (vocabulary and merges, or tokenizer.json, or spiece.model)"


def check_tokenizers(pipeline: Any, where: str) -> None:
    """Checks each tokenizer of a pipeline against its text encoder, see `check_tokenizer`."""
    for suffix in ("", "_2", "_3"):
        words, encoder = (getattr(pipeline, name + suffix, None) for name in ("tokenizer", "text_encoder"))
        if encoder is not None and words is None:
            raise UserError(f"{where} has a text_encoder{suffix} and no tokenizer{suffix}; get the model again")
        if encoder is not None:
            check_tokenizer(f"{where}: tokenizer{suffix}", words, encoder.config)


def check_tokenizer(what: str, words: Any, config: Any) -> None:
    """Makes sure that texts become the tokens that a text encoder was trained on.

    The number of words must be that of the encoder's table (less what it may be padded by), different words must have
    different tokens, none of them unknown, and words that the vocabulary has must not be spelled in parts. Texts
    longer than the encoder takes are cut: where the tokenizer does not say at which length, it is told.

    Args:
        what: names the tokenizer in errors.
        config: of the text encoder.

    Raises:
        UserError: it is not the encoder's tokenizer, or files of it are missing.
    """
    rows = config.vocab_size
    if not MINIMUM_KNOWN * rows <= len(words) <= rows:
        raise UserError(f"{what} has {len(words)} words and its text encoder {rows}; {HOW_TO_MEND}")
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and words.model_max_length > longest:
        words.model_max_length = longest
    tokens = {word: _tokens(words, word) for word in WORDS}
    for one, other in combinations(WORDS, 2):
        if tokens[one] == tokens[other]:
            raise UserError(f"{what} gives {one!r} and {other!r} the same tokens; {HOW_TO_MEND}")
    beyond = max(max(ids, default=0) for ids in tokens.values())
    if beyond >= rows:
        raise UserError(f"{what} gives the token {beyond}, and its text encoder has {rows} words; {HOW_TO_MEND}")
    spelled = _spelled(words)
    if spelled:
        raise UserError(
            f"{what} spells {spelled!r} in parts, which its vocabulary has: merges are missing; {HOW_TO_MEND}"
        )


def _tokens(words: Any, text: str) -> list[int]:
    return list(words(text, add_special_tokens=False).input_ids)


def _spelled(words: Any) -> str | None:
    """A word of the vocabulary that is not found there as a whole, if most are not: one may well be cut otherwise."""
    vocabulary = {_plain(entry): number for entry, number in words.get_vocab().items()}
    whole = sorted(word for word in vocabulary if word is not None and len(word) >= MINIMUM_LETTERS)
    tried = whole[:: max(1, len(whole) // WORDS_TRIED)]
    split = [word for word in tried if _tokens(words, word) != [vocabulary[word]]]
    return split[0] if 2 * len(split) > len(tried) else None


def _plain(entry: str) -> str | None:
    """The word that an entry of a vocabulary stands for: CLIP marks its end with </w>, T5 its beginning with a bar."""
    word = entry.removesuffix("</w>") if entry.endswith("</w>") else entry[1:] if entry.startswith("▁") else ""
    return word if word.isascii() and word.isalpha() and word.islower() else None


LIBRARIES = ("diffusers", "transformers")
# Those that the families use. Others of transformers may read pickles.
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}  # of the files of weights


def read_networks(folder: Path, wanted: Collection[str], dtype: torch.dtype) -> dict[str, nn.Module]:
    """The networks that a pipeline's index names, as it calls them.

    Args:
        folder: of the pipeline, with model_index.json and a folder for each part.
        wanted: names of the parts that the pipeline takes; others are not looked at.

    Raises:
        UserError: a part is missing or of another library, or its files do not hold exactly its weights.
    """
    networks: dict[str, nn.Module] = {}
    for name, entry in read_config(folder / "model_index.json").items():
        if name in wanted and isinstance(entry, list) and len(entry) == 2 and entry != [None, None]:
            kind = _class(folder, name, *map(str, entry))
            needed = kind is not None or name.startswith(("tokenizer", "scheduler"))
            if needed and not (folder / name).is_dir():
                raise UserError(f"no folder {folder / name}, which model_index.json names; get the model again")
            if kind is not None:
                networks[name] = read_network(folder / name, kind, str(entry[0]), dtype)
    return networks


def _class(folder: Path, name: str, library: str, class_name: str) -> Any:
    """The class of a network; None for a part of another kind (tokenizer, scheduler), or one that no library has.

    Only the two libraries are looked into: importing what a file names would run code that the file's maker chose.
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


def read_network(folder: Path, kind: Any, library: str, dtype: torch.dtype) -> nn.Module:
    """One network from its folder.

    Args:
        kind: its class.
        library: 'diffusers' or 'transformers', that the class is of.

    Raises:
        UserError: see `read_networks`.
    """
    check_files(folder, STEMS[library])
    precision = {"torch_dtype" if library == "diffusers" else "dtype": dtype}
    try:
        network, loaded = kind.from_pretrained(
            folder,
            **precision,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except Exception as error:  # whatever a broken folder makes several libraries raise
        raise UserError(
            f"cannot load {folder} as a {kind.__name__} in safetensors: {type(error).__name__}: {one_line(error)}"
        ) from error
    check_loaded(str(folder), network, loaded)
    return network


def check_loaded(what: str, network: nn.Module, loaded: Mapping[str, Any], **options: Any) -> None:
    """Holds what `from_pretrained` says of its loading against what there should be; see `check_names`."""
    empty = {name for name, value in network.state_dict().items() if value.is_meta}  # nothing was put there
    mismatched = [(name, there, here) for name, there, here in loaded["mismatched_keys"]]
    missing = {*loaded["missing_keys"], *empty} - {name for name, _, _ in mismatched}
    check_names(what, len(network.state_dict()), missing, loaded["unexpected_keys"], mismatched, **options)


def check_files(folder: Path, stem: str) -> None:
    """Makes sure that the files of a network's weights are there and whole, before a library reads them.

    Args:
        stem: of the name: `<stem>.safetensors`, or several with `<stem>.safetensors.index.json`.

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
        raise UserError(_no_weights(folder, whole.name))


def _check_shards(folder: Path, index: Path) -> None:
    try:
        places: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} is no index of weights; get it again") from error
    for shard in dict.fromkeys(places.values()):
        file = folder / str(shard)
        if not file.is_file():
            raise UserError(f"{file} is missing, one of {len(set(places.values()))} files of weights; get it again")
        there = header_of(file)
        gone = [name for name, place in places.items() if place == shard and name not in there]
        if gone:
            raise UserError(
                f"{file} does not hold {gone[0]}, which {index.name} says it does ({len(gone)} weights); get it again"
            )


def _no_weights(folder: Path, wanted: str) -> str:
    there = sorted(path.name for path in folder.iterdir() if path.is_file())
    pickles = [name for name in there if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5"))]
    variants = [name for name in there if name.endswith((".safetensors", ".safetensors.index.json"))]
    if variants:
        return (
            f"{folder} has weights only of a variant ({variants[0]}): load it in diffusers with variant=..., and save "
            f"it again without, or rename them ({wanted})"
        )
    if pickles:
        return (
            f"{folder} has its weights as a pickle ({pickles[0]}), which could run code and is not read: load it in "
            "diffusers where you trust it, and save it again with safe_serialization=True"
        )
    return f"{folder} has no weights: there is no {wanted}; get the model again"
