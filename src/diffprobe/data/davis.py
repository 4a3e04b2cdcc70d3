"""DAVIS 2017: videos with the masks of every instance in every frame, at 480p."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffprobe.data.mask_numbers import IGNORED, check_not_ignored, read_numbers
from diffprobe.data.objects import Annotation, ImageFiles, Instance, digest, find_set
from diffprobe.data.text_lists import Log, read_names, warn
from diffprobe.errors import UserError

RESOLUTION = "480p"
LAYOUT = """\
  DAVIS/
    JPEGImages/480p/bear/00000.jpg ...
    Annotations/480p/bear/00000.png ...
    ImageSets/2017/{train,val}.txt"""
SOURCE = "https://davischallenge.org/davis2017/code.html (DAVIS-2017-trainval-480p.zip)"


@dataclass(frozen=True)
class Frame:
    """'<sequence>/<file's stem>', its sequence and number, and why it cannot be used, else ''."""

    name: str
    sequence: str
    number: int
    fault: str = ""


class DavisFrames(ImageFiles):
    """Frames of DAVIS 2017, named '<sequence>/<frame>'. An object is the same instance in all frames of its sequence.

    Instances have no class: their label is '<sequence>/<instance>'.
    """

    kind = "davis"

    def __init__(self, root: Path, frames: Sequence[Frame]) -> None:
        super().__init__(
            [frame.name for frame in frames], [frame.sequence for frame in frames], [frame.number for frame in frames]
        )
        self.root = root
        self.wrong = {frame.name: frame.fault for frame in frames if frame.fault}

    def file(self, row: int) -> Path:
        return self.root / "JPEGImages" / RESOLUTION / f"{self.names[row]}.jpg"

    def read(self, row: int) -> Annotation:
        if self.names[row] in self.wrong:
            raise UserError(self.wrong[self.names[row]])
        numbers = read_numbers(self._mask(row))
        check_not_ignored(numbers)
        return Annotation(
            [
                Instance(int(number), f"{self.sequences[row]}/{number}", numbers == number)
                for number in np.unique(numbers)
                if number not in (0, IGNORED)
            ]
        )

    def annotation_digest(self, row: int) -> str:
        return digest(self._mask(row).read_bytes())

    def _mask(self, row: int) -> Path:
        return self.root / "Annotations" / RESOLUTION / f"{self.names[row]}.png"


def davis_frames(
    root: str | Path,
    split: str = "val",
    sequences: Sequence[str] | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
    every: int = 1,
    frames: int | None = None,
    log: Log = warn,
) -> DavisFrames:
    """Frames of some sequences, in order. No image is opened yet.

    Args:
        root: the folder DAVIS, or the folder that holds it.
        split: a file of ImageSets/2017; without effect on sequences that are named.
        sequences: by name; one without frames stands as one candidate that cannot be read, as do files that are no
            frames, and masks without a picture.
        count: the first so many of the sequences that are named, or so many of a split, drawn with `seed`.
        every: takes each so-many-th frame, from the first on.
        frames: the first so many of those; None means all.
        log: takes a line for what is odd about the split's list.

    Raises:
        UserError: a folder or file of the set is missing, the split's list cannot be read, or there are fewer sequences
            than asked.
    """
    listed = f"ImageSets/2017/{split}.txt"
    needed = [f"JPEGImages/{RESOLUTION}", f"Annotations/{RESOLUTION}", *([listed] if sequences is None else [])]
    place = find_set(root, ["", "DAVIS"], needed, "DAVIS 2017", LAYOUT, SOURCE)
    drawn = sequences is None
    named = sorted(read_names(place / listed, "the list of sequences", log)) if drawn else list(sequences)
    if count is not None and count > len(named):
        raise UserError(f"objects.count={count}: there are only {len(named)} sequences; ask for fewer")
    if count is not None and sequences is None:
        named = sorted(np.random.default_rng(seed).permutation(named)[:count].tolist())
    found: list[Frame] = []
    for sequence in named[:count]:
        numbered, others = _frames(place, sequence)
        found += numbered[::every][:frames] + others
    return DavisFrames(place, found)


def _frames(place: Path, sequence: str) -> tuple[list[Frame], list[Frame]]:
    """What has a picture or a mask, in the order of its numbers; and whatever else is there, which cannot be used."""
    pictures, masks = (place / kind / RESOLUTION / sequence for kind in ("JPEGImages", "Annotations"))
    stems = {path.stem for path in (*pictures.glob("*.jpg"), *masks.glob("*.png")) if not path.name.startswith(".")}
    numbers = {stem: int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
    times = Counter(numbers.values())
    numbered, others = [], []
    for stem in sorted(stems, key=lambda stem: (numbers.get(stem, -1), stem)):
        name = f"{sequence}/{stem}"
        if stem not in numbers:
            others.append(Frame(name, sequence, 0, "its name is not the number of a frame"))
        elif times[numbers[stem]] > 1:
            others.append(Frame(name, sequence, 0, f"{times[numbers[stem]]} files are frame {numbers[stem]}"))
        else:
            numbered.append(Frame(name, sequence, numbers[stem]))
    if not stems:
        there = ", ".join(sorted(path.name for path in pictures.glob("*"))[:3])
        wrong = f"there is no frame in {pictures}" + (f", such as 00000.jpg, but {there}" if there else "")
        others.append(Frame(sequence, sequence, 0, wrong))
    return numbered, others
