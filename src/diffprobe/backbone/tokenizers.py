"""Whether a tokenizer is whole: one without its vocabulary or merges gives tokens all the same, and other images."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from diffprobe.errors import UserError

WORDS = ("a", "dog", "red", "table", "of", "water")
LEAST = 0.98  # of the text encoder's words: T5 has 32100 words and a table of 32128 rows
SPELLED = 5  # letters of a word that is in the vocabulary as a whole, and should be found there
TRIED = 40
AGAIN = "get the tokenizer's files again (vocabulary and merges, or tokenizer.json, or spiece.model)"


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
    if not LEAST * rows <= len(words) <= rows:
        raise UserError(f"{what} has {len(words)} words and its text encoder {rows}; {AGAIN}")
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and words.model_max_length > longest:
        words.model_max_length = longest
    tokens = {word: _tokens(words, word) for word in WORDS}
    for one, other in combinations(WORDS, 2):
        if tokens[one] == tokens[other]:
            raise UserError(f"{what} gives {one!r} and {other!r} the same tokens; {AGAIN}")
    beyond = max(max(ids, default=0) for ids in tokens.values())
    if beyond >= rows:
        raise UserError(f"{what} gives the token {beyond}, and its text encoder has {rows} words; {AGAIN}")
    spelled = _spelled(words)
    if spelled:
        raise UserError(f"{what} spells {spelled!r} in parts, which its vocabulary has: merges are missing; {AGAIN}")


def _tokens(words: Any, text: str) -> list[int]:
    return list(words(text, add_special_tokens=False).input_ids)


def _spelled(words: Any) -> str | None:
    """A word of the vocabulary that is not found there as a whole, if most are not: one may well be cut otherwise."""
    vocabulary = {_plain(entry): number for entry, number in words.get_vocab().items()}
    whole = sorted(word for word in vocabulary if word is not None and len(word) >= SPELLED)
    tried = whole[:: max(1, len(whole) // TRIED)]
    split = [word for word in tried if _tokens(words, word) != [vocabulary[word]]]
    return split[0] if 2 * len(split) > len(tried) else None


def _plain(entry: str) -> str | None:
    """The word that an entry of a vocabulary stands for: CLIP marks its end with </w>, T5 its beginning with a bar."""
    word = entry.removesuffix("</w>") if entry.endswith("</w>") else entry[1:] if entry.startswith("▁") else ""
    return word if word.isascii() and word.isalpha() and word.islower() else None
