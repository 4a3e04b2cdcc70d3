"""Labels from a folder: one map per image and property, found by the image's name, never by order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.errors import UserError

ENDINGS = (".npy", ".png")


class FilesLabeler:
    """Reads `path/<property>/<image name>.npy` or `.png`, of any size, 8 or 16 bit, and brings it to the image's size.

    Saliency maps are 0 where there is background. Depth maps are relative inverse depth (larger is nearer), as MiDaS
    gives it; shading maps are irradiance.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"no such folder of label maps: {path}; it must hold saliency/, depth/ or shading/")

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Finds every map before any work is done; maps of any size will do.

        Raises:
            UserError: maps are missing; the first few are named.
        """
        for name in properties:
            folder = self.path / name
            if not folder.is_dir():
                raise UserError(f"no folder {folder}; put one map per image there, or leave {name} out of property")
            missing = [image for image in names if self._file(name, image) is None]
            if missing:
                raise UserError(
                    f"{folder} lacks the maps of {len(missing)} of {len(names)} images, such as "
                    f"{', '.join(missing[:3])}; expected {missing[0]}.png or {missing[0]}.npy"
                )

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] -> {property: [images, height, width]}; only the size of `images` matters."""
        self.check(names, properties, images.shape[-1])
        return {
            name: torch.stack([self._read(name, image, images.shape[-2:]) for image in names]) for name in properties
        }

    def fingerprint(self, name: str) -> str:
        """Of the names and contents of all maps of property `name`, which are read for it."""
        paths = sorted(path for path in (self.path / name).rglob("*") if path.suffix in ENDINGS)
        described = [
            (path.relative_to(self.path).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths
        ]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def _file(self, name: str, image: str) -> Path | None:
        paths = (self.path / name / (image + ending) for ending in ENDINGS)
        return next((path for path in paths if path.is_file()), None)

    def _read(self, name: str, image: str, size: torch.Size) -> Tensor:
        path = self._file(name, image)
        assert path is not None  # check() has found it
        values = _load_map(path)
        if name == "saliency":
            salient = (values > 0).float()
            return functional.interpolate(salient[None, None], size=size, mode="nearest-exact")[0, 0]
        return functional.interpolate(values[None, None], size=size, mode="bilinear", antialias=True)[0, 0]


def _load_map(path: Path) -> Tensor:
    """[height, width] float32 from a grey picture or array; of several equal channels the first."""
    from PIL import Image

    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                values = np.asarray(picture if picture.mode.startswith("I") else picture.convert("L"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the map {path}: {error}") from error
    values = np.squeeze(values)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UserError(f"the map {path} must be one plane of finite numbers; it has shape {values.shape}")
    return torch.from_numpy(values.astype(np.float32))
