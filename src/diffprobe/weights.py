"""Checks of weight files: they are whole, and hold exactly the weights of a network.

A missing weight would otherwise be random, and no number of a run would show it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from diffprobe.errors import UserError, one_line

Network = TypeVar("Network", bound=nn.Module)
Mismatch = tuple[str, Iterable[int], Iterable[int]]  # name, shape in the file, shape of the network

CHECKSUMS = "checksums.json"
MEND = "get the package again, or train the weights: python -m diffprobe.pocket.training all --install"
POINTER = b"version https://git-lfs"

# Patterns of names in files that may be there without a place in the network, with the reason.
HARMLESS: Mapping[str, str] = {
    r"(^|\.)position_ids$": "0, 1, 2, ...: older versions of transformers saved this buffer",
    r"(^|\.)relative_position_index$": "of windows, computed from the configuration; older versions saved it",
    r"(^|\.)rotary_emb\.inv_freq$": "computed from the configuration; older versions saved it",
    r"^pos_embed\.pos_embed$": "PixArt's table of sines, computed from the configuration; older versions saved it",
    r"(^|\.)num_batches_tracked$": "counts batches in training; with a fixed momentum it is never read",
    r"^text_projection\.weight$": "of a whole CLIP; a class that has no projection gives hidden states from before it",
    r"^logit_scale$|^visual_projection\.|^vision_model\.": "CLIP's half for images, in the file of its half for texts",
    r"^lm_head\.weight$": "the output of T5's decoder; only its encoder reads prompts",
}

# Patterns of names that show how a file was made, with what to do then.
HINTS: Mapping[str, str] = {
    r"lora|base_layer|hada_w|lokr_": "It holds a LoRA that was not fused: load the pipeline in diffusers, call "
    "fuse_lora() and unload_lora_weights(), and save it again",
    r"(^|\.)_orig_mod\.": "It was saved from within torch.compile: save the module's _orig_mod",
    r"^module\.": "It was saved from within DataParallel: save the network's .module",
    r"^(model_ema|ema_model|ema)\.": "It holds averages kept while training: save the averaged network alone",
}


def check_names(
    what: str,
    count: int,
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[Mismatch] = (),
    *,
    unused: Mapping[str, str] | None = None,
) -> None:
    """Refuses files that do not hold exactly the weights of a network.

    Args:
        what: names the network and its files.
        count: of all weights of the network.
        missing: weights in no file.
        unexpected: names in the files without a place in the network; those of `HARMLESS` are allowed.
        mismatched: weights of other shapes in the files.
        unused: patterns of weights that may be missing since the network never uses them, with the reason.

    Raises:
        UserError: with the number of such weights, the first of them, and the likely cause.
    """
    missing = sorted(name for name in missing if not matching(name, HARMLESS) and not matching(name, unused or {}))
    unexpected = sorted(name for name in unexpected if not matching(name, HARMLESS))
    hint = _hint(unexpected)
    if missing:
        raise UserError(
            f"{what} lacks {len(missing)} of its {count} weights{_first(missing)}; they would be random"
            f"{_beside(unexpected)}. {hint or 'Get the files again, or save the model again'}"
        )
    for name, there, here in sorted(mismatched, key=lambda each: each[0])[:1]:
        raise UserError(
            f"{what} holds {_counted(len(mismatched))} of another shape than its configuration says: {name} is "
            f"{list(there)} in the file and {list(here)} by the configuration. Give those of one model"
        )
    if unexpected:
        raise UserError(
            f"{what} holds {_counted(len(unexpected))} that its network has no place for{_first(unexpected)}. "
            f"{hint or 'Its configuration is of another network, or other weights were put among these'}"
        )


def matching(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is found in a name."""
    return any(re.search(pattern, name) for pattern in patterns)


def fill(network: Network, weights: Mapping[str, Tensor], what: str) -> Network:
    """Copies weights into a network that takes exactly these. `what` names network and file in errors.

    Raises:
        UserError: see `check_names`.
    """
    there = network.state_dict()
    both = weights.keys() & there.keys()
    check_names(
        what,
        len(there),
        there.keys() - both,
        weights.keys() - both,
        [(name, weights[name].shape, there[name].shape) for name in both if weights[name].shape != there[name].shape],
    )
    network.load_state_dict({name: weights[name] for name in both}, strict=False)
    return network


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        UserError: it is not a whole file of that kind.
    """
    from safetensors.torch import load_file

    header_of(file)
    try:
        return load_file(file)
    except Exception as error:  # safetensors has kinds of its own, and others come out of its header
        raise UserError(f"cannot read {file}: {one_line(error)}") from error


def header_of(file: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors of a safetensors file. Their data are not read, but must all be there.

    Raises:
        UserError: the file is missing, empty, cut short, or of another kind.
    """
    try:
        size = file.stat().st_size
        if not file.is_file():  # a pipe or device may never end
            raise UserError(f"{file} is no file")
        with file.open("rb") as opened:
            start = opened.read(8)
            length = int.from_bytes(start, "little")
            text = opened.read(length) if 8 + length <= size else None
            first = opened.read(1)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    if not size:
        raise UserError(f"{file} is empty; get it again")
    if start == POINTER[:8]:
        raise UserError(f"{file} is a pointer of git-lfs in place of the weights; run `git lfs pull` in its repository")
    if text is None:
        cut = size >= 8 and length < 100 * 2**20 and first in (b"", b"{")
        raise UserError(f"{file} is {'cut short' if cut else 'no safetensors file'}; get it again")
    try:
        fields = json.loads(text)
        tensors = {name: value for name, value in fields.items() if name != "__metadata__"}
        shapes = {name: [int(side) for side in value["shape"]] for name, value in tensors.items()}
        end = max((value["data_offsets"][1] for value in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(f"{file} is no safetensors file: its header cannot be read; get it again") from error
    if size < 8 + length + end:
        raise UserError(f"{file} is cut short: it has {size} bytes of {8 + length + end}; get it again")
    return shapes


def record_checksums(folder: Path) -> Path:
    """Writes the SHA-256 of all weights below a folder into its `checksums.json`, for `check_unchanged`."""
    weights = sorted(folder.rglob("*.safetensors"))
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in weights}
    (folder / CHECKSUMS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    return folder / CHECKSUMS


def check_unchanged(folder: Path, below: str = "") -> None:
    """Compares weights with the checksums that `record_checksums` wrote.

    Args:
        folder: with `checksums.json`.
        below: the file or folder in it to check; '' checks all.

    Raises:
        UserError: a file has changed, is missing, or was not recorded.
    """
    recorded = folder / CHECKSUMS
    try:
        digests: dict[str, str] = dict(json.loads(recorded.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{recorded} is missing or damaged, so the weights cannot be trusted; {MEND}") from error
    place = folder / below
    there = [place] if place.is_file() else sorted(place.rglob("*.safetensors"))
    names = {path.relative_to(folder).as_posix() for path in there}
    for name in sorted(names | {name for name in digests if (folder / name).is_relative_to(place)}):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {MEND}")
        if digests.get(name) != _digest(folder / name):
            raise UserError(f"{folder / name} is not what it was: its checksum is another; {MEND}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _counted(number: int) -> str:
    return f"{number} weight" if number == 1 else f"{number} weights"


def _first(names: list[str]) -> str:
    return f": {names[0]}" if len(names) == 1 else f", first {names[0]}"


def _beside(unexpected: list[str]) -> str:
    return f", while {len(unexpected)} others have no place there, such as {unexpected[0]}" if unexpected else ""


def _hint(names: Collection[str]) -> str | None:
    return next((hint for pattern, hint in HINTS.items() for name in names if re.search(pattern, name)), None)
