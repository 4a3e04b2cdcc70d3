"""DAVIS 2017: videos with the masks of every instance in every frame, at 480p."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffprobe.data.annotated_images import ImageFiles, Instance, Reading, digest, find_set, read_numbers
from diffprobe.data.text_lists import Tell, read_names, warn
from diffprobe.errors import UserError

IGNORED = 255
RESOLUTION = "480p"
LAYOUT = """\
  DAVIS/
    JPEGImages/480p/bear/00000.jpg ...
    Annotations/480p/bear/00000.png ...
    ImageSets/2017/{train,val}.txt"""
SOURCE = "https://davischallenge.org/davis2017/code.html (DAVIS-2017-trainval-480p.zip)"


class DavisFrames(ImageFiles):
    """Frames of DAVIS 2017, named '<sequence>/<frame>'. An object is the same instance in all frames of its sequence.

    Instances have no class: their label is '<sequence>/<instance>'.
    """

    kind = "davis"

    def __init__(self, root: Path, names: Sequence[str], sequences: Sequence[str], frames: Sequence[int]) -> None:
        super().__init__(names, sequences, frames)
        self.root = root

    def file(self, row: int) -> Path:
        return self.root / "JPEGImages" / RESOLUTION / f"{self.names[row]}.jpg"

    def read(self, row: int) -> Reading:
        if self.names[row] == self.sequences[row]:  # see davis_frames
            raise UserError(f"there is no frame in {self.file(row).with_suffix('')}")
        numbers = read_numbers(self._mask(row))
        return Reading(
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
    tell: Tell = warn,
) -> DavisFrames:
    """Frames of some sequences, in order. No image is opened yet.

    Args:
        root: the folder DAVIS, or the folder that holds it.
        split: a file of ImageSets/2017; without effect on sequences that are named.
        sequences: by name; one without frames stands as one candidate that cannot be read.
        count: the first so many of the sequences that are named, or so many of a split, drawn with `seed`.
        every: takes each so-many-th frame, from the first on.
        frames: the first so many of those; None means all.
        tell: takes a line for what is odd about the split's list.

    Raises:
        UserError: a folder or file of the set is missing, the split's list cannot be read, or there are fewer sequences
            than asked.
    """
    listed = f"ImageSets/2017/{split}.txt"
    needed = [f"JPEGImages/{RESOLUTION}", f"Annotations/{RESOLUTION}", *([listed] if sequences is None else [])]
    place = find_set(root, ["", "DAVIS"], needed, "DAVIS 2017", LAYOUT, SOURCE)
    drawn = sequences is None
    named = sorted(read_names(place / listed, "the list of sequences", tell)) if drawn else list(sequences)
    if count is not None and count > len(named):
        raise UserError(f"objects.count={count}: there are only {len(named)} sequences; ask for fewer")
    if count is not None and sequences is None:
        named = sorted(np.random.default_rng(seed).permutation(named)[:count].tolist())
    found = [_frames(place / "JPEGImages" / RESOLUTION, sequence)[::every][:frames] for sequence in named[:count]]
    rows = [row for sequence in found for row in sequence]
    return DavisFrames(place, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _frames(folder: Path, sequence: str) -> list[tuple[str, str, int]]:
    """(name, sequence, frame) of every frame."""
    stems = sorted(path.stem for path in (folder / sequence).glob("*.jpg") if path.stem.isdigit())
    return [(f"{sequence}/{stem}", sequence, int(stem)) for stem in stems] or [(sequence, sequence, 0)]
