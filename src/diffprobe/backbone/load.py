"""Loads a pipeline of diffusers, frozen, from the package, a local folder, one checkpoint file or the hub.

Networks that are looked at and never trained.

What makes a denoiser faster without making it another network: autocast, memory format, compiled parts.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
from torch import nn

from diffprobe.backbone.families import BY_PIPELINE, CHOSEN, Family
from diffprobe.backbone.model_folder import (
    fetch_configs,
    find_model,
    fingerprint_of,
    fingerprint_of_tokenizer,
    quiet,
    read_config,
    unreachable,
    unreadable,
)
from diffprobe.backbone.parts import check_tokenizers, read_networks
from diffprobe.backbone.samplers import OWN_SCHEDULER, SCHEDULERS, sampler_for
from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Folder, Number, Text

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class FrozenNetworks(nn.ModuleDict):
    """Networks by name that move and are placed together, and that nothing trains or saves.

    As a part of any module they stay in eval mode whatever `train` says, and its `state_dict`, and with it every
    checkpoint, leaves them out. Gradients are off.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__(networks)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenNetworks:
        """Stays in eval mode: `Trainer.fit` calls this for all parts of what it trains."""
        return super().train(False)

    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Adds nothing to `destination`, the dict of the module around."""
        return {} if destination is None else destination


AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16}

# Compiled one by one, with hooks staying outside: in a whole network compiled at once, a hook that is added later is
# not seen, and one that changes between forwards has all of it compiled again.
_COMPILED = re.compile(r"\.resnets\.\d+$|\.ff$|\.ff_context$")
_MARK = "diffprobe_compiled"


def speed_up(denoiser: nn.Module, autocast: str | None, channels_last: bool, compiled: bool) -> None:
    """Changes how a denoiser computes, in place and by methods, so that copies compute with their own weights.

    Args:
        autocast: 'float16' or 'bfloat16' for matrix products and convolutions while the rest keeps the weights'
            precision; None for none.
        channels_last: memory format of convolution weights; faster on GPUs in half precision.
        compiled: residual blocks and feed-forwards through torch.compile. Layers inside these cannot be captured then.

    Raises:
        UserError: an unknown autocast precision.
    """
    if autocast is not None and autocast not in AUTOCAST:
        raise UserError(f"no autocast precision {autocast!r}; use null, {' or '.join(AUTOCAST)}")
    if channels_last:
        denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        for name, module in denoiser.named_modules():
            if _COMPILED.search(name):
                module.forward = MethodType(torch.compile(type(module).forward), module)
                setattr(module, _MARK, True)
    if autocast is not None:
        denoiser.forward = MethodType(_autocast(type(denoiser).forward, AUTOCAST[autocast]), denoiser)


def inside_compiled(modules: dict[str, nn.Module], name: str) -> str | None:
    """The compiled module around a layer, where hooks would not run; None if there is none."""
    parts = name.split(".")
    around = (".".join(parts[:length]) for length in range(1, len(parts)))
    return next((outer for outer in around if getattr(modules[outer], _MARK, False)), None)


def _autocast(forward: Any, dtype: torch.dtype) -> Any:
    @functools.wraps(forward)
    def cast(network: nn.Module, *arguments: Any, **named: Any) -> Any:
        with torch.autocast(next(network.parameters()).device.type, dtype):
            return forward(network, *arguments, **named)

    return cast


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Chosen = TypeVar("Chosen")


@dataclass
class Backbone:
    """A frozen pipeline, its parts as its family has them: denoiser and scheduler, and most often VAE and text encoder.

    Attributes:
        family: what this kind of pipeline does its own way; call it through `calls` and `trajectory`.
        guidance: scale of classifier-free guidance, or the guidance that the denoiser is told as a number (FLUX).
    """

    pipeline: Any
    family: Family
    name: str
    guidance: float
    autocast: str | None = None

    @cached_property
    def networks(self) -> FrozenNetworks:
        """All networks of the pipeline by name: a module that can be a part of others."""
        parts = self.pipeline.components.items()
        return FrozenNetworks({name: part for name, part in parts if isinstance(part, nn.Module)})

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoiser's weights."""
        return next(self.denoiser.parameters()).dtype

    def to(self, device: torch.device | str) -> Backbone:
        """Moves all networks."""
        self.networks.to(device)
        return self

    @property
    def denoiser(self) -> Any:
        """The U-Net or transformer."""
        return getattr(self.pipeline, self.family.denoiser_part)

    @cached_property
    def fingerprints(self) -> dict[str, Any]:
        """What tells this pipeline's networks and tokenizers from any others, and its settings beside them, by name."""
        found: dict[str, Any] = {}
        for name, part in self.pipeline.components.items():
            if isinstance(part, nn.Module):
                found[name] = fingerprint_of(part)
            elif hasattr(part, "get_vocab"):
                found[name] = fingerprint_of_tokenizer(part)
        kind = type(self.family)
        if self.family not in BY_PIPELINE.values():  # which may run the same networks otherwise
            found["family"] = f"{kind.__module__}.{kind.__qualname__}"
        return found | {"settings": self.settings}

    @property
    def settings(self) -> dict[str, Any]:
        """The pipeline's settings beside its parts: what SDXL puts in place of an empty prompt, for one."""
        config = self.pipeline.config
        aside = {*self.pipeline.components, "requires_safety_checker"}
        return {key: value for key, value in config.items() if key not in aside and not key.startswith("_")}

    @property
    def vae(self) -> Any:
        """The VAE; None in pixel space."""
        return getattr(self.pipeline, "vae", None)

    @property
    def guided(self) -> bool:
        """Whether the denoiser runs on a guidance batch, without and with prompt."""
        return self.family.guided(self.guidance)

    def guidance_matters(self, prompts: Sequence[str]) -> bool:
        """Whether guidance makes a difference to an image of these prompts: mostly not to those of empty ones."""
        return self.guided and (any(prompts) or not self.family.unconditional_is_empty_prompt(self.settings))

    def guidance_for(self, guided: bool) -> float | None:
        """The guidance that has a say in an evaluation, on a guidance batch or not; None where it has none."""
        return self.guidance if guided or self.family.embeds_guidance(self.denoiser.config) else None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents."""
        return self.family.latent_shape(self.denoiser.config)

    @property
    def image_size(self) -> int:
        """Height of the images in pixels (and their width, in every published model)."""
        return self.latent_shape[1] * self.pixels_per_latent

    @property
    def pixels_per_latent(self) -> int:
        """Height and width in pixels of what one latent stands for."""
        return 1 if self.vae is None else self.pipeline.vae_scale_factor


def load_backbone(
    path: Folder,
    *,
    device: Annotated[str, Text()] = "auto",
    dtype: Annotated[str, Choice(*DTYPES)] = "float32",
    guidance: Annotated[float, Number(0, 100)] = 7.5,
    scheduler: Annotated[str, Choice(*SCHEDULERS, OWN_SCHEDULER)] = "lms",
    revision: Annotated[str, Text()] | None = None,
    size: Annotated[int, Number(8, 8192)] | None = None,
    tokenizer: Folder | None = None,
    autocast: Annotated[str, Choice(*AUTOCAST)] | None = None,
    channels_last: bool = False,
    compile: bool = False,
    family: Family | None = None,
) -> Backbone:
    """Loads a pipeline for looking at, not for training: gradients off, eval mode, no safety checker.

    Args:
        path: 'pocket' (the built-in model), a folder written by `save_pretrained`, a hub id 'owner/name', or a
            Stable Diffusion 1.x checkpoint, *.safetensors or *.ckpt. The class in the pipeline's model_index.json
            says of which family it is.
        device: 'auto' (cuda, else mps, else cpu; of several GPUs the one of this process) or a torch device.
        dtype: 'float32', 'float16' or 'bfloat16'; the weights are converted from whatever precision was saved.
        guidance: scale of classifier-free guidance; 1 or less means none. FLUX is told the number; DDPM has none.
        scheduler: 'lms', 'ddim', 'euler' or 'dpm++', with the noise schedule of the pipeline's own scheduler and
            nothing else of it (see `sampler_for`); or 'own', that scheduler itself: the only choice for flow matching
            (Stable Diffusion 3, FLUX).
        revision: branch, tag or commit of a hub id.
        size: height and width of the images in pixels; None for what the model was made for.
        tokenizer: folder of CLIP's tokenizer, for a checkpoint file, which has none.
        autocast, channels_last, compile: of the denoiser, see `speed_up`.
        family: what this kind of pipeline does its own way; None for the one that the model's index names.

    Raises:
        UserError: unknown or unusable path, device, dtype, scheduler, size or tokenizer, or a noise schedule that the
            scheduler cannot follow.
    """
    place = chosen_device(device)
    precision = _one_of(DTYPES, dtype, "dtype")
    _one_of({**SCHEDULERS, OWN_SCHEDULER: None}, scheduler, "scheduler")
    source = find_model(path)
    own = family is not None
    if family is None:
        family = _family(path, source, revision)
    if family.flow_matching and scheduler != OWN_SCHEDULER:
        raise UserError(
            f"{path!r} is a flow-matching model, which {scheduler} cannot sample; use scheduler={OWN_SCHEDULER}"
        )
    pipeline = _read(path, source, family, precision, revision, tokenizer)
    if scheduler != OWN_SCHEDULER:
        pipeline.scheduler = sampler_for(pipeline.scheduler, scheduler)
    if family.vae_needs_float32 and precision == torch.float16:
        pipeline.vae.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    name = source.name if isinstance(source, Path) and path != "pocket" else path
    backbone = Backbone(pipeline, family, name, guidance, autocast).to(place)  # already of the wanted precision
    if own:
        setattr(backbone.denoiser, CHOSEN, family)
    _check_channels(backbone, path)
    if size is not None:
        _resize(backbone, size)
    speed_up(backbone.denoiser, autocast, channels_last, compile)
    return backbone


def _check_channels(backbone: Backbone, path: str) -> None:
    channels = backbone.latent_shape[0]
    made = channels if backbone.vae is None else backbone.vae.config.latent_channels
    if channels != made:
        raise UserError(
            f"the denoiser of {path!r} takes {channels} channels and its VAE has {made}: "
            "an inpainting or upscaling model; use a text-to-image one"
        )


def _resize(backbone: Backbone, size: int) -> None:
    """Another size of images, written into the denoiser's config, where everything reads it."""
    step = backbone.pixels_per_latent * backbone.family.size_step(backbone.denoiser.config)
    if size < 1 or size % step:
        raise UserError(f"size {size}: images of {backbone.name} must be a multiple of {step} pixels high and wide")
    backbone.denoiser.register_to_config(sample_size=size // backbone.pixels_per_latent)


def _family(path: str, source: Path | str, revision: str | None) -> Family:
    """The family that a model's index names; a checkpoint file is of Stable Diffusion's."""
    if isinstance(source, Path) and source.is_file():
        return BY_PIPELINE["StableDiffusionPipeline"]
    folder = source if isinstance(source, Path) else fetch_configs(source, revision)
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is not a pipeline folder: it has no model_index.json (see save_pretrained)")
    name = read_config(folder / "model_index.json").get("_class_name")
    if not isinstance(name, str) or name not in BY_PIPELINE:
        raise UserError(f"{path!r} is a {name}, which is not supported; these are: {', '.join(BY_PIPELINE)}")
    return BY_PIPELINE[name]


def _read(
    path: str, source: Path | str, family: Family, dtype: torch.dtype, revision: str | None, tokenizer: str | None
) -> DiffusionPipeline:
    local = isinstance(source, Path)
    with quiet():
        import diffusers

        if local and source.is_file():
            from diffprobe.backbone.single_file import read_single_file

            return read_single_file(source, dtype, tokenizer)
        if tokenizer is not None:
            raise UserError(f"{path!r} has a tokenizer of its own; leave out tokenizer={tokenizer}")
        kind: Any = getattr(diffusers, family.pipeline)
        options = {"use_safetensors": True, **family.load_options}
        try:
            folder = source if local else Path(kind.download(source, revision=revision, **options))
        except Exception as error:  # whatever the hub's libraries raise
            raise unreachable(path, error) from error
        wanted = signature(kind.__init__).parameters.keys() - family.load_options.keys()
        networks = read_networks(folder, wanted, dtype)
        try:
            pipeline = kind.from_pretrained(folder, local_files_only=True, **networks, **options)
        except Exception as error:  # whatever a broken folder makes several libraries raise
            raise unreadable(path, error) from error
        check_tokenizers(pipeline, str(folder))
        return pipeline


def chosen_device(wanted: str) -> torch.device:
    """The device called `wanted`, or the best there is for 'auto'. Raises UserError for one that is not there."""
    mps = torch.backends.mps.is_available()
    if wanted == "auto" and torch.cuda.is_available():
        return torch.device("cuda", _local_rank() % torch.cuda.device_count())
    if wanted == "auto":
        return torch.device("mps" if mps else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"no device {wanted!r}; use auto, cpu, cuda, cuda:N or mps") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}
    if (device.index or 0) >= count.get(device.type, 0):
        here = ", ".join(f"{kind} ({number})" for kind, number in count.items() if number)
        raise UserError(f"device {wanted!r} is not available; this machine has: {here}")
    return device


def _local_rank() -> int:
    """Which of a machine's processes this is: Lightning's, or torchrun's, or SLURM's."""
    return next((int(os.environ[name]) for name in ("LOCAL_RANK", "SLURM_LOCALID") if name in os.environ), 0)


def _one_of(choices: Mapping[str, Chosen], wanted: str, what: str) -> Chosen:
    if wanted not in choices:
        raise UserError(f"no {what} {wanted!r}; use one of {', '.join(choices)}")
    return choices[wanted]
