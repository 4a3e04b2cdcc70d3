"""Real images as the denoiser sees them: clean latents with noise of given timesteps, one evaluation each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from diffprobe.backbone.capture import add_noise, capture, encode_prompts, evaluate, scale_input
from diffprobe.backbone.finite import at_step, check_finite, layer_values
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.samplers import check_betas
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.errors import UserError

NOISES = ("seeded", "off")


def evaluate_noised(
    backbone: Backbone,
    latents: Tensor,
    seeds: Sequence[int],
    timesteps: Sequence[float],
    layers: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    noise: str = "seeded",
    draws: int = 1,
    denoiser: nn.Module | None = None,
) -> Iterator[TrajectoryStep]:
    """Shows the denoiser noised images, and yields the activations at every timestep, in the order given.

    Each (image, timestep, draw) is evaluated once, without guidance, and only up to the last wanted layer. An image's
    noise is a function of its seed and the draw alone: the same at every timestep, in every batch, on every device.

    Args:
        latents: of clean images, [batch, channels, h, w], as `encode_images` gives them.
        seeds: one an image; `seed_of(name)` where images have names and no seeds.
        timesteps: numbers from 0 to the last one of training (999; 1000 in flow matching), whole or not, in any order.
        layers: full names of the wanted layers, at least one.
        prompts: one caption an image; None for empty ones.
        noise: 'seeded', or 'off': the clean latents as they are, which only timestep 0 stands for.
        draws: evaluations with different noise whose activations are averaged; the mean is float32.
        denoiser: in place of the backbone's: a permuted copy, say.

    Yields:
        `TrajectoryStep` with `index` the position in `timesteps`; `noisy` as the first draw has it (clean latents
        where noise is off); `latents` the clean latents, since no step is taken; `images` None.

    Raises:
        UserError: the arguments do not fit together, or one of them is impossible.
    """
    check_noise(backbone)
    names = checked_prompts(latents, prompts)
    if len(seeds) != len(latents):
        raise UserError(f"{len(seeds)} seeds for {len(latents)} images; give one seed per image")
    check_noising(backbone, timesteps, noise, draws)
    network = denoiser if denoiser is not None else backbone.denoiser
    capture(network, layers, stop=True)  # unknown layers are an error now, not at the first evaluation
    shown = [None] if noise == "off" else draw_noise(seeds, tuple(latents.shape[1:]), draws)
    return _evaluate(backbone, network, latents, shown, list(timesteps), list(layers), names)


def _evaluate(
    backbone: Backbone,
    denoiser: nn.Module,
    latents: Tensor,
    shown: Sequence[Tensor | None] | Tensor,
    timesteps: list[float],
    layers: list[str],
    prompts: list[str],
) -> Iterator[TrajectoryStep]:
    with torch.no_grad():
        conditions = encode_prompts(backbone, prompts, guided=False)
    clean = latents.to(backbone.device, backbone.dtype)

    @torch.no_grad()
    def compute_activations(index: int, timestep: float) -> TrajectoryStep:
        first: Tensor | None = None
        total: dict[str, Tensor] = {}
        at = torch.tensor(timestep, device=backbone.device)
        for noise in shown:
            noisy = clean if noise is None else add_noise(backbone, clean, noise.to(clean.device), timestep)
            inputs = clean if noise is None else scale_input(backbone, noisy, timestep)
            first = noisy if first is None else first
            with capture(denoiser, layers, guided=False, stop=True) as taken:
                evaluate(denoiser, inputs, at, conditions)
            _add(total, taken.activations, single=len(shown) == 1)
            check_finite(
                backbone,
                layer_values(taken.activations),
                images=len(clean),
                network=denoiser,
                when=at_step(None, timestep),
            )
        assert first is not None
        if len(shown) > 1:
            for values in total.values():
                values.div_(len(shown))
        return TrajectoryStep(index, float(timestep), first, clean, total, None)

    for index, timestep in enumerate(timesteps):
        yield compute_activations(index, timestep)


def _add(total: dict[str, Tensor], activations: dict[str, Tensor], *, single: bool) -> None:
    """Adds to running sums in float32; what is alone keeps its precision."""
    for name, values in activations.items():
        if single:
            total[name] = values
        elif name in total:
            total[name] += values
        else:
            total[name] = values.float()


def draw_noise(seeds: Sequence[int], shape: tuple[int, ...], draws: int = 1) -> Tensor:
    """Standard normal noise [draws, len(seeds), *shape] in float32, each image from its own generator on the CPU.

    The first draw is `initial_noise(seeds, shape)`; more draws leave the earlier ones as they are.
    """
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.stack(
        [torch.cat([torch.randn((1, *shape), generator=each) for each in generators]) for _ in range(draws)]
    )


def seed_of(name: str) -> int:
    """A seed from an image's name, the same on every machine. 32 bits: of more, torch's CPU generator makes no use."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")


def checked_prompts(latents: Tensor, prompts: Sequence[str] | None) -> list[str]:
    """One prompt an image, empty ones where none are given.

    Raises:
        UserError: latents are no batch of images, or there are not as many prompts as images.
    """
    if latents.ndim != 4 or not len(latents):
        raise UserError(f"latents of shape {list(latents.shape)}; they must be [images, channels, height, width]")
    if prompts is not None and len(prompts) != len(latents):
        raise UserError(f"{len(prompts)} prompts for {len(latents)} images; give one prompt per image, or none at all")
    return [""] * len(latents) if prompts is None else list(prompts)


def check_noise(backbone: Backbone) -> None:
    """Raises UserError if timesteps of training do not say how much noise there is in an image."""
    if not backbone.family.flow_matching:
        check_betas(backbone.pipeline.scheduler)


def check_noising(backbone: Backbone, timesteps: Sequence[float], noise: str = "seeded", draws: int = 1) -> None:
    """Raises UserError for timesteps that the model does not have, or that do not go with the noise and its draws."""
    if noise not in NOISES:
        raise UserError(f"no noise {noise!r}; use one of {', '.join(NOISES)}")
    if draws < 1 or (noise == "off" and draws > 1):
        raise UserError(f"{draws} draws of noise with noise {noise!r}; at least 1, and exactly 1 where noise is off")
    _check_timesteps(timesteps, _last_timestep(backbone), noise)


def _check_timesteps(timesteps: Sequence[float], last: int, noise: str) -> None:
    bad = [timestep for timestep in timesteps if not 0 <= timestep <= last]
    if bad or not timesteps:
        raise UserError(f"timesteps {bad or 'none'}: choose from 0 to {last}")
    if len(set(timesteps)) < len(timesteps):
        raise UserError(f"timesteps {list(timesteps)}: one is there twice; give each once")
    if noise == "off" and any(timesteps):
        raise UserError(
            f"timesteps {list(timesteps)} with noise off: a clean image belongs to timestep 0 alone; "
            "use timesteps=[0], or noise=seeded"
        )


def _last_timestep(backbone: Backbone) -> int:
    """Flow matching ends at pure noise, timestep 1000; a noise schedule has as many levels, counted from 0."""
    return backbone.pipeline.scheduler.config.num_train_timesteps - (not backbone.family.flow_matching)
