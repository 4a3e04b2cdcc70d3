"""Writes rendered scenes as real images with exact maps: python -m diffprobe.pocket FOLDER [--count N]"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.errors import UserError
from diffprobe.ranges import typed_path
from diffprobe.signals import run_command
from diffprobe.terminal import module_command

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 25


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=module_command("diffprobe.pocket"),
        description="Write rendered scenes: FOLDER/images/*.png, FOLDER/images/captions.csv, and exact maps of all "
        "properties of the built-in world, FOLDER/maps/PROPERTY, and of its objects by number, FOLDER/maps/instance.",
    )
    parser.add_argument("folder", type=typed_path)
    parser.add_argument("--count", type=int, default=100, help="number of scenes (100)")
    options = parser.parse_args(arguments)
    try:
        write_scenes(options.folder, options.count)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.count} scenes in {options.folder}: images/, with captions.csv, and maps/")
    return 0


def write_scenes(folder: Path, count: int, stream: str = "test") -> None:
    """Writes images, captions and maps of scenes not used in training. Raises UserError if the folder is not empty."""
    from PIL import Image

    from diffprobe.pocket.render import render_indices

    if count < 1:
        raise UserError(f"{count} scenes; write at least 1")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; give a new folder")
    (folder / "images").mkdir(parents=True)
    rows = []
    for start in range(0, count, BATCH):
        scenes = render_indices(range(start, min(start + BATCH, count)), stream)
        pictures = (scenes.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for place, caption in enumerate(scenes.captions):
            name = f"scene_{start + place:05d}"
            Image.fromarray(pictures[place]).save(folder / "images" / f"{name}.png")
            for kind, maps in {**scenes.maps(), "instance": scenes.numbered()}.items():
                write_map(folder / "maps" / kind, name, maps[place])
            rows.append((f"{name}.png", caption))
    with (folder / "images" / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])


def write_map(folder: Path, name: str, values: Tensor) -> None:
    """Writes a map: a mask as white on black and class numbers as a grey PNG, others as .npy."""
    import numpy as np
    import torch
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    if values.is_floating_point():
        np.save(folder / f"{name}.npy", values.numpy())
    else:
        levels = values.byte() * (255 if values.dtype == torch.bool else 1)
        Image.fromarray(levels.numpy()).save(folder / f"{name}.png")


if __name__ == "__main__":
    sys.exit(run_command(main))
