"""Writes down, as a store's manifest, what determines activations: model, source, layers and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from diffprobe.activations.sources import Source
from diffprobe.activations.store.manifest import Extra, Manifest
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError


def describe(
    backbone: Backbone,
    source: Source,
    layers: Sequence[Layer],
    steps: Sequence[int],
    dtype: str,
    images_per_shard: int,
    *,
    identified: bool,
) -> Manifest:
    """The manifest of an extraction.

    Args:
        identified: whether the model's weights are read and named by their fingerprints, which a store needs.

    Raises:
        UserError: steps that the source does not have, or an unknown dtype.
    """
    timesteps = source.timesteps(backbone)
    bad = [step for step in steps if step not in timesteps]
    if bad or not steps:
        raise UserError(f"steps {bad or 'none'}: choose from {min(timesteps)} to {max(timesteps)}")
    size = backbone.image_size
    extras = [Extra("noisy", backbone.latent_shape, every_step=True), Extra("image", (3, size, size))]
    if source.is_trajectory:
        extras.append(Extra("latents", backbone.latent_shape, every_step=True))
    return Manifest(
        model={"name": backbone.name, **(identity(backbone) if identified else {})},
        trajectory=source.description(backbone),
        images=source.records(),
        layers=list(layers),
        steps=list(steps),
        timesteps=[timesteps[step] for step in steps],
        dtype=dtype,
        images_per_shard=images_per_shard,
        extras=extras,
    )


def describe_replay(manifest: Manifest, called: Mapping[str, Any]) -> Manifest:
    """The manifest of what another denoiser makes of the same noisy latents.

    Args:
        called: what determines that denoiser, given ours, as JSON values: {'control': 'permuted', 'seed': 0}, say.
    """
    name = "-".join([manifest.model["name"], *map(str, called.values())])
    trajectory = {**manifest.trajectory, "replay_of": manifest.fingerprint}
    return replace(manifest, model={**manifest.model, **called, "name": name}, trajectory=trajectory, extras=[])


def describe_control_inputs(manifest: Manifest, layers: Sequence[Layer]) -> Manifest:
    """The manifest of what is kept beside the network's activations at the same steps, see `control_inputs`.

    Args:
        layers: the inputs as layers, from `control_layers`.
    """
    called = {"control": "-".join(layer.name for layer in layers)}
    return replace(describe_replay(manifest, called), layers=list(layers))


def manifest_folder(manifest: Manifest) -> str:
    """What a store of these activations is called: the model's name and the first digits of the fingerprint."""
    return folder_name(manifest.model["name"], manifest.fingerprint)


def folder_name(model: str, fingerprint: str) -> str:
    """A name that any file system takes, of a model and the first digits of a fingerprint."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in model)
    return f"{name}-{fingerprint[:12]}"


def identity(backbone: Backbone) -> dict[str, Any]:
    """The networks and tokenizers of a pipeline, its settings, and the precision it runs in."""
    return {
        **backbone.fingerprints,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "autocast": backbone.autocast,
    }
