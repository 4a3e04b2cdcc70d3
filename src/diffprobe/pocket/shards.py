"""Rendered pocket scenes on disk, so that training reads instead of rendering: safetensors shards, made once."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.files import Damaged, read_sealed, remove_leftovers, replacing, sealed
from diffprobe.pocket.render import RenderedScenes, render_indices
from diffprobe.pocket.scenes import COLOURS, sample_scene
from diffprobe.threads import usable_cores

SHARD = 1000
BATCH = 25


@dataclass(frozen=True)
class SceneArrays:
    """Rendered scenes of one stream, scene i in row i.

    Attributes:
        images: [scenes, 3, size, size] uint8.
        salient: [scenes, size, size] bool.
        depth, shading: [scenes, size, size] float16.
        classes, colours: [scenes, 3] int64, index into SHAPES / COLOURS, -1 where there is no object.
        captions: one a scene.
    """

    images: Tensor
    salient: Tensor
    depth: Tensor
    shading: Tensor
    classes: Tensor
    colours: Tensor
    captions: list[str]


def load_scenes(folder: Path, stream: str, count: int, size: int = 64, workers: int | None = None) -> SceneArrays:
    """The first `count` scenes of a stream, rendered where the folder does not hold them yet, or holds them damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    starts = range(0, count, SHARD)
    shards = {start: _read(_path(folder, stream, start, size)) for start in starts}
    missing = [start for start, shard in shards.items() if shard is None]
    with ProcessPoolExecutor(workers or usable_cores()) as pool:
        list(pool.map(partial(_write_shard, folder, stream, size), missing))
    for start in missing:
        shards[start] = _read(_path(folder, stream, start, size))
    whole = [shard for shard in shards.values() if shard is not None]
    if len(whole) < len(starts):
        raise UserError(f"the scenes in {folder} are damaged as soon as they are written; give another folder")
    arrays = {name: torch.cat([shard[name] for shard in whole])[:count] for name in whole[0]}
    captions = [sample_scene(index, stream).caption for index in range(count)]
    return SceneArrays(captions=captions, **arrays)


def _path(folder: Path, stream: str, start: int, size: int) -> Path:
    return folder / f"{stream}-{size}px-{start:07d}.safetensors"


def _read(path: Path) -> dict[str, Tensor] | None:
    """What a shard holds, if it is there, undamaged, and of the scenes that its name says."""
    try:
        return read_sealed(path, expected={"scenes": path.name})[0]
    except (FileNotFoundError, Damaged):
        return None


def _write_shard(folder: Path, stream: str, size: int, start: int) -> None:
    torch.set_num_threads(1)
    batches = [
        _pack(render_indices(range(first, first + BATCH), stream, size)) for first in range(start, start + SHARD, BATCH)
    ]
    arrays = {name: torch.cat([batch[name] for batch in batches]).contiguous() for name in batches[0]}
    arrays["colours"] = torch.stack([_colours(index, stream) for index in range(start, start + SHARD)])
    path = _path(folder, stream, start, size)
    with replacing(path) as temporary:
        save_file(arrays, temporary, sealed(arrays, {"scenes": path.name}))


def _pack(scenes: RenderedScenes) -> dict[str, Tensor]:
    return {
        "images": (scenes.images * 255).round().to(torch.uint8),
        "salient": scenes.salient,
        "depth": scenes.depth.half(),
        "shading": scenes.shading.half(),
        "classes": scenes.classes,
    }


def _colours(index: int, stream: str) -> Tensor:
    colours = [COLOURS.index(item.colour) for item in sample_scene(index, stream).objects]
    return torch.tensor(colours + [-1] * (3 - len(colours)))
