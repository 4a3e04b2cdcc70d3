"""The manifest of a store: model, images, layers and steps of its activations, and the fingerprint of all of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from diffprobe.activations.sources import Source
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError

FORMAT = "diffprobe-activations/1"
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint8": "U8"}  # what safetensors calls them
FLOATS = ("float32", "float16", "bfloat16")
LAYER_FIELDS = ("name", "channels", "height", "width")  # all of a layer that its values depend on
PACKAGES = ("diffprobe", "torch", "diffusers", "transformers")


def library_versions() -> dict[str, str | None]:
    """The installed versions of what computes activations."""

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: installed(name) for name in PACKAGES}


@dataclass(frozen=True)
class Extra:
    """What is stored of every image beside activations: the image, or its latents at every step.

    `shape` is that of one image's tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    every_step: bool = False


@dataclass(frozen=True)
class Manifest:
    """What determines the activations of a store, and how it is cut into shards.

    Attributes:
        model: `name`, and fingerprints of its parts. JSON values, as in the next two.
        trajectory: `kind` ('generation', 'noised', ...) and its parameters: sampler, guidance, half, ...
        images: one mapping an image, in row order: its `id`, and what makes it, such as `prompt` and `seed`.
        layers, steps, timesteps: as in `Activations`.
        dtype: 'float16', 'bfloat16' or 'float32'.
        images_per_shard: how many consecutive images share a file.
        versions, created: of the libraries, and when; recorded, not part of the fingerprint.

    Raises UserError for no images, a repeated id, no layers or steps, an unknown dtype, or a shard size below one;
    ValueError for lists that do not fit together.
    """

    model: Mapping[str, Any]
    trajectory: Mapping[str, Any]
    images: Sequence[Mapping[str, Any]]
    layers: Sequence[Layer]
    steps: Sequence[int]
    timesteps: Sequence[float]
    dtype: str
    images_per_shard: int
    extras: Sequence[Extra] = ()
    versions: Mapping[str, str | None] = field(default_factory=library_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        if not self.images or not self.layers or not self.steps:
            raise UserError("a store needs at least one image, one layer and one step")
        name, times = Counter(self.ids).most_common(1)[0]
        if times > 1:
            raise UserError(f"image id {name!r} occurs twice; rows are told apart by their id")
        for dtype, choices in ((self.dtype, FLOATS), *((extra.dtype, tuple(CODES)) for extra in self.extras)):
            if dtype not in choices:
                raise UserError(f"cannot store numbers as {dtype!r}; use one of {', '.join(choices)}")
        if self.images_per_shard < 1:
            raise UserError(f"{self.images_per_shard} images per shard; use at least 1")
        if len(self.steps) != len(self.timesteps):
            raise ValueError(f"{len(self.steps)} steps but {len(self.timesteps)} timesteps")

    @cached_property
    def ids(self) -> list[str]:
        """Image ids in row order."""
        return [image["id"] for image in self.images]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that determines the stored bytes, as JSON values: no name of the model, no versions, no shard size."""
        identity = {
            "format": FORMAT,
            "model": {key: value for key, value in self.model.items() if key != "name"},
            "trajectory": dict(self.trajectory),
            "images": [dict(image) for image in self.images],
            "layers": [{key: getattr(layer, key) for key in LAYER_FIELDS} for layer in self.layers],
            "steps": list(self.steps),
            "timesteps": [float(timestep) for timestep in self.timesteps],
            "dtype": self.dtype,
            "extras": [asdict(extra) for extra in self.extras],
        }
        return json.loads(_canonical(identity))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the identity, in hexadecimal."""
        return hashlib.sha256(_canonical(self.identity).encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        written = {
            **self.identity,
            "model": dict(self.model),
            "layers": [asdict(layer) for layer in self.layers],
            "images_per_shard": self.images_per_shard,
            "versions": dict(self.versions),
            "created": self.created,
            "fingerprint": self.fingerprint,
        }
        return json.dumps(written, indent=1, allow_nan=False, default=dict) + "\n"


def manifest_from_json(text: str, source: str) -> Manifest:
    """The manifest that `to_json` wrote; `source` is named in errors.

    Raises:
        UserError: not a manifest, one of another format, or one that was edited.
    """
    try:
        fields = json.loads(text)
        form, fingerprint = fields.pop("format"), fields.pop("fingerprint")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{source} is not the manifest of a store of activations: {error}") from error
    if form != FORMAT:
        raise UserError(f"{source} has format {form!r}; this version of diffprobe reads {FORMAT!r}")
    try:
        fields["layers"] = [Layer(**layer) for layer in fields["layers"]]
        fields["extras"] = [Extra(**{**extra, "shape": tuple(extra["shape"])}) for extra in fields["extras"]]
        manifest = Manifest(**fields)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{source} is not the manifest of a store of activations: {error}") from error
    if manifest.fingerprint != fingerprint:
        raise UserError(f"{source} was changed after it was written: its contents disagree with its fingerprint")
    return manifest


def differences(found: Manifest, wanted: Manifest) -> list[str]:
    """One phrase for each part of the identity that differs; empty for the same activations."""
    pairs = [(key, found.identity[key], wanted.identity[key]) for key in wanted.identity]
    return [_difference(key, there, here) for key, there, here in pairs if there != here]


def _difference(key: str, there: Any, here: Any) -> str:
    if key in ("images", "layers"):
        if len(there) != len(here):
            return f"{key}: {len(there)} there, {len(here)} here"
        differing = [pair for pair in zip(there, here, strict=True) if pair[0] != pair[1]]
        first, instead = map(_short, differing[0])
        return f"{key}: {len(differing)} of {len(here)} differ, the first is {first} there, {instead} here"
    if isinstance(there, dict) and isinstance(here, dict):
        names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
        return "; ".join(
            f"{key}.{name} is {_short(there.get(name))} there, {_short(here.get(name))} here" for name in names
        )
    return f"{key} is {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict)


def version_notes(found: Manifest) -> list[str]:
    """One sentence for each library that is installed in another version than made the store."""
    return [
        f"made with {name} {found.versions.get(name)}, here is {installed}: the last bits may differ"
        for name, installed in library_versions().items()
        if found.versions.get(name) != installed
    ]


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
        identified: whether the model's weights are read for its fingerprints, which a store needs.

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


def describe_replay(manifest: Manifest, control: Mapping[str, Any]) -> Manifest:
    """The manifest of another denoiser's activations for the same noisy latents.

    Args:
        control: what determines that denoiser, given ours, as JSON values: {'control': 'permuted', 'seed': 0}, say.
    """
    name = "-".join([manifest.model["name"], *map(str, control.values())])
    trajectory = {**manifest.trajectory, "replay_of": manifest.fingerprint}
    return replace(manifest, model={**manifest.model, **control, "name": name}, trajectory=trajectory, extras=[])


def describe_control_inputs(manifest: Manifest, layers: Sequence[Layer]) -> Manifest:
    """The manifest of control inputs at the same steps, given as layers (see `control_layers`)."""
    control = {"control": "-".join(layer.name for layer in layers)}
    return replace(describe_replay(manifest, control), layers=list(layers))


def manifest_folder(manifest: Manifest) -> str:
    """The name of a store of these activations."""
    return folder_name(manifest.model["name"], manifest.fingerprint)


def folder_name(model: str, fingerprint: str) -> str:
    """A name that any file system takes: of the model, and the first digits of a fingerprint."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in model)
    return f"{name}-{fingerprint[:12]}"


def identity(backbone: Backbone) -> dict[str, Any]:
    """The fingerprints of a pipeline's networks, tokenizers and settings, and its precision."""
    dtype = str(backbone.dtype).removeprefix("torch.")
    return {**backbone.fingerprints, "dtype": dtype, "autocast": backbone.autocast}
