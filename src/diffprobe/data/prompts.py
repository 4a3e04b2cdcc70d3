"""Prompts with seeds, from a CSV file or the pocket scene grammar; and lists and CSV tables in any encoding.

UTF-8 and UTF-16 (with its byte order mark, as Excel writes it) are recognised. Other bytes are read as Windows-1252,
whose printable half is that of ISO-8859-1, and the user is told. Line ends may be those of Unix, Windows or old Macs.
Columns may be named in capitals and with spaces around their names.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from diffprobe.errors import UserError, one_line
from diffprobe.ranges import Count, Folder, Fractions
from diffprobe.user_files import read_file

Log = Callable[[str], None]

FALLBACK = "cp1252"
BYTE_ORDER_MARKS = {  # the longer ones first: that of UTF-16 begins that of UTF-32
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8",
}
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # that other programs write instead of commas
SHOWN_CHARACTERS = 60
DEFAULT_SCENES = 200
LARGEST_SEED = 2**63 - 1
# Control characters except tabs and line ends, and the mark of what could not be decoded
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")


def warn(line: str) -> None:
    """Warns callers from Python; the commands print such lines instead."""
    warnings.warn(line, stacklevel=3)


@dataclass(frozen=True)
class Row:
    """A row of a CSV file: the line it begins on, counted from 1, and its cells by column."""

    line: int
    cells: dict[str, str]


def read_text(path: Path, what: str, log: Log = warn) -> str:
    """The text of a file, its lines ended by \\n alone.

    Args:
        what: what the file is, for messages: 'the prompts'.
        log: takes one line where the file is not UTF-8.

    Raises:
        UserError: there is no such file, it cannot be read, or it is no text.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{what} {path} is no file; a text file is wanted")
    raw = read_file(path, what)
    text = _decoded(raw, path, what, log)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{what} {path}, line {line}, holds NUL bytes: it is damaged, or no text, or UTF-16 without its byte order "
            "mark; save it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(raw: bytes, path: Path, what: str, log: Log) -> str:
    mark, marked = next(((mark, name) for mark, name in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), (b"", None))
    if marked == "utf-8":
        raw = raw.removeprefix(mark)
    try:
        text = raw.decode(marked or "utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        # More characters beyond ASCII that are UTF-8 than such that are not
        good = sum(not character.isascii() for character in raw.decode("utf-8", "ignore"))
        bad = raw.decode("utf-8", "replace").count("\ufffd") - raw.count("\ufffd".encode())
        if marked or good > bad:
            name = (marked or "utf-8").upper()
            raise UserError(f"{what} {path} is {name}, but damaged in line {line}; save it again as UTF-8") from error
        return _decoded_by_fallback(raw, line, path, what, log)
    if marked not in (None, "utf-8"):
        log(f"{what} {path} is {marked.upper()}, and was read as that")
    return text


def _decoded_by_fallback(raw: bytes, line: int, path: Path, what: str, log: Log) -> str:
    try:
        text = raw.decode(FALLBACK)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{what} {path} is neither UTF-8 nor Windows-1252 (line {line}); save it as UTF-8") from error
    shown = text.split("\n")[line - 1].strip(" \t\r")
    beyond = next(at for at, character in enumerate(shown) if not character.isascii())
    start = max(0, beyond - SHOWN_CHARACTERS // 2)
    log(
        f"{what} {path} is not UTF-8, and was read as Windows-1252 (CP1252): line {line} is "
        f"{shown[start : start + SHOWN_CHARACTERS]!r}; if that is wrong, save it as UTF-8"
    )
    return text


def read_lines(path: Path, what: str, log: Log = warn) -> list[tuple[int, str]]:
    """(line number from 1, stripped text) of every line that is not blank. Raises UserError as `read_text`."""
    lines = enumerate(read_text(path, what, log).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_names(path: Path, what: str, log: Log = warn) -> list[str]:
    """The names of a list with one name a line, in its order.

    Raises:
        UserError: as `read_text`; a line is not one name; a name is there twice.
    """
    lines = read_lines(path, what, log)
    wrong = next(((number, line) for number, line in lines if len(line.split()) > 1), None)
    if wrong:
        raise UserError(f"{path}, line {wrong[0]}: {wrong[1]!r} is not one name; {what} has one name a line")
    names = [line for _, line in lines]
    check_unique(names, path)
    return names


def check_unique(names: Sequence[str], path: Path) -> None:
    """Raises UserError if a list names something twice."""
    repeated = [(name, times) for name, times in Counter(names).items() if times > 1]
    if repeated:
        more = f" and {len(repeated) - 1} more likewise" if len(repeated) > 1 else ""
        raise UserError(f"{path} names {repeated[0][0]} {repeated[0][1]} times{more}; keep one")


def read_table(
    path: Path, what: str, required: Sequence[Sequence[str]], optional: Sequence[str] = (), log: Log = warn
) -> list[Row]:
    """The rows of a CSV file whose first line names its columns; empty rows are skipped.

    Args:
        required: columns, each as the names it may have; cells are named by the first of them.

    Raises:
        UserError: as `read_text`; a column is missing or repeated; a row has not one value for each column; quotes do
            not match.
    """
    text = read_text(path, what, log)
    reader = csv.reader(StringIO(text), strict=True)
    header: list[str] = []
    rows: list[Row] = []
    start = 1
    try:
        header = next(reader, [])
        places = _column_indices(header, path, required, optional)
        start = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
                    raise UserError(
                        f"{path}, line {start}: the row does not have one value for each column; check its quotes and "
                        "commas"
                    )
                rows.append(Row(start, {name: cells[place] for name, place in places.items()}))
            start = reader.line_num + 1
    except csv.Error as error:
        first_line = text.split("\n")[0]
        advice = "" if header else f". {_advice(first_line, required, optional)}"
        raise UserError(f"{path}, line {start}: check the quotes of this row ({one_line(error)}){advice}") from error
    return rows


def _column_indices(
    header: Sequence[str], path: Path, required: Sequence[Sequence[str]], optional: Sequence[str]
) -> dict[str, int]:
    """The places of the wanted columns, by the first of their names."""
    columns = [name.strip().casefold() for name in header]
    places = {}
    for names in [*required, *([name] for name in optional)]:
        found = next((name for name in names if name in columns), None)
        if found is None:
            continue
        if columns.count(found) > 1:
            raise UserError(f"{path} has {columns.count(found)} columns {found!r}; keep one")
        places[names[0]] = columns.index(found)
    missing = [names for names in required if names[0] not in places]
    if missing:
        wanted = " and ".join(" or ".join(map(repr, names)) for names in missing)
        there = ", ".join(map(repr, header)) or "none"
        raise UserError(
            f"{path} has no column {wanted}; it has {there}. {_advice(','.join(header), required, optional)}"
        )
    return places


def _advice(first_line: str, required: Sequence[Sequence[str]], optional: Sequence[str]) -> str:
    """Advice on a first line that does not name the columns."""
    wanted = {name for names in required for name in names}
    for separator, called in SEPARATORS.items():
        found = {name.strip().strip('"').casefold() for name in first_line.split(separator)}
        if len(found) > 1 and found & wanted:
            return f"Its columns are separated by {called}; save it with commas"
    if first_line.casefold().startswith("sep="):
        return "Delete the line 'sep=', which only Excel knows"
    columns = ", ".join(names[0] for names in required)
    further = f" and, if wanted, {', '.join(optional)}" if optional else ""
    return f"The first line must name the columns {columns}{further}"


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
    """An image to be generated: its text, the seed of its noise, and its id."""

    text: str
    seed: int
    name: str

    @property
    def image_key(self) -> tuple[str, int]:
        """The same for two prompts of one picture: the seed, and the words as CLIP's text encoder reads them, without
        capitals and with single spaces."""
        return " ".join(self.text.split()).lower(), self.seed


def duplicate_prompts(prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> list[tuple[Prompt, Prompt]]:
    """Pairs of prompts with one picture: each prompt after the first before it, or in `others`, that makes the same."""
    first = {prompt.image_key: prompt for prompt in reversed(others)}
    return [
        (first[prompt.image_key], prompt) for prompt in prompts if first.setdefault(prompt.image_key, prompt) != prompt
    ]


def load_prompts(
    prompts: str | Path | None = None, count: int | None = None, seed: int = 0, log: Log = warn
) -> list[Prompt]:
    """Prompts from a CSV file, or from the scene grammar where no file is given.

    Args:
        count: None means all of a file, or 200 scenes.
        seed: chooses the scenes and their noise; without effect on a file, which has its own seeds.
        log: takes a line for what is odd about a file, such as its encoding.

    Raises:
        UserError: as `read_prompts`, or there are fewer prompts than asked.
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

    Images are named as in the papers: `prompt_{prompt_inds}_seed_{seeds}`.

    Raises:
        UserError: the file cannot be read, a column is missing, a value is no whole number, or two images have one
            name or make one picture.
    """
    rows = read_table(path, "the prompts", [["prompts"], ["seeds"]], ["prompt_inds"], log)
    if not rows:
        raise UserError(f"{path} has no prompts below its first line")
    indexed = any(row.cells.get("prompt_inds", "").strip() for row in rows)
    prompts = []
    for number, row in enumerate(rows):
        seed = _whole(row.cells["seeds"], "seed", path, row.line)
        index = _whole(row.cells["prompt_inds"], "prompt index", path, row.line) if indexed else number
        prompts.append(Prompt(row.cells["prompts"], seed, f"prompt_{index}_seed_{seed}"))
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


def _whole(cell: str, what: str, path: Path, line: int) -> int:
    # Not int(), which takes '1_0' and other alphabets' digits too, and refuses thousands of digits
    found = re.fullmatch("0*([0-9]{1,19})", cell.strip())
    if not found or int(found[1]) > LARGEST_SEED:
        shown = cell if len(cell) <= SHOWN_CHARACTERS else f"{cell[:SHOWN_CHARACTERS]}..."
        raise UserError(f"{path}, line {line}: the {what} {shown!r} is not a whole number from 0 to {LARGEST_SEED}")
    return int(found[1])


def _warn_of_texts(path: Path, rows: Sequence[Row], log: Log) -> None:
    """Warns of prompts that are empty or badly decoded."""
    empty = [row for row in rows if not row.cells["prompts"].strip()]
    if empty:
        log(f"{path}: {len(empty)} of {len(rows)} prompts are empty, first in line {empty[0].line}")
    broken = [row for row in rows if CONTROL_CHARACTERS.search(row.cells["prompts"])]
    if broken:
        log(
            f"{path}: {len(broken)} of {len(rows)} prompts hold control or replacement characters, first in line "
            f"{broken[0].line}: {broken[0].cells['prompts'][:SHOWN_CHARACTERS]!r}; was it saved in a wrong encoding?"
        )
