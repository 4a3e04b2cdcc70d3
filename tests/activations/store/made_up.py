"""Small stores whose every number is known: a function of tensor, image id and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffprobe.activations.store.folder import Store, create_store
from diffprobe.activations.store.manifest import Extra, Manifest
from diffprobe.activations.store.shards import TensorSpec
from diffprobe.activations.store.writer import StoreWriter
from diffprobe.backbone.layers import Layer

LARGE = Layer("down_blocks.0.attn1", "self_attention", "encoder", 3, 4, 5)
SMALL = Layer("up_blocks.1.resnets.0", "resnet", "decoder", 1, 1, 3)  # an odd number of bytes would be misaligned
IMAGES = [{"id": f"image_{row}", "prompt": f"prompt {row}", "seed": row} for row in range(7)]
STEPS = [0, 3]


def made_up_manifest(**changes: Any) -> Manifest:
    """7 images in shards of 3, two layers at steps 0 and 3, latents at every step, one image each."""
    fields = {
        "model": {"name": "made_up", "denoiser": "f00d"},
        "trajectory": {"kind": "generation", "sampling_steps": 4, "guidance": 7.5},
        "images": IMAGES,
        "layers": [LARGE, SMALL],
        "steps": STEPS,
        "timesteps": [999.0, 1.0],
        "dtype": "float16",
        "images_per_shard": 3,
        "extras": [Extra("image", (3, 2, 2), "uint8"), Extra("latents", (1, 2, 2), "float32", every_step=True)],
    }
    return Manifest(**{**fields, **changes})


def row_of_tensor(spec: TensorSpec, image: str) -> Tensor:
    """What a store must hold of one image in one tensor, in float32."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{spec.name} {image}".encode()))
    if spec.dtype == "uint8":
        return torch.randint(256, spec.shape, generator=generator).float()
    return torch.randn(spec.shape, generator=generator)


def expected_rows(spec: TensorSpec, images: Sequence[str]) -> Tensor:
    """[len(images), *shape] in the stored dtype."""
    return torch.stack([row_of_tensor(spec, image) for image in images]).to(spec.torch_dtype)


def fill(store: Store, compute: Callable[[], None] = lambda: None) -> None:
    """Writes all unfinished shards, tensor after tensor; `compute` is called before each."""
    ids = store.manifest.ids
    with StoreWriter(store) as writer:
        for shard in store.survey().unfinished:
            for spec in store.specs.values():
                compute()
                writer.put(spec.name, shard.rows, torch.stack([row_of_tensor(spec, ids[row]) for row in shard.rows]))


def filled(folder: Path, **changes: Any) -> Store:
    """A finished store."""
    store = create_store(folder, made_up_manifest(**changes))
    fill(store)
    return store


def shard_contents(store: Store) -> dict[str, bytes]:
    """Every file in the folder of shards, hidden ones included."""
    return {path.name: path.read_bytes() for path in (store.folder / "shards").iterdir()}
