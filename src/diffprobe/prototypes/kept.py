"""Prototypes on disk, shard by shard of images, so that interrupted work goes on and the jobs of a sweep share it.

A folder is named by all that determines its prototypes but the layers and timesteps. Of each run of images it holds
safetensors files, each with the prototypes of some (layer, grid, timestep); more are added beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError
from diffprobe.features.description import folder_name, identity
from diffprobe.features.sources.source import Source
from diffprobe.features.store.temporary import remove_leftovers, temporary_beside
from diffprobe.prototypes.masks import MaskResizing

FORMAT = "diffprobe-prototypes/1"


@dataclass(frozen=True)
class Unit:
    """What is kept of every object: its mean over one layer's activation, on a grid, at a timestep."""

    layer: str
    grid: tuple[int, int]
    timestep: float

    @property
    def name(self) -> str:
        height, width = self.grid
        return f"{self.layer}@{height}x{width}@{self.timestep!r}"


class KeptPrototypes:
    """The prototypes that a folder holds; `shards` are the rows of images that are computed and written together."""

    def __init__(self, folder: Path, images: int, images_per_shard: int) -> None:
        self.folder = folder
        self.shards = [
            range(start, min(start + images_per_shard, images)) for start in range(0, images, images_per_shard)
        ]

    def lacking(self, shard: range, units: Iterable[Unit]) -> list[Unit]:
        """Those of the units that are not there yet."""
        there = self._places(shard)
        return [unit for unit in units if unit.name not in there]

    def write(self, shard: range, values: Mapping[Unit, Tensor]) -> None:
        """Adds prototypes [objects of the shard, channels] of some units, all or nothing."""
        tensors = {unit.name: pooled.contiguous().cpu() for unit, pooled in values.items()}
        digest = hashlib.sha256("\n".join(sorted(tensors)).encode()).hexdigest()[:12]
        path = self.folder / f"{self._prefix(shard)}_{digest}.safetensors"
        temporary = temporary_beside(path)
        try:
            save_file(tensors, temporary)
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write {path}: {error}; what was written before is kept") from error
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, unit: Unit) -> Tensor:
        """[objects of all images, channels], float32.

        Raises:
            KeyError: a shard does not have it.
        """
        return torch.cat([self._read(shard, unit) for shard in self.shards])

    def _read(self, shard: range, unit: Unit) -> Tensor:
        with safe_open(self._places(shard)[unit.name], framework="pt") as file:
            return file.get_tensor(unit.name)

    def _places(self, shard: range) -> dict[str, Path]:
        """Which file of a shard has which unit."""
        places = {}
        for path in sorted(self.folder.glob(f"{self._prefix(shard)}_*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    places |= dict.fromkeys(file.keys(), path)
            except SafetensorError as error:
                raise UserError(f"{path} is damaged ({error}); delete it, and it will be computed again") from error
        return places

    def _prefix(self, shard: range) -> str:
        return f"images_{shard.start:06d}-{shard.stop - 1:06d}"


def keep_in(
    folder: Path, backbone: Backbone, source: Source, objects: Sequence[Mapping[str, Any]], resizing: MaskResizing
) -> Path:
    """The folder, made if need be, for prototypes of these objects.

    Args:
        objects: of every image, what determines its pixels and its masks.
    """
    described = {
        "format": FORMAT,
        "model": identity(backbone),
        "trajectory": source.description(backbone),
        "images": list(objects),
        "masks": asdict(resizing),
    }
    text = json.dumps(described, sort_keys=True, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    place = folder / f"prototypes-{folder_name(backbone.name, digest)}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        made_of = place / "made_of.json"
        if not made_of.exists():
            temporary = temporary_beside(made_of)
            temporary.write_text(text)
            temporary.replace(made_of)
    except OSError as error:
        raise UserError(f"cannot write to {place}: {error.strerror}; choose another folder for what is kept") from error
    return place
