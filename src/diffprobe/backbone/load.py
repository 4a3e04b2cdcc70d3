"""Loads a diffusers Stable Diffusion pipeline, frozen, from the package, a local folder or the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Class of diffusers, and what Stable Diffusion sets where the pipeline's own scheduler has no such setting.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lms": ("LMSDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
}

Choice = TypeVar("Choice")


@dataclass
class Backbone:
    """A frozen pipeline: VAE, text encoder, scheduler and denoiser."""

    pipeline: StableDiffusionPipeline
    name: str
    guidance: float
    device: torch.device
    dtype: torch.dtype

    @property
    def denoiser(self) -> UNet2DConditionModel:
        return self.pipeline.unet

    @property
    def vae(self) -> AutoencoderKL:
        return self.pipeline.vae

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents."""
        config: Any = self.denoiser.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @property
    def image_size(self) -> int:
        """Height of the images in pixels (and their width, in every published model)."""
        return self.latent_shape[1] * self.pipeline.vae_scale_factor


def load_backbone(
    path: str,
    *,
    device: str = "auto",
    dtype: str = "float32",
    guidance: float = 7.5,
    scheduler: str = "lms",
    revision: str | None = None,
) -> Backbone:
    """Loads a pipeline for looking at, not for training: gradients off, eval mode, no safety checker.

    Args:
        path: 'pocket' (the built-in model), a folder written by `save_pretrained`, or a hub id 'owner/name'.
        device: 'auto' (cuda, else mps, else cpu) or a torch device.
        dtype: 'float32', 'float16' or 'bfloat16'; the weights are converted from whatever precision was saved.
        guidance: scale of classifier-free guidance; 1 or less means none.
        scheduler: 'lms', 'ddim', 'euler' or 'dpm++', with the noise schedule of the pipeline's own scheduler.
        revision: branch, tag or commit of a hub id.

    Raises:
        UserError: unknown or unusable path, device, dtype or scheduler.
    """
    place = _device(device)
    precision = _one_of(DTYPES, dtype, "dtype")
    sampler = _one_of(SCHEDULERS, scheduler, "scheduler")
    source = find_model(path)
    pipeline = _read(path, source, precision, revision)
    channels, latent_channels = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if channels != latent_channels:
        raise UserError(
            f"the U-Net of {path!r} takes {channels} channels and its VAE has {latent_channels}: "
            "an inpainting or upscaling model; use a text-to-image one"
        )
    pipeline.scheduler = _scheduler(pipeline.scheduler, *sampler)
    pipeline.to(place)  # already of the wanted precision
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    name = source.name if isinstance(source, Path) and path != "pocket" else path
    return Backbone(pipeline, name, guidance, place, precision)


def find_model(path: str) -> Path | str:
    """The folder that `path` names, or `path` itself if it reads like a hub id.

    Raises:
        UserError: it is neither; or it is 'pocket' and the weights of the built-in model are not there.
    """
    if path == "pocket":
        folder = Path(str(files("diffprobe") / "pocket" / "weights" / "pipeline"))
        if not (folder / "model_index.json").is_file():
            raise UserError(
                f"the pocket model has no weights in {folder}; train them: python -m diffprobe.pocket.training all"
            )
        return folder
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        return path
    raise UserError(f"no model {path!r}: not a folder here, nor 'pocket', nor a hub id of the form owner/name")


def _read(path: str, source: Path | str, dtype: torch.dtype, revision: str | None) -> StableDiffusionPipeline:
    local = isinstance(source, Path)
    if local and not (source / "model_index.json").is_file():
        raise UserError(f"{source} is not a pipeline folder: it has no model_index.json (see save_pretrained)")
    with quiet():
        from diffusers import StableDiffusionPipeline

        try:
            return StableDiffusionPipeline.from_pretrained(
                source,
                dtype=dtype,  # without it the text encoder of an fp16 folder stays fp16 beside an fp32 U-Net
                revision=revision,
                safety_checker=None,
                requires_safety_checker=False,
                feature_extractor=None,
                use_safetensors=True,
                local_files_only=local,
            )
        except Exception as error:  # whatever a broken folder or network makes several libraries raise
            raise (unreadable if local else unreachable)(path, error) from error


def unreadable(path: str, error: Exception) -> UserError:
    """The error for a model folder that exists and does not load."""
    return UserError(f"cannot load {path!r} as a Stable Diffusion pipeline in safetensors: {_one_line(error)}")


def unreachable(path: str, error: Exception) -> UserError:
    """The error for a hub id that cannot be had."""
    return UserError(
        f"cannot get {path!r}: no folder of that name here, and the Hugging Face hub or its local cache did not "
        f"give it. Name a local pipeline folder, or download it once where there is a network: "
        f"hf download {path} ({_one_line(error)})"
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"


def _scheduler(own: Any, class_name: str, defaults: Mapping[str, Any]) -> Any:
    """Another sampler with the pipeline's own noise schedule."""
    import diffusers

    config = {**defaults, **own.config}
    if type(own).__name__ != class_name:
        # Which timesteps to visit belongs to the sampler. Stable Diffusion 1.4's own PNDM, once saved again, would
        # otherwise impose its spacing on LMS, and the images would no longer be the papers'.
        config.pop("timestep_spacing", None)
    return getattr(diffusers, class_name).from_config(config)


def _device(wanted: str) -> torch.device:
    mps = torch.backends.mps.is_available()
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"no device {wanted!r}; use auto, cpu, cuda, cuda:N or mps") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}
    if (device.index or 0) >= count.get(device.type, 0):
        here = ", ".join(f"{kind} ({number})" for kind, number in count.items() if number)
        raise UserError(f"device {wanted!r} is not available; this machine has: {here}")
    return device


def _one_of(choices: Mapping[str, Choice], wanted: str, what: str) -> Choice:
    if wanted not in choices:
        raise UserError(f"no {what} {wanted!r}; use one of {', '.join(choices)}")
    return choices[wanted]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the loading bars and notices of diffusers and transformers off the terminal."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries: tuple[Any, ...] = (of_diffusers, of_transformers)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
