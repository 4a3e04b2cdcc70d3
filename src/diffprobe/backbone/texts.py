"""What a model does not see of the texts of prompts: what its tokenizer cuts off, and words that it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from diffprobe.backbone.load import Backbone

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
LONGEST = 1000  # tokens; tokenizers without a limit have a larger number here
FEW = 1000  # entries of a vocabulary that cannot spell everyday words


def text_warnings(backbone: Backbone, texts: Mapping[str, str]) -> list[str]:
    """Lines for people on prompts (name -> text) that the model does not see as they are written; most have none."""
    tokenizers = [getattr(backbone.pipeline, name, None) for name in TOKENIZERS]
    found = [one for one in tokenizers if one is not None]
    limited = [one for one in found if one.model_max_length < LONGEST]
    lines = []
    for limit in sorted({one.model_max_length for one in limited}):
        tokenizer = next(one for one in limited if one.model_max_length == limit)
        lines += _cut(backbone.name, tokenizer, limit, texts)
    return [*lines, *(line for one in found if len(one) < FEW for line in _unknown(backbone.name, one, texts))]


def _cut(model: str, tokenizer: Any, limit: int, texts: Mapping[str, str]) -> list[str]:
    """A line on texts of more tokens than the text encoder takes, those of start and end included."""
    tokens = tokenizer(list(texts.values()), verbose=False).input_ids
    lengths = {name: len(own) for name, own in zip(texts, tokens, strict=True)}
    long = [name for name, length in lengths.items() if length > limit]
    if not long:
        return []
    kept = tokenizer.decode(
        tokenizer(texts[long[0]], truncation=True, max_length=limit).input_ids, skip_special_tokens=True
    )
    return [
        f"{model} reads {limit} tokens of a text and cuts off the rest: {len(long)} of {len(texts)} prompts are "
        f"longer, first {long[0]} with {lengths[long[0]]}, of which it reads up to ...{kept[-30:]!r}"
    ]


def _unknown(model: str, tokenizer: Any, texts: Mapping[str, str]) -> list[str]:
    """A line on words that a model of a small world was never trained on, which it spells in letters."""
    words = {name: re.findall(r"\w+", text.lower()) for name, text in texts.items()}
    different = sorted({word for said in words.values() for word in said})
    tokens = tokenizer(different, add_special_tokens=False).input_ids if different else []
    split = {word for word, own in zip(different, tokens, strict=True) if len(own) > 1}
    strange = {name: [word for word in said if word in split] for name, said in words.items()}
    first = next((name for name, said in strange.items() if said), None)
    if first is None:
        return []
    return [
        f"{model} does not know all words of {sum(map(bool, strange.values()))} of {len(texts)} prompts, first "
        f"{', '.join(map(repr, dict.fromkeys(strange[first])))} of {first}: what it makes of them is arbitrary"
    ]
