"""Control inputs, which probes of the denoiser must beat: latents, pixels and the VAE's attention, as if layers.

`latent` is the latents before the step. `pixels` and `decoder` are of the latents after the step: the decoded picture,
in one patch for each latent with every pixel a channel, and the output of the attention in the VAE's decoder. For
`Noised` images both are of the clean image, encoded and decoded: the same at every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from diffprobe.activations.extraction import Extraction, Log, StoreFolder, as_store_folder, fill
from diffprobe.activations.module import ActivationModule
from diffprobe.activations.store.manifest import describe_control_inputs
from diffprobe.backbone.capture import capture, decode_latents, encode_images
from diffprobe.backbone.finite import check_finite, in_parts
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.errors import UserError

if TYPE_CHECKING:
    import lightning

CONTROL_INPUTS = ("latent", "pixels", "decoder")
ATTENTION = "mid_block.attentions.0"  # of a VAE's decoder
LARGEST_GRID = 64  # patches of a picture in pixel space, where a latent is a pixel
PIXELS_AT_ONCE = 16 * 64**2  # decoded at once: larger pictures alone, since a VAE takes gigabytes for one of 512 pixels


def control_layers(backbone: Backbone, names: Sequence[str]) -> list[Layer]:
    """The control inputs called `names`, of `CONTROL_INPUTS`, as layers of the same names.

    Raises:
        UserError: an unknown name, or 'decoder' of a model whose VAE has no such attention, or that has no VAE.
    """
    return [_layer(backbone, name) for name in names]


def _layer(backbone: Backbone, name: str) -> Layer:
    channels, height, width = backbone.latent_shape
    if name == "pixels":
        patch, pixels = _patch(backbone), backbone.pixels_per_latent
        channels, height, width = 3 * patch**2, height * pixels // patch, width * pixels // patch
    elif name == "decoder":
        try:
            channels = backbone.vae.decoder.get_submodule(ATTENTION).to_out[0].out_features
        except AttributeError:
            lacking = "it has no VAE" if backbone.vae is None else f"its {type(backbone.vae).__name__} does without"
            raise UserError(
                f"control 'decoder' is the attention in a VAE's decoder ({ATTENTION}), which {backbone.name} lacks: "
                f"{lacking}; leave this control out"
            ) from None
    elif name != "latent":
        raise UserError(f"no control input {name!r}: choose from {', '.join(CONTROL_INPUTS)}")
    return Layer(name, "control", "control", channels, height, width)


def _patch(backbone: Backbone) -> int:
    """Height and width in pixels of a token of the picture: of a latent, or as little as `LARGEST_GRID` allows."""
    if backbone.vae is not None:
        return backbone.pixels_per_latent
    _, height, width = backbone.latent_shape
    common = math.gcd(height, width)
    sizes = (size for size in range(1, common) if common % size == 0 and max(height, width) <= size * LARGEST_GRID)
    return next(sizes, common)


def control_activations(backbone: Backbone, names: Sequence[str], noisy: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """The control inputs of one image at several steps, as activations: {name: [steps, channels, h, w]}.

    Small pictures are decoded together, `PIXELS_AT_ONCE` of them, whatever else is in the image's batch.

    Args:
        noisy, latents: before and after each step, [steps, channels, h, w], as in `TrajectoryStep`.

    Raises:
        NotFinite: with the place of the step as the image's.
    """
    _, height, width = backbone.latent_shape
    at_once = max(1, PIXELS_AT_ONCE // (height * width * backbone.pixels_per_latent**2))
    found = {"latent": noisy, **_decoded(backbone, names, latents, at_once)}
    return {name: found[name] for name in names}


def extract_control_inputs(
    backbone: Backbone,
    extraction: Extraction,
    names: Sequence[str],
    *,
    batch_size: int = 8,
    stores: StoreFolder | Path | None = None,
    trainer: lightning.Trainer | None = None,
    log: Log = lambda line: None,
) -> Extraction:
    """The control inputs of all images of an extraction at its steps, from its extras; no denoiser is run.

    Args:
        names: of `CONTROL_INPUTS`; the activations have layers of these names.
        batch_size, stores, trainer, log: as of `extract`.

    Raises:
        UserError: as `control_layers` and `extract`.
    """
    manifest = describe_control_inputs(extraction.manifest, control_layers(backbone, names))
    make = partial(
        ActivationModule,
        backbone,
        lambda batch: _steps(backbone, extraction, names, batch.rows),
        steps=len(manifest.steps),
    )
    load = extraction.source.batch
    found, extras, computed = fill(manifest, make, load, as_store_folder(stores), batch_size, trainer, log)
    return Extraction(extraction.source, found.select(names, extraction.activations.steps), extras, manifest, computed)


def _steps(
    backbone: Backbone, extraction: Extraction, names: Sequence[str], rows: list[int]
) -> Iterator[TrajectoryStep]:
    """The control inputs of some images at every step, as if they were activations."""
    manifest, extras = extraction.manifest, extraction.extras
    noisy = extras["noisy"][:, rows]
    if extraction.source.is_trajectory:
        decoded = (_decoded(backbone, names, latents) for latents in extras["latents"][:, rows])
    else:
        with torch.no_grad():
            clean = in_parts(partial(encode_images, backbone), extras["image"][rows])
        decoded = repeat(_decoded(backbone, names, torch.cat(clean)), len(noisy))
    for index, timestep, before, after in zip(manifest.steps, manifest.timesteps, noisy, decoded, strict=True):
        found = {"latent": before, **after}
        yield TrajectoryStep(index, timestep, before, before, {name: found[name] for name in names}, None)


@torch.no_grad()
def _decoded(backbone: Backbone, names: Sequence[str], latents: Tensor, at_once: int = 1) -> dict[str, Tensor]:
    """'pixels' and 'decoder', as far as they are among the names, of latents [rows, channels, h, w]."""
    wanted = [name for name in names if name != "latent"]
    if not wanted:
        return {}
    decode = partial(_decoded_pictures, backbone, wanted)
    found = in_parts(decode, latents.to(backbone.device, backbone.dtype), at_once)
    return {name: torch.cat([part[name] for part in found]) for name in wanted}


def _decoded_pictures(backbone: Backbone, names: Sequence[str], latents: Tensor) -> dict[str, Tensor]:
    """The same of a few latents, decoded once, and for 'decoder' alone only as far as the attention."""
    found: dict[str, Tensor] = {}
    if "decoder" in names:
        with capture(backbone.vae.decoder, [ATTENTION], guided=False, stop="pixels" not in names) as taken:
            found["pixels"] = decode_latents(backbone, latents)
        found["decoder"] = taken.activations[ATTENTION]
    else:
        found["pixels"] = decode_latents(backbone, latents)
    named = {f"the control input {name}": each for name, each in found.items()}
    check_finite(backbone, named, images=len(latents), network=backbone.vae)
    if "pixels" in found:
        found["pixels"] = pixel_unshuffle(found["pixels"], _patch(backbone))
    return found
