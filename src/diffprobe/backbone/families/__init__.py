"""The supported families of pipelines, by the class names in the configs of diffusers."""

from __future__ import annotations

from torch import nn

from diffprobe.backbone.families.base import Conditions, Family
from diffprobe.backbone.families.ddpm import Ddpm
from diffprobe.backbone.families.flux import Flux
from diffprobe.backbone.families.pixart import PixArt
from diffprobe.backbone.families.stable_diffusion import StableDiffusion, StableDiffusionXL
from diffprobe.backbone.families.stable_diffusion_3 import StableDiffusion3
from diffprobe.errors import UserError

__all__ = ["BY_DENOISER", "BY_PIPELINE", "CHOSEN", "Conditions", "Family", "family_of"]

_ALL: tuple[Family, ...] = (StableDiffusionXL(), StableDiffusion(), StableDiffusion3(), Flux(), PixArt(), Ddpm())

CHOSEN = "chosen_family"  # attribute of a denoiser and its copies

BY_PIPELINE: dict[str, Family] = {family.pipeline: family for family in _ALL}

# XL's U-Net is of the same class as Stable Diffusion's, whose `evaluate` runs both.
BY_DENOISER: dict[str, Family] = {denoiser: family for family in _ALL for denoiser in family.denoisers}


def family_of(denoiser: nn.Module) -> Family:
    """The family of a denoiser: the one given to `load_backbone`, or that of its class.

    Raises:
        UserError: a network of another class.
    """
    chosen = vars(denoiser).get(CHOSEN)
    if chosen is not None:
        return chosen
    name = type(denoiser).__name__
    if name not in BY_DENOISER:
        raise UserError(f"a {name} is no denoiser that is supported; those are {', '.join(BY_DENOISER)}")
    return BY_DENOISER[name]
