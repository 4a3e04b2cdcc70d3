"""Prompts with seeds: read from a CSV file as the papers publish theirs, or drawn from the pocket scene grammar."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffprobe.data.text_lists import Log, Row, read_table, warn
from diffprobe.errors import UserError
from diffprobe.ranges import Count, Folder, Fractions

DEFAULT_SCENES = 200
LARGEST_SEED = 2**63 - 1
SHOWN_CHARACTERS = 60
# What no keyboard writes: control characters but tabs and line ends, and the mark of what could not be decoded.
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")


@dataclass(frozen=True)
class PromptData:
    """Prompts of a file or of the scene grammar, see `load_prompts`.

    Attributes:
        test_prompts: file with those of the images to test on.
        count: prompts of each file; None takes all of them, or 200 scenes.
        fractions: of the images, to train, select and test on.
    """

    prompts: Folder | None = None
    test_prompts: Folder | None = None
    count: Count | None = None
    fractions: Fractions = field(default_factory=lambda: [0.6, 0.2, 0.2])


@dataclass(frozen=True)
class Prompt:
    """One image to be: the text, the seed of its first latent, and the name that its activations and labels carry."""

    text: str
    seed: int
    name: str

    @property
    def image_key(self) -> tuple[str, int]:
        """What makes one picture of it whatever it is called: the seed, and the words as a text encoder tells them
        apart, which for CLIP's have no capitals and single spaces."""
        return " ".join(self.text.split()).lower(), self.seed


def duplicate_prompts(prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> list[tuple[Prompt, Prompt]]:
    """Pairs of one picture: each prompt with the first before it, or in `others`, that makes the same."""
    first = {prompt.image_key: prompt for prompt in reversed(others)}
    return [
        (first[prompt.image_key], prompt) for prompt in prompts if first.setdefault(prompt.image_key, prompt) != prompt
    ]


def load_prompts(
    prompts: str | Path | None = None, count: int | None = None, seed: int = 0, log: Log = warn
) -> list[Prompt]:
    """Prompts from a CSV file, or from the scene grammar where no file is given.

    Args:
        prompts: a CSV file, or None for the scene grammar.
        count: how many; None means all of a file, or 200 scenes.
        seed: chooses the scenes and their noise; without effect on a file, which brings its own seeds.
        log: takes a line for what is odd about a file, such as its encoding.

    Raises:
        UserError: the file or a column of it is missing, a seed is no number, or fewer prompts are there than asked.
    """
    if count is not None and count < 1:
        raise UserError(f"data.count={count}: must be at least 1")
    if prompts is None:
        return scene_prompts(count or DEFAULT_SCENES, seed)
    found = read_prompts(Path(prompts), log)
    if count is not None and count > len(found):
        raise UserError(f"data.count={count}: {prompts} has only {len(found)} prompts; ask for fewer")
    return found[:count]


def scene_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Captions of scenes that no model was trained on. Different seeds give different captions and noise."""
    from diffprobe.pocket.scenes import sample_scene

    numbers = range(seed * 1_000_000, seed * 1_000_000 + count)
    return [Prompt(sample_scene(n, "prompts").caption, n, f"scene_{n:07d}_seed_{n}") for n in numbers]


def read_prompts(path: Path, log: Log = warn) -> list[Prompt]:
    """Reads columns `prompts`, `seeds` and, where present, `prompt_inds` (else rows are numbered from 0).

    The papers' files are UTF-8; for other encodings see `diffprobe.data.text_lists`. Images are named as the papers
    name them: `prompt_{prompt_inds}_seed_{seeds}`.

    Raises:
        UserError: the file cannot be read, a column is missing, a value is no whole number, or two images have one
            name.
    """
    rows = read_table(path, "the prompts", [["prompts"], ["seeds"]], ["prompt_inds"], log)
    if not rows:
        raise UserError(f"{path} has no prompts below its first line")
    indexed = any(row.cells.get("prompt_inds", "").strip() for row in rows)
    prompts = [_prompt(path, row, None if indexed else number) for number, row in enumerate(rows)]
    name, times = Counter(prompt.name for prompt in prompts).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path} names {times} images {name!r}; prompt_inds and seeds together must be unique")
    same = duplicate_prompts(prompts)
    if same:
        one, other = same[0]
        raise UserError(
            f"{path}: {len(same)} of {len(prompts)} prompts have the words and the seed of one before them, such as "
            f"{other.name}, which has those of {one.name}: the same picture would train probes and test them; keep one"
        )
    _warn_of_texts(path, rows, log)
    return prompts


def _prompt(path: Path, row: Row, number: int | None) -> Prompt:
    """Args: number: its index, where the file gives none."""
    seed = _whole(row.cells["seeds"], "seed", path, row.line)
    index = _whole(row.cells["prompt_inds"], "prompt index", path, row.line) if number is None else number
    return Prompt(row.cells["prompts"], seed, f"prompt_{index}_seed_{seed}")


def _whole(cell: str, what: str, path: Path, line: int) -> int:
    # Digits alone: int() would take '1_0' and other alphabets' digits too, and gives up on thousands of them
    found = re.fullmatch("0*([0-9]{1,19})", cell.strip())
    if not found or int(found[1]) > LARGEST_SEED:
        shown = cell if len(cell) <= SHOWN_CHARACTERS else f"{cell[:SHOWN_CHARACTERS]}..."
        raise UserError(f"{path}, line {line}: the {what} {shown!r} is not a whole number from 0 to {LARGEST_SEED}")
    return int(found[1])


def _warn_of_texts(path: Path, rows: Sequence[Row], log: Log) -> None:
    """Tells of prompts that are there, but hardly what was meant."""
    empty = [row for row in rows if not row.cells["prompts"].strip()]
    if empty:
        log(f"{path}: {len(empty)} of {len(rows)} prompts are empty, first in line {empty[0].line}")
    broken = [row for row in rows if CONTROL_CHARACTERS.search(row.cells["prompts"])]
    if broken:
        log(
            f"{path}: {len(broken)} of {len(rows)} prompts hold control or replacement characters, first in line "
            f"{broken[0].line}: {broken[0].cells['prompts'][:SHOWN_CHARACTERS]!r}; was it saved in a wrong encoding?"
        )
