"""Cache of prototypes on disk, by shards of images, so that interrupted runs go on and the runs of a sweep share it.

A folder is named by all that determines its prototypes but layers and timesteps. Each of its safetensors files holds
the prototypes of one shard for some (layer, grid, timestep).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
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
from diffprobe.files import Damaged, read_sealed, remove_leftovers, replacing, sealed, write_text
from diffprobe.prototypes.pooling import MaskResizing
from diffprobe.ranges import Count, Folder

FORMAT = "diffprobe-prototypes/2"


@dataclass(frozen=True)
class PrototypeConfig:
    """Where prototypes are cached, and what else is pooled in the same pass for other runs of a sweep.

    Attributes:
        layers, groups: pooled beside those of this run, as `layers.select` and `layers.groups`.
        batch_size: images shown to the network at once.
    """

    folder: Folder
    layers: Annotated[Any, LayerItems] | None = None
    groups: Groups | None = None
    batch_size: Count = 8
    images_per_shard: Count = 64


@dataclass(frozen=True)
class PrototypeKey:
    """One cached mean of every object: over one layer's activation, on a grid (height, width), at a timestep."""

    layer: str
    grid: tuple[int, int]
    timestep: float

    @property
    def name(self) -> str:
        height, width = self.grid
        return f"{self.layer}@{height}x{width}@{self.timestep!r}"


class PrototypeCache:
    """The prototypes in a folder.

    Every file carries the folder's fingerprint, its images and checksums. `missing` renames files that disagree to
    `*.damaged`, so that they are computed again.

    Attributes:
        shards: the rows of images that are computed and written together.
        damaged: new path of a damaged file -> what is wrong with it.
    """

    def __init__(self, folder: Path, fingerprint: str, images: int, images_per_shard: int) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        rows = range(images)
        self.shards = [rows[start : start + images_per_shard] for start in rows[::images_per_shard]]
        self.damaged: dict[Path, str] = {}

    def missing(self, shard: range, keys: Iterable[PrototypeKey]) -> list[PrototypeKey]:
        """Those of the keys that no undamaged file of the shard holds. Reads all that they hold.

        Raises:
            UserError: a damaged file cannot be renamed.
        """
        names = {key.name: key for key in keys}
        cached: set[str] = set()
        for path in self._files(shard):
            try:
                cached |= read_sealed(path, names, self._metadata(shard))[0].keys()
            except FileNotFoundError:  # another process has just renamed it
                continue
            except Damaged as damage:
                try:
                    self.damaged[set_aside(path)] = str(damage)
                except OSError as error:
                    raise UserError(
                        f"{path} is damaged ({damage}) and cannot be renamed: {error.strerror}; delete it"
                    ) from error
        return [key for name, key in names.items() if name not in cached]

    def write(self, shard: range, values: Mapping[PrototypeKey, Tensor]) -> None:
        """Adds prototypes [objects of the shard, channels] by key, all or nothing."""
        tensors = {key.name: pooled.contiguous().cpu() for key, pooled in values.items()}
        digest = hashlib.sha256("\n".join(sorted(tensors)).encode()).hexdigest()[:12]
        path = self.folder / f"{_prefix(shard)}_{digest}.safetensors"
        try:
            with replacing(path) as temporary:
                save_file(tensors, temporary, sealed(tensors, self._metadata(shard)))
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write {path}: {error}; what was written before is kept") from error

    def read(self, key: PrototypeKey) -> Tensor:
        """[objects of all images, channels], float32.

        Raises:
            KeyError: a shard does not have it.
            UserError: a file was damaged after `missing` read it.
        """
        return torch.cat([self._read(shard, key) for shard in self.shards])

    def _read(self, shard: range, key: PrototypeKey) -> Tensor:
        for path in self._files(shard):
            try:
                found = read_sealed(path, [key.name], self._metadata(shard))[0]
            except (Damaged, FileNotFoundError) as damage:
                raise UserError(
                    f"{path} is damaged: {damage}; run the same command again, which computes it anew"
                ) from damage
            if found:
                return found[key.name]
        raise KeyError(key.name)

    def _files(self, shard: range) -> list[Path]:
        return sorted(self.folder.glob(f"{_prefix(shard)}_*.safetensors"))

    def _metadata(self, shard: range) -> dict[str, str]:
        return {"format": FORMAT, "made_of": self.fingerprint, "images": f"{shard.start}-{shard.stop - 1}"}


def _prefix(shard: range) -> str:
    return f"images_{shard.start:06d}-{shard.stop - 1:06d}"


def cache_folder(
    folder: Path, backbone: Backbone, source: Source, objects: Sequence[Mapping[str, Any]], resizing: MaskResizing
) -> tuple[Path, str]:
    """Makes the folder for prototypes of these objects; returns it and the fingerprint of all that determines them.

    Args:
        objects: of every image, what determines its pixels and its masks.
    """
    description = {
        "format": FORMAT,
        "model": identity(backbone),
        "trajectory": source.description(backbone),
        "images": list(objects),
        "masks": asdict(resizing),
    }
    text = json.dumps(description, sort_keys=True, indent=1)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    place = folder / f"prototypes-{folder_name(backbone.name, fingerprint)}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        provenance = place / "made_of.json"
        if not provenance.is_file() or provenance.read_bytes() != text.encode():  # for people: nothing reads it
            write_text(provenance, text)
    except OSError as error:
        raise UserError(f"cannot write to {place}: {error.strerror}; choose another folder for what is kept") from error
    return place, fingerprint
