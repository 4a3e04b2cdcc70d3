"""Checks once that a model here is what it should be: python -m diffprobe.backbone.certify sd14 [--dtype float16]

Compares checksums, tokens, noise, the sampler's steps, layers and sizes with what is publicly known of Stable
Diffusion. Shows on this machine that images are those of the plain pipeline, that activations are of the half with
prompt, and what an image costs. Takes minutes on a GPU, and long on a CPU if the model is of full size. Prints a table,
and writes it as certificates/NAME-FINGERPRINT.json; a run of the same model copies that into its folder.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffprobe.backbone import published
from diffprobe.backbone.capture import decode_latents, encode_images
from diffprobe.backbone.certificate import Check, write_certificate
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.backbone.model_folder import find_model, quiet
from diffprobe.backbone.samplers import SCHEDULERS
from diffprobe.backbone.trajectory import fresh_scheduler, generate, normal_noise
from diffprobe.errors import UserError, one_line
from diffprobe.ranges import typed_path
from diffprobe.signals import run_command
from diffprobe.terminal import module_command, plain_console

SD14 = "CompVis/stable-diffusion-v1-4"
PROMPTS = tuple(published.PROMPT_TOKENS)
PSNR = 25.0  # dB, of a picture through the VAE and back; published VAEs of Stable Diffusion have more
LEAST = 1e-4  # by which two prompts' activations differ at least, as a share of the largest
SAME_IMAGE = 2 / 255  # of the largest difference: the rounding of half precision
WIDTH = 120  # of the table where it is no terminal's
STUDY = 617  # images of the papers' list
PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


def certify(backbone: Backbone, path: str, *, steps: int = published.LMS_STEPS) -> list[Check]:
    """All checks of a loaded model that `path` names; `steps` of the images that are made. A check that fails with an
    error is one that did not pass."""
    checks: dict[str, Callable[[], list[Check]]] = {
        "weights": partial(check_weights, path),
        "sizes": partial(check_sizes, backbone),
        "tokens": partial(check_tokens, backbone),
        "noise": check_noise,
        "sampler": partial(check_sampler, backbone),
        "layers": partial(check_layers, backbone),
        "VAE": partial(check_round_trip, backbone),
        "halves": partial(check_halves, backbone, steps),
        "image": partial(check_image, backbone, steps),
    }
    found: list[Check] = []
    with quiet():  # the prompts are longer than some small models take
        for what, check in checks.items():
            try:
                found += check()
            except (UserError, RuntimeError) as error:  # RuntimeError: no memory left, or a device lacks an operation
                found.append(Check(what, False, one_line(error), "try another dtype or device"))
    return found


def check_weights(path: str) -> list[Check]:
    """The SHA-256 of the files of weights, against those that are publicly known."""
    found = []
    for file in _weight_files(path):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        name = file.name if file.parent.name not in PARTS else f"{file.parent.name}/{file.name}"
        known, wanted = published.WEIGHTS.get(digest), set(published.WEIGHTS.values())
        if known is not None:
            found.append(Check(f"weights {name}", True, f"{digest[:12]}..., {known}"))
        elif file.name in wanted:
            advice = f"this is not the {file.name} that was published; get it again"
            found.append(Check(f"weights {name}", False, f"{digest[:12]}...", advice))
        else:
            found.append(Check(f"weights {name}", None, f"{digest[:12]}...", "no published checksum is known"))
    return found


def _weight_files(path: str) -> list[Path]:
    """The files of weights of a model that was loaded: of a hub id those in the local cache."""
    source = find_model(path)
    if isinstance(source, str):
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(source, local_files_only=True))
    if source.is_file():
        return [source]
    return sorted(file for part in PARTS for file in (source / part).glob("*.safetensors"))


def check_sizes(backbone: Backbone) -> list[Check]:
    """Numbers of parameters, against those of the published networks of this shape."""
    text_width = _text_width(backbone)
    known = published.UNET_PARAMETERS.get(text_width or 0)
    found = [_size("denoiser", backbone.denoiser, known)]
    of_first = known is not None and text_width == min(published.UNET_PARAMETERS)
    for name, parameters in (("vae", published.VAE_PARAMETERS), ("text_encoder", published.TEXT_PARAMETERS)):
        network = getattr(backbone.pipeline, name, None)
        if network is not None:
            found.append(_size(name, network, ("Stable Diffusion 1", parameters) if of_first else None))
    return found


def _text_width(backbone: Backbone) -> int | None:
    """Of a U-Net of full size; None of other denoisers."""
    config = backbone.denoiser.config
    widths = tuple(config.get("block_out_channels") or ())
    return config.get("cross_attention_dim") if widths[:3] == (320, 640, 1280) else None


def _count(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _size(what: str, network: Any, known: tuple[str, int] | None) -> Check:
    count = _count(network)
    if known is None:
        return Check(f"parameters of the {what}", None, f"{count:,}", "no published network of this shape is known")
    name, wanted = known
    return Check(f"parameters of the {what}", count == wanted, f"{count:,}", f"{name} has {wanted:,}")


def check_tokens(backbone: Backbone) -> list[Check]:
    """The tokens of three prompts of the papers' list."""
    tokenizer = getattr(backbone.pipeline, "tokenizer", None)
    if tokenizer is None or len(tokenizer) != published.CLIP_TOKENS:
        what = "no tokenizer" if tokenizer is None else f"a vocabulary of {len(tokenizer):,}"
        return [Check("tokens", None, what, "only CLIP's tokens are known")]
    wrong = []
    for prompt, tokens in published.PROMPT_TOKENS.items():
        wanted = [published.CLIP_START, *tokens, published.CLIP_END]
        if tokenizer(prompt).input_ids != wanted:
            wrong.append(prompt)
    advice = "the tokenizer's files are of another model: get vocab.json and merges.txt of CLIP ViT-L/14 again"
    what = f"{len(PROMPTS) - len(wrong)} of {len(PROMPTS)} prompts as CLIP has them"
    return [Check("tokens", not wrong, what, advice)]


def check_noise() -> list[Check]:
    """The first numbers of a CPU generator, for two seeds of the papers' list."""
    wrong = []
    for seed, wanted in published.FIRST_NOISE.items():
        drawn = normal_noise([torch.Generator("cpu").manual_seed(seed)], (4, 64, 64)).flatten()[: len(wanted)]
        if not torch.allclose(drawn, torch.tensor(wanted), rtol=0, atol=1e-5):
            wrong.append(seed)
    what = f"{len(published.FIRST_NOISE) - len(wrong)} of {len(published.FIRST_NOISE)} seeds as in the papers"
    return [Check("noise of seeds", not wrong, what, "this build of PyTorch draws other numbers; install another one")]


def check_sampler(backbone: Backbone) -> list[Check]:
    """Timesteps and noise levels of 15 steps of LMS with Stable Diffusion's betas."""
    scheduler = fresh_scheduler(backbone, published.LMS_STEPS)
    name, config = type(scheduler).__name__, scheduler.config
    betas = tuple(config.get(key) for key in ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps"))
    if name != SCHEDULERS["lms"][0] or betas != published.LMS_BETAS:
        return [Check("sampler", None, name, "only LMS with Stable Diffusion's betas is known")]
    sigmas, timesteps = scheduler.sigmas[:-1].cpu().double(), scheduler.timesteps.cpu().double()
    right = torch.allclose(timesteps, torch.tensor(published.LMS_TIMESTEPS, dtype=torch.float64), rtol=0, atol=0.01)
    right &= torch.allclose(sigmas, torch.tensor(published.LMS_SIGMAS, dtype=torch.float64), rtol=0, atol=1e-4)
    found = f"{name}, noise levels from {sigmas[0]:.4f} to {sigmas[-1]:.4f}"
    return [Check("sampler", right, found, "this version of diffusers samples otherwise; install the pinned one")]


def check_layers(backbone: Backbone) -> list[Check]:
    """Names and shapes of the self-attention layers that the papers probe."""
    layers = [layer for layer in catalogue(backbone.denoiser) if layer.kind == "self_attention"]
    known = published.UNET_PARAMETERS.get(_text_width(backbone) or 0, ("", 0))[0]
    if known != "Stable Diffusion 1" or backbone.latent_shape[1:] != (64, 64):
        why = "only the layers of Stable Diffusion 1 at 512 pixels are known"
        return [Check("self-attention layers", None, str(len(layers)), why)]
    shapes = tuple((layer.channels, layer.height) for layer in layers)
    right = shapes == published.SELF_ATTENTION and layers[-1].name == published.LAST_SELF_ATTENTION
    advice = "this version of diffusers names or orders layers otherwise; install the pinned one"
    return [Check("self-attention layers", right, f"{len(layers)}, the last one {layers[-1].name}", advice)]


@torch.no_grad()
def check_round_trip(backbone: Backbone) -> list[Check]:
    """A picture through the VAE and back."""
    if backbone.vae is None:
        return [Check("VAE, there and back", None, "no VAE", "the model is in pixel space")]
    images = test_picture(backbone.image_size)[None]
    error = (decode_latents(backbone, encode_images(backbone, images)).cpu() - images).square().mean()
    found = f"{-10 * error.log10():.1f} dB"
    if _count(backbone.vae) != published.VAE_PARAMETERS:
        return [
            Check("VAE, there and back", None, found, "only Stable Diffusion's VAE is known to keep such a picture")
        ]
    advice = f"below {PSNR:g} dB its weights are damaged, or its scaling factor is another model's"
    return [Check("VAE, there and back", float(error) <= 10 ** (-PSNR / 10), found, advice)]


def test_picture(size: int) -> Tensor:
    """Soft shades with a disc in front, [3, size, size] in [0, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    ground = torch.stack([0.3 + 0.4 * x, 0.5 + 0.2 * y, 0.7 - 0.3 * x * y])
    inside = ((x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.06).float()
    disc = torch.stack([0.9 - 0.5 * y, 0.3 + 0.1 * x, 0.2 + 0.2 * y])
    return ground * (1 - inside) + disc * inside


def check_halves(backbone: Backbone, steps: int) -> list[Check]:
    """Two prompts on the same noise, and the other way round: the half without prompt is the same for both, and that
    with prompt changes places with them."""
    if not backbone.guided:
        return [Check("half with prompt", None, "no guidance batch", "without guidance there is one half alone")]
    layer = select_layers(catalogue(backbone.denoiser), "cross_attention")[-1].name
    halves = []
    for prompts in (PROMPTS[:2], PROMPTS[1::-1]):
        step = next(generate(backbone, prompts, [0, 0], steps=steps, layers=[layer], half="both"))
        halves.append(step.activations[layer].float().cpu().unflatten(0, (2, 2)))  # [half, image, channels, h, w]
    straight, swapped = halves
    unit = straight[1].abs().max()
    differences = {
        "without prompt": float((straight[0, 0] - straight[0, 1]).abs().max() / unit),
        "with prompt, swapped": float((straight[1] - swapped[1].flip(0)).abs().max() / unit),
        "between prompts": float((straight[1, 0] - straight[1, 1]).abs().max() / unit),
    }
    same, between = (
        max(differences["without prompt"], differences["with prompt, swapped"]),
        differences["between prompts"],
    )
    right = between >= LEAST and same <= between / 10  # half precision rounds the batch's rows differently
    found = ", ".join(f"{what} {value:.2g}" for what, value in differences.items())
    return [
        Check("half with prompt", right, f"differences {found}", "report this: activations are not of their prompt")
    ]


def check_image(backbone: Backbone, steps: int) -> list[Check]:
    """An image of the plain pipeline and ours, its seconds and memory, and those of a whole study."""
    prompt, seed = PROMPTS[0], next(iter(published.FIRST_NOISE))
    options = {} if backbone.guidance_for(backbone.guided) is None else {"guidance_scale": backbone.guidance}
    with torch.no_grad():
        plain: Tensor = backbone.pipeline(
            prompt,
            generator=torch.Generator("cpu").manual_seed(seed),
            num_inference_steps=steps,
            output_type="pt",
            **options,
        ).images[0]
    _free(backbone)
    start = time.perf_counter()
    last = None
    for step in generate(backbone, [prompt], [seed], steps=steps, decode=False):
        last = step.latents
    assert last is not None
    with torch.no_grad():
        image = decode_latents(backbone, last)[0]
    seconds, memory = time.perf_counter() - start, _memory(backbone)
    difference = float((image.cpu() - plain.float().cpu()).abs().max())
    study = 2 * STUDY * seconds / 3600
    cost = f"{seconds:.1f} s, {memory / 1e9:.2f} GB; {STUDY} images and their control: {study:.1f} hours"
    same = Check(
        "image of the plain pipeline", difference <= SAME_IMAGE, f"largest difference {difference:.2g}",
        "this version of diffusers does something else; install the pinned one, and report this",
    )  # fmt: skip
    spread = float(image.std())
    shown = Check("image", spread > 0.01, f"standard deviation {spread:.2f}", "an even grey: the weights are damaged")
    return [same, shown, Check("cost of an image, alone in its batch", None, cost, "measured, not compared")]


def _free(backbone: Backbone) -> None:
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def _memory(backbone: Backbone) -> int:
    """Most bytes held so far: on the GPU, else by this process."""
    if backbone.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def print_checks(checks: Sequence[Check]) -> None:
    """A table of the checks; advice only of those that did not pass, and why nothing was compared."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "result", "found", box=SIMPLE_HEAD, pad_edge=False)
    results = {True: "passed", False: "FAILED", None: "-"}
    for check in checks:
        found = check.found if check.passed or not check.advice else f"{check.found}; {check.advice}"
        table.add_row(Text(check.what), results[check.passed], Text(found))
    plain_console(WIDTH).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if a check did not pass, or the model cannot be loaded."""
    parser = argparse.ArgumentParser(
        prog=module_command("diffprobe.backbone.certify"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help=f"sd14 ({SD14}), pocket, a folder, a checkpoint file, or a hub id")
    parser.add_argument("--dtype", default="float32", help="float32, float16 or bfloat16 (float32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    parser.add_argument("--scheduler", default="lms", help=f"{', '.join(SCHEDULERS)} or own (lms)")
    parser.add_argument("--guidance", type=float, default=7.5, help="scale (7.5)")
    parser.add_argument("--tokenizer", type=typed_path, help="of a checkpoint file: folder of CLIP's tokenizer")
    parser.add_argument("--steps", type=int, default=published.LMS_STEPS, help="of the images that are made (15)")
    options = parser.parse_args(arguments)
    path = SD14 if options.model == "sd14" else options.model
    try:
        backbone = load_backbone(
            path,
            device=options.device,
            dtype=options.dtype,
            scheduler=options.scheduler,
            guidance=options.guidance,
            tokenizer=None if options.tokenizer is None else str(options.tokenizer),
        )
        fresh_scheduler(backbone, options.steps)
        checks = certify(backbone, path, steps=options.steps)
        target = write_certificate(backbone, path, checks)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print_checks(checks)
    failed = sum(check.passed is False for check in checks)
    told = {0: "nothing failed", 1: "1 check failed"}.get(failed, f"{failed} checks failed")
    print(f"{target}: {told}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
