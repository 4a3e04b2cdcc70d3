"""Prototypes on disk, shard by shard of images, so that interrupted work goes on and the jobs of a sweep share it.

A folder is named by all that determines its prototypes but the layers and timesteps. Of each run of images it holds
safetensors files, each with the prototypes of some (layer, grid, timestep); more are added beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from diffprobe.activations.activations import Groups, LayerItems
from diffprobe.activations.sources import Source
from diffprobe.activations.store.manifest import folder_name, identity
from diffprobe.activations.store.shards import set_aside
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError
from diffprobe.files import Damaged, read_sealed, remove_leftovers, sealed, temporary_beside
from diffprobe.prototypes.pooling import MaskResizing
from diffprobe.ranges import Count, Folder

FORMAT = "diffprobe-prototypes/2"


@dataclass(frozen=True)
class PrototypeConfig:
    """DistanceKey prototypes are kept, and what is pooled in the same pass for other jobs of a sweep.

    Attributes:
        layers, groups: pooled beside those of this job, as `layers.select` and `layers.groups`.
        batch_size: images shown to the network at once.
    """

    folder: Folder
    layers: Annotated[Any, LayerItems] | None = None
    groups: Groups | None = None
    batch_size: Count = 8
    images_per_shard: Count = 64


@dataclass(frozen=True)
class PrototypeKey:
    """What is kept of every object: its mean over one layer's activation, on a grid, at a timestep."""

    layer: str
    grid: tuple[int, int]
    timestep: float

    @property
    def name(self) -> str:
        height, width = self.grid
        return f"{self.layer}@{height}x{width}@{self.timestep!r}"


class PrototypeCache:
    """The prototypes that a folder holds.

    Every file carries the folder's fingerprint, its images and checksums of all it says. What disagrees is renamed to
    `*.damaged` when it is looked for, and so computed again.

    Attributes:
        shards: the rows of images that are computed and written together.
        damaged: what was found damaged: the new name of the file, and why.
    """

    def __init__(self, folder: Path, fingerprint: str, images: int, images_per_shard: int) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.shards = [
            range(start, min(start + images_per_shard, images)) for start in range(0, images, images_per_shard)
        ]
        self.damaged: dict[Path, str] = {}

    def missing(self, shard: range, keys: Iterable[PrototypeKey]) -> list[PrototypeKey]:
        """Those of the units that are not there, undamaged. Reads all of them.

        Raises:
            UserError: damage that cannot be put aside, since the folder cannot be written to.
        """
        wanted = list(keys)
        there: set[str] = set()
        for path in self._files(shard):
            try:
                there |= self._tensors(path, shard, [unit.name for unit in wanted]).keys()
            except FileNotFoundError:  # another process has just put it aside
                continue
            except Damaged as damage:
                self.damaged[_set_aside(path, damage)] = str(damage)
        return [unit for unit in wanted if unit.name not in there]

    def write(self, shard: range, values: Mapping[PrototypeKey, Tensor]) -> None:
        """Adds prototypes [objects of the shard, channels] of some units, all or nothing."""
        tensors = {unit.name: pooled.contiguous().cpu() for unit, pooled in values.items()}
        digest = hashlib.sha256("\n".join(sorted(tensors)).encode()).hexdigest()[:12]
        path = self.folder / f"{self._prefix(shard)}_{digest}.safetensors"
        temporary = temporary_beside(path)
        try:
            save_file(tensors, temporary, sealed(tensors, self._label(shard)))
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write {path}: {error}; what was written before is kept") from error
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, key: PrototypeKey) -> Tensor:
        """[objects of all images, channels], float32.

        Raises:
            KeyError: a shard does not have it.
            UserError: a file is not any more what it was when it was looked for.
        """
        return torch.cat([self._read(shard, key) for shard in self.shards])

    def _read(self, shard: range, unit: PrototypeKey) -> Tensor:
        for path in self._files(shard):
            try:
                found = self._tensors(path, shard, [unit.name])
            except (Damaged, FileNotFoundError) as damage:
                raise UserError(
                    f"{path} is damaged: {damage}; run the same command again, which computes it anew"
                ) from damage
            if found:
                return found[unit.name]
        raise KeyError(unit.name)

    def _tensors(self, path: Path, shard: range, names: Collection[str]) -> dict[str, Tensor]:
        """Of these names those that a file of a shard has. Raises Damaged or FileNotFoundError."""
        return read_sealed(path, names, self._label(shard))[0]

    def _files(self, shard: range) -> list[Path]:
        return sorted(self.folder.glob(f"{self._prefix(shard)}_*.safetensors"))

    def _label(self, shard: range) -> dict[str, str]:
        return {"format": FORMAT, "made_of": self.fingerprint, "images": f"{shard.start}-{shard.stop - 1}"}

    def _prefix(self, shard: range) -> str:
        return f"images_{shard.start:06d}-{shard.stop - 1:06d}"


def _set_aside(path: Path, damage: Damaged) -> Path:
    try:
        return set_aside(path)
    except OSError as error:
        raise UserError(f"{path} is damaged ({damage}) and cannot be renamed: {error.strerror}; delete it") from error


def cache_folder(
    folder: Path, backbone: Backbone, source: Source, objects: Sequence[Mapping[str, Any]], resizing: MaskResizing
) -> tuple[Path, str]:
    """The folder, made if need be, for prototypes of these objects, and the fingerprint of all that determines them.

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
        provenance = place / "made_of.json"
        if not provenance.is_file() or provenance.read_bytes() != text.encode():  # for people: nothing reads it
            temporary = temporary_beside(provenance)
            temporary.write_bytes(text.encode())
            temporary.replace(provenance)
    except OSError as error:
        raise UserError(f"cannot write to {place}: {error.strerror}; choose another folder for what is kept") from error
    return place, digest
