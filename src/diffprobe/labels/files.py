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
from diffprobe.fitting import Box, Geometry, fit_map
from diffprobe.threads import decoding_threads
from diffprobe.user_files import opened_picture, read_array

MAP_EXTENSIONS = (".npy", ".png")
SALIENCY = "saliency"


def read_plane(path: str | Path, what: str, kinds: Sequence[str] = ("PNG",)) -> np.ndarray:
    """The values of a grey picture, [height, width]: bool, uint8, or an integer type of 16 bits.

    Colour may be there if all channels are equal, transparency if all is opaque. Lossy formats are not among the
    kinds, since their zeros are not zero.

    Raises:
        UserError: the file cannot be read, is of another kind, or has colours or transparent pixels.
    """
    with opened_picture(path, what, kinds=kinds) as (picture, _):
        cut_to_8_bits = picture.mode != "L" and any(";16B" in str(tile[3]) for tile in picture.tile)
        picture.load()
        if picture.mode == "1":
            return np.array(picture)
        if picture.mode.startswith("I"):
            values = np.array(picture)
            if (values == picture.info.get("transparency")).any():
                raise ValueError("it has transparent pixels; save one grey channel alone")
            return values
        if cut_to_8_bits:
            raise ValueError("it is colour of 16 bits, which would be cut to 8; save it as grey")
        if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema()[0] != 255:
            raise ValueError(
                "it has transparent pixels, and whether its map is in its transparency or in its colours cannot be "
                "told; save one grey channel alone"
            )
        if picture.mode in ("L", "LA"):
            return np.array(picture.getchannel("L"))
        channels = np.asarray(picture.convert("RGB"))
        if (channels != channels[..., :1]).any():
            raise ValueError(
                "it is in colour, and colours have no order; save the values themselves, as grey PNG or as .npy"
            )
        return channels[..., 0].copy()


class FilesLabeler:
    """Reads `path/<property>/<image name>.npy` or `.png`, 8 or 16 bit, and resizes it to the image.

    Saliency maps are 0 where there is background, depth maps relative inverse depth (larger is nearer), shading maps
    irradiance. A map has the proportions of its image's file, and is rotated and cropped as the image is; or it is
    square, of the image as the network sees it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._geometries: Mapping[str, Geometry] = {}
        if not self.path.is_dir():
            raise UserError(f"no such folder of label maps: {path}; it must hold saliency/, depth/ or shading/")

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
            UserError: maps are missing, cannot be used, or have no content: a mask without salient pixels or without
                background, a quantity that is the same everywhere. The first few are named.
        """
        for name in properties:
            folder = self.path / name
            if not folder.is_dir():
                raise UserError(f"no folder {folder}; put one map per image there, or leave {name} out of property")
            missing = [image for image in names if not self._files(name, image)]
            if missing:
                raise UserError(
                    f"{folder} lacks the maps of {len(missing)} of {len(names)} images, such as "
                    f"{', '.join(missing[:3])}; expected {missing[0]}.png or {missing[0]}.npy"
                )
        for name in properties:
            with decoding_threads() as pool:
                problems = list(pool.map(partial(self._problem, name, image_size, may_be_constant), names))
            problems = [problem for problem in problems if problem]
            if problems:
                raise UserError(
                    f"{len(problems)} of the {len(names)} maps of {name} cannot be used: {'; '.join(problems[:3])}"
                )

    def _problem(self, name: str, size: int, may_be_constant: bool, image: str) -> str:
        """Why a map cannot be used; '' if it can."""
        try:
            values = self._read(name, image, size, size)
        except UserError as error:
            return str(error)
        if may_be_constant or values.min() < values.max():
            return ""
        shown = f"the map {self._files(name, image)[0]}, as its image shows it at {size} pixels, is"
        if name == SALIENCY:
            return f"{shown} all {'salient' if values.max() else 'background'}; a mask needs both"
        return f"{shown} {values.max():g} everywhere; a constant map has no ranks to learn or to score"

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] -> {property: [images, height, width]}; only the size of `images` matters."""
        height, width = images.shape[-2:]
        return {
            name: torch.stack([torch.from_numpy(self._read(name, image, height, width)) for image in names])
            for name in properties
        }

    def fingerprint(self, name: str) -> str:
        """Of the names and contents of all maps of property `name`, which are read for it."""
        paths = sorted(
            path for path in (self.path / name).rglob("*") if path.suffix in MAP_EXTENSIONS and path.is_file()
        )
        described = [
            (path.relative_to(self.path).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths
        ]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def _files(self, name: str, image: str) -> list[Path]:
        paths = (self.path / name / (image + ending) for ending in MAP_EXTENSIONS)
        return [path for path in paths if path.exists() or path.is_symlink()]

    def _read(self, name: str, image: str, height: int, width: int) -> np.ndarray:
        """The map as its image is fitted, [height, width] float32; a mask is 1 where a value is above 0, else 0."""
        paths = self._files(name, image)
        if len(paths) != 1:
            problem = f"there are both {paths[0]} and {paths[1].name}" if paths else f"{self.path / name} lacks {image}"
            raise UserError(f"{problem}; give one map of {name} per image")
        try:
            upright, box = fit_map(_load(paths[0]), self._geometries.get(image), width)
        except ValueError as error:
            raise UserError(f"the map {paths[0]} of {name}: {error}") from error
        return _nearest(upright > 0, box, height, width) if name == SALIENCY else _bilinear(upright, box, height, width)


def _load(path: Path) -> np.ndarray:
    """[height, width], finite. Raises UserError if the file cannot be read, ValueError if it is no map."""
    values = read_array(path, "the map") if path.suffix == ".npy" else read_plane(path, "the map")
    values = values.reshape([side for side in values.shape if side > 1]) if values.ndim > 2 else values
    if values.ndim != 2 or not values.size:
        raise ValueError(f"it must be one plane of numbers, and has shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of its {values.size} values are infinite or not numbers")
    if max(abs(float(values.max())), abs(float(values.min()))) > float(np.finfo(np.float32).max):
        raise ValueError("it has values beyond 3.4e38, the range of float32; scale them down, only ranks count")
    return values


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
