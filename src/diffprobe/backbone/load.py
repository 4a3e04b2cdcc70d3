"""Loads a pipeline of diffusers, frozen, from the package, a folder, a checkpoint file or the hub."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import nn

from diffprobe.backbone.families import BY_DENOISER, BY_PIPELINE, CHOSEN, Family
from diffprobe.backbone.layers import COMPILED
from diffprobe.backbone.model_folder import (
    DENOISER_CONFIGS,
    SD14,
    check_tokenizer,
    download_configs,
    find_model,
    fingerprint_of,
    fingerprint_of_tokenizer,
    quiet,
    read_config,
    read_networks,
    unreachable,
    unreadable,
)
from diffprobe.backbone.samplers import OWN_SCHEDULER, SCHEDULERS, sampler_for
from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Folder, Number, Text

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AUTOCAST = ("float16", "bfloat16")
_COMPILED_MARK = "diffprobe_compiled"


class FrozenNetworks(nn.ModuleDict):
    """Networks by name that move together, stay in eval mode without gradients, and are in no checkpoint."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__(networks)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenNetworks:
        """Stays in eval mode: `Trainer.fit` calls this for all parts of what it trains."""
        return super().train(False)

    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Adds nothing to `destination`, the dictionary of the module around."""
        return {} if destination is None else destination


@dataclass
class Backbone:
    """A frozen pipeline: denoiser and scheduler, and most often VAE and text encoder.

    Attributes:
        family: what this kind of pipeline does in its own way.
        guidance: scale of classifier-free guidance, or the guidance that is an input of the denoiser (FLUX).
    """

    pipeline: Any
    family: Family
    name: str
    guidance: float
    autocast: str | None = None

    @cached_property
    def networks(self) -> FrozenNetworks:
        """All networks of the pipeline by name."""
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
        """Fingerprints of networks and tokenizers by name, the pipeline's settings, and a family that was given."""
        fingerprints: dict[str, Any] = {}
        for name, part in self.pipeline.components.items():
            if isinstance(part, nn.Module):
                fingerprints[name] = fingerprint_of(part)
            elif hasattr(part, "get_vocab"):
                fingerprints[name] = fingerprint_of_tokenizer(part)
        if self.family not in BY_PIPELINE.values():
            kind = type(self.family)
            fingerprints["family"] = f"{kind.__module__}.{kind.__qualname__}"
        return fingerprints | {"settings": self.settings}

    @property
    def settings(self) -> dict[str, Any]:
        """The pipeline's settings beside its parts, such as what SDXL puts in place of an empty prompt."""
        ignored = {*self.pipeline.components, "requires_safety_checker"}
        config = self.pipeline.config.items()
        return {key: value for key, value in config if key not in ignored and not key.startswith("_")}

    @property
    def vae(self) -> Any:
        """The VAE; None in pixel space."""
        return getattr(self.pipeline, "vae", None)

    @property
    def guided(self) -> bool:
        """Whether the denoiser runs on a guidance batch, without and with prompt."""
        return self.family.guided(self.guidance)

    def guidance_matters(self, prompts: Sequence[str]) -> bool:
        """Whether guidance changes an image of these prompts: mostly not if they are empty."""
        return self.guided and (any(prompts) or not self.family.unconditional_is_empty_prompt(self.settings))

    def guidance_for(self, guided: bool) -> float | None:
        """The guidance of an evaluation, on a guidance batch or not; None where it has no influence."""
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
        """Height and width in pixels of one latent."""
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
    """Loads a pipeline for inference: gradients off, eval mode, no safety checker.

    Args:
        path: 'pocket' (the built-in model), a folder written by `save_pretrained`, a hub id 'owner/name', or a
            Stable Diffusion 1.x checkpoint, *.safetensors or *.ckpt.
        device: 'auto' (cuda, else mps, else cpu; of several GPUs the one of this process) or a torch device.
        dtype: 'float32', 'float16' or 'bfloat16', whatever precision was saved.
        guidance: scale of classifier-free guidance; 1 or less means none. An input of FLUX; DDPM has none.
        scheduler: 'lms', 'ddim', 'euler' or 'dpm++', with the noise schedule of the pipeline's own scheduler (see
            `sampler_for`); or 'own', that scheduler itself: the only choice for flow matching.
        revision: branch, tag or commit of a hub id.
        size: height and width of the images in pixels; None for what the model was made for.
        tokenizer: folder of CLIP's tokenizer, for a checkpoint file, which has none.
        autocast: precision of matrix products and convolutions, while the rest keeps `dtype`.
        channels_last: memory format of convolution weights; faster on GPUs in half precision.
        compile: residual blocks and feed-forwards through torch.compile. Layers inside them cannot be captured.
        family: of the pipeline; None for the one of its class in model_index.json.

    Raises:
        UserError: unknown or unusable path, device, dtype, scheduler, size, tokenizer or autocast, or a noise schedule
            that the scheduler cannot follow.
    """
    place = chosen_device(device)
    for what, choices, wanted in (
        ("dtype", DTYPES, dtype),
        ("scheduler", (*SCHEDULERS, OWN_SCHEDULER), scheduler),
        ("autocast precision", (*AUTOCAST, None), autocast),
    ):
        if wanted not in choices:
            known = ", ".join(choice or "null" for choice in choices)
            raise UserError(f"no {what} {wanted!r}; use one of {known}")
    source = find_model(path)
    chosen = family or _family(path, source, revision)
    if chosen.flow_matching and scheduler != OWN_SCHEDULER:
        raise UserError(
            f"{path!r} is a flow-matching model, which {scheduler} cannot sample; use scheduler={OWN_SCHEDULER}"
        )
    pipeline = _read(path, source, chosen, DTYPES[dtype], revision, tokenizer)
    if scheduler != OWN_SCHEDULER:
        pipeline.scheduler = sampler_for(pipeline.scheduler, scheduler)
    if chosen.vae_needs_float32 and dtype == "float16":
        pipeline.vae.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    name = source.name if isinstance(source, Path) and path != "pocket" else path
    backbone = Backbone(pipeline, chosen, name, guidance, autocast).to(place)
    if family is not None:
        setattr(backbone.denoiser, CHOSEN, family)
    channels = backbone.latent_shape[0]
    made = channels if backbone.vae is None else backbone.vae.config.latent_channels
    if channels != made:
        raise UserError(
            f"the denoiser of {path!r} takes {channels} channels and its VAE has {made}: "
            "an inpainting or upscaling model; use a text-to-image one"
        )
    if size is not None:
        step = backbone.pixels_per_latent * chosen.size_step(backbone.denoiser.config)
        if size < 1 or size % step:
            raise UserError(f"size {size}: images of {name} must be a multiple of {step} pixels high and wide")
        backbone.denoiser.register_to_config(sample_size=size // backbone.pixels_per_latent)
    _speed_up(backbone.denoiser, autocast, channels_last, compile)
    return backbone


def _family(path: str, source: Path | str, revision: str | None) -> Family:
    """The family of the class in a model's index; a checkpoint file is of Stable Diffusion's."""
    if isinstance(source, Path) and source.is_file():
        return BY_PIPELINE["StableDiffusionPipeline"]
    folder = source if isinstance(source, Path) else download_configs(source, revision)
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
    for suffix in ("", "_2", "_3"):
        words, encoder = (getattr(pipeline, name + suffix, None) for name in ("tokenizer", "text_encoder"))
        if encoder is not None and words is None:
            raise UserError(f"{folder} has a text_encoder{suffix} and no tokenizer{suffix}; get the model again")
        if encoder is not None:
            check_tokenizer(f"{folder}: tokenizer{suffix}", words, encoder.config)
    return pipeline


def _speed_up(denoiser: nn.Module, autocast: str | None, channels_last: bool, compiled: bool) -> None:
    """Changes how a denoiser computes, in place and by methods, so that copies of it compute with their own weights."""
    if channels_last:
        denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        for name, module in denoiser.named_modules():
            if COMPILED.search(name):
                module.forward = MethodType(torch.compile(type(module).forward), module)
                setattr(module, _COMPILED_MARK, True)
    if autocast is not None:
        forward: Any = type(denoiser).forward

        @functools.wraps(forward)
        def cast(network: nn.Module, *arguments: Any, **named: Any) -> Any:
            with torch.autocast(next(network.parameters()).device.type, DTYPES[autocast]):
                return forward(network, *arguments, **named)

        denoiser.forward = MethodType(cast, denoiser)


def is_compiled(module: nn.Module) -> bool:
    """Whether `load_backbone` has compiled a module, so that hooks inside it do not run."""
    return hasattr(module, _COMPILED_MARK)


def denoiser_without_weights(path: str) -> Any:
    """The denoiser of a model on the meta device, from its config alone.

    Args:
        path: as of `load_backbone`, a denoiser's folder, or 'sd14', whose config comes with the package.

    Raises:
        UserError: no such model, or its config is not of a supported denoiser.
    """
    source = SD14 if path == "sd14" else find_model(path)
    if isinstance(source, Path) and source.is_file():
        source = SD14
    folder = source if isinstance(source, Path) else download_configs(source)
    file = next((folder / place for place in DENOISER_CONFIGS if (folder / place).is_file()), None)
    if file is None:
        raise UserError(f"{folder} has none of {', '.join(DENOISER_CONFIGS)}; name a pipeline folder or a denoiser's")
    config = read_config(file)
    name = config.get("_class_name")
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single":
        name = "PixArtTransformer2DModel"  # its class had this name when PixArt was published
    if name not in BY_DENOISER:
        raise UserError(f"the denoiser of {path!r} is a {name}, not one of {', '.join(BY_DENOISER)}")
    with quiet(), torch.device("meta"):
        import diffusers

        try:
            return getattr(diffusers, name).from_config(config)
        except Exception as error:  # a config of the right class with impossible values
            raise unreadable(path, error) from error


def chosen_device(wanted: str) -> torch.device:
    """The device called `wanted`, or the best there is for 'auto'. Raises UserError for one that is not there."""
    mps = torch.backends.mps.is_available()
    if wanted == "auto" and torch.cuda.is_available():
        # Which of the machine's processes this is, set by Lightning, torchrun or SLURM.
        ranks = [os.environ[name] for name in ("LOCAL_RANK", "SLURM_LOCALID") if name in os.environ]
        return torch.device("cuda", int([*ranks, 0][0]) % torch.cuda.device_count())
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
