"""Label maps from a folder, one per image and property, found by the image's name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.fitting import UPRIGHT, Box, Geometry, fit_map
from diffprobe.labels.map_files import EXTENSIONS, read_map
from diffprobe.properties import Property, property_named
from diffprobe.threads import decoding_threads


class FilesLabeler:
    """Reads `path/<property>/<image name>` with one of `EXTENSIONS`, and resizes it to the image.

    The kind of a property says what a file holds: a mask is 0 where there is background, relative inverse depth is
    larger where things are nearer, classes are their numbers, and vectors are channels or red, green and blue. A map
    has the proportions of its image's file, and is rotated and cropped as the image is; or it is square, of the image
    as the network sees it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._geometries: Mapping[str, Geometry] = {}
        self._properties: Mapping[str, Property] = {}
        if not self.path.is_dir():
            raise UserError(f"no such folder of label maps: {path}; it must hold a folder for each property")

    def set_properties(self, properties: Mapping[str, Property]) -> None:
        """Sets properties of the user's own, by name; others are known ones."""
        self._properties = properties

    def set_geometries(self, geometries: Mapping[str, Geometry]) -> None:
        """See `GeometryAwareLabeler`."""
        self._geometries = geometries

    def check_reference_maps(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As `check`, for maps that may be empty or constant."""
        self.check(names, properties, image_size, may_be_constant=True)

    def check(
        self, names: Sequence[str], properties: Sequence[str], image_size: int, *, may_be_constant: bool = False
    ) -> None:
        """Reads every map before any work is done.

        Raises:
            UserError: maps are missing, cannot be used, or have no content: a quantity that is the same everywhere, no
                class or vector at all, and masks if more than half of them lack foreground or background (a few may,
                and are left out of the scores). The first few are named.
        """
        for name in properties:
            folder = self.path / name
            if not folder.is_dir():
                lie_above = [image for image in names if self._files("", image)]
                what = (
                    f"move the {len(lie_above)} maps in {self.path} there"
                    if lie_above
                    else "put one map per image there"
                )
                raise UserError(f"no folder {folder}; {what}, or leave {name} out of property")
            missing = [image for image in names if not self._files(name, image)]
            if missing:
                raise UserError(
                    f"{folder} lacks the maps of {len(missing)} of {len(names)} images, such as "
                    f"{', '.join(missing[:3])}; expected {missing[0]} with one of "
                    f"{', '.join(EXTENSIONS)}"
                )
        for name in properties:
            with decoding_threads() as pool:
                found = list(pool.map(partial(self._problem, name, image_size, may_be_constant), names))
            few = 2 * sum(is_flat_mask for _, is_flat_mask in found) <= len(names)
            problems = [problem for problem, is_flat_mask in found if problem and not (is_flat_mask and few)]
            if problems:
                raise UserError(
                    f"{len(problems)} of the {len(names)} maps of {name} cannot be used: {'; '.join(problems[:3])}"
                )

    def _problem(self, name: str, size: int, may_be_constant: bool, image: str) -> tuple[str, bool]:
        """Why a map cannot be used, '' if it can; and whether it is a mask of one value."""
        try:
            values = self._read(name, image, size, size)
        except UserError as error:
            return str(error), False
        item, value = self._property(name), values.max()
        shown = f"the map {self._files(name, image)[0]}, as its image shows it at {size} pixels,"
        if may_be_constant or (values.min() < value and item.kind != "vector"):
            return "", False
        if item.binary:
            return f"{shown} is all {'foreground' if value else 'background'}; a mask needs both", True
        if item.kind in ("categorical", "vector"):
            classes = item.kind == "categorical"
            empty = value < 0 if classes else not np.abs(values).max()
            return (f"{shown} has no {'class' if classes else 'vector'} at all" if empty else ""), False
        return f"{shown} is {value:g} everywhere; a constant map has no ranks to learn or to score", False

    def _property(self, name: str) -> Property:
        return self._properties.get(name) or property_named(name)

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] -> {property: [images, height, width]} (of vectors [images, channels, height,
        width]); only the size of `images` matters."""
        height, width = images.shape[-2:]
        return {
            name: torch.stack([torch.from_numpy(self._read(name, image, height, width)) for image in names])
            for name in properties
        }

    def fingerprint(self, name: str) -> str:
        """Of the names and contents of all maps of property `name`, which are read for it."""
        paths = sorted(path for path in (self.path / name).rglob("*") if path.suffix in EXTENSIONS and path.is_file())
        described = [
            (path.relative_to(self.path).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths
        ]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def _files(self, name: str, image: str) -> list[Path]:
        paths = (self.path / name / (image + ending) for ending in EXTENSIONS)
        return [path for path in paths if path.exists() or path.is_symlink()]

    def _read(self, name: str, image: str, height: int, width: int) -> np.ndarray:
        """The map as its image is fitted, [height, width] or [channels, height, width] float32; a mask is 1 where a
        value is above 0, else 0."""
        paths = self._files(name, image)
        if len(paths) != 1:
            problem = f"there are both {paths[0]} and {paths[1].name}" if paths else f"{self.path / name} lacks {image}"
            raise UserError(f"{problem}; give one map of {name} per image")
        item, geometry = self._property(name), self._geometries.get(image)
        try:
            values = read_map(paths[0], item)
            if item.kind == "vector" and geometry is not None and geometry.orientation != UPRIGHT:
                raise ValueError("the EXIF data of its image turn that, and directions with it; save both upright")
            upright, box = fit_map(values, geometry, width)
        except ValueError as error:
            raise UserError(f"the map {paths[0]} of {name}: {error}") from error
        if item.binary:
            return _nearest(upright > 0, box, height, width)
        if item.kind == "categorical":
            return _nearest(upright, box, height, width)
        if item.kind == "vector":
            return np.stack([_bilinear(channel, box, height, width) for channel in np.moveaxis(upright, -1, 0)])
        return _bilinear(upright, box, height, width)


def _nearest(mask: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """The mask's values at the centres of the pixels."""
    left, top, right, bottom = box
    rows = np.floor(top + (np.arange(height) + 0.5) * (bottom - top) / height).astype(int)
    columns = np.floor(left + (np.arange(width) + 0.5) * (right - left) / width).astype(int)
    rows, columns = rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)
    return mask[rows[:, None], columns].astype(np.float32)


def _bilinear(values: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """Antialiased where it shrinks."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
