"""Prompts with seeds: read from a CSV file as the papers publish theirs, or drawn from the pocket scene grammar."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from diffprobe.errors import UserError

DEFAULT_SCENES = 200
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Prompt:
    """One image to be: the text, the seed of its first latent, and the name that its activations and labels carry."""

    text: str
    seed: int
    name: str


def load_prompts(prompts: str | Path | None = None, count: int | None = None, seed: int = 0) -> list[Prompt]:
    """Prompts from a CSV file, or from the scene grammar where no file is given.

    Args:
        prompts: a CSV file, or None for the scene grammar.
        count: how many; None means all of a file, or 200 scenes.
        seed: chooses the scenes and their noise; without effect on a file, which brings its own seeds.

    Raises:
        UserError: the file or a column of it is missing, a seed is no number, or fewer prompts are there than asked.
    """
    if count is not None and count < 1:
        raise UserError(f"data.count={count}: must be at least 1")
    if prompts is None:
        return scene_prompts(count or DEFAULT_SCENES, seed)
    found = read_prompts(Path(prompts))
    if count is not None and count > len(found):
        raise UserError(f"data.count={count}: {prompts} has only {len(found)} prompts; ask for fewer")
    return found[:count]


def scene_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Captions of scenes that no model was trained on. Different seeds give different captions and noise."""
    from diffprobe.pocket.scenes import sample_scene

    numbers = range(seed * 1_000_000, seed * 1_000_000 + count)
    return [Prompt(sample_scene(n, "prompts").caption, n, f"scene_{n:07d}_seed_{n}") for n in numbers]


def read_prompts(path: Path) -> list[Prompt]:
    """Reads columns `prompts`, `seeds` and, where present, `prompt_inds` (else rows are numbered from 0).

    UTF-8 is tried first, then ISO-8859-1, in which the papers' files are written. Images are named as the papers name
    them: `prompt_{prompt_inds}_seed_{seeds}`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read prompts from {path}: {error.strerror}; give a CSV file as data.prompts"
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("iso-8859-1")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    missing = [column for column in ("prompts", "seeds") if column not in columns]
    if missing:
        wanted, found = " and ".join(map(repr, missing)), ", ".join(map(repr, columns))
        raise UserError(
            f"{path} has no column {wanted}; it has {found}. "
            "The first line must name the columns prompts, seeds and, if wanted, prompt_inds"
        )
    prompts = [_prompt(path, rows.line_num, number, row) for number, row in enumerate(rows)]
    if not prompts:
        raise UserError(f"{path} has no prompts below its first line")
    name, times = Counter(prompt.name for prompt in prompts).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path} names {times} images {name!r}; prompt_inds and seeds together must be unique")
    return prompts


def _prompt(path: Path, line: int, number: int, row: dict[str, str | None]) -> Prompt:
    text, seed, index = row["prompts"], row["seeds"], row.get("prompt_inds")
    if text is None or seed is None or None in row:
        raise UserError(f"{path}, line {line}: the row does not have one value for each column; check its quotes")
    index = index if index else str(number)
    if not seed.strip().isdigit() or int(seed) > LARGEST_SEED:
        raise UserError(f"{path}, line {line}: the seed {seed!r} is not a whole number from 0 to {LARGEST_SEED}")
    if not index.strip().isdigit():
        raise UserError(f"{path}, line {line}: the prompt index {index!r} is not a whole number")
    return Prompt(text, int(seed), f"prompt_{int(index)}_seed_{int(seed)}")
