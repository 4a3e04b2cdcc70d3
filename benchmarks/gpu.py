"""What taking and probing activations costs on a GPU: python benchmarks/gpu.py [--tiny] [--only PART ...] [--json FILE]

Needs this repository and its packages alone: weights are random. With `--tiny` everything is small and runs on a CPU.
Takes less than 8 minutes on an H100. Parts:

families    a small pipeline of every family on the GPU against the CPU, in float32 (convolutions too: no TF32), and
            Stable Diffusion's in float16 and bfloat16: latents and activations.
copies      activations of all layers kept in memory and in a store against those that the network gave on the GPU.
capture     Stable Diffusion 1.4 size, 512 pixels, 15 guided steps: images a second of the plain pipeline, and of what
            this package adds to it, each as a ratio to the plain pipeline in the same process, with peak memory. The
            closed form of the ridge probes, which is computed once whatever the number of images, is told apart.
solvers     the closed form and the training of a bank on the GPU against the CPU.
options     model.channels_last and model.compile against neither.

Every time is a median of several runs in turns. Prints a table, and writes it with the card's name as JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from capture import random_weights
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the small pipelines of the tests

HEADLINE = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"
PLAIN, RIDGE = "plain pipeline", "16 layers, ridge probes"
GOALS = {RIDGE: 0.90, "16 layers to CPU memory": 0.80}  # share of the plain pipeline's images a second
# Largest difference to the CPU in float32, as a share of the largest value: 32 times the precision's rounding
AGREEMENT = {"float32": 1e-3, "float16": 32 * 2**-10, "bfloat16": 32 * 2**-7}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small networks and few images, to try the script")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="where the numbers are written (gpu.json)")
    options = parser.parse_args()
    if DEVICE.type == "cpu" and not options.tiny:
        raise SystemExit("there is no GPU here; --tiny tries the script on a CPU")
    card = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}")
    rows: list[Row] = []
    for name in options.only:
        start = time.perf_counter()
        for row in PARTS[name](options.tiny):
            rows.append({"part": name, **row})
            print("  ".join(f"{key} {_shown(value)}" for key, value in rows[-1].items()), flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s")
        options.json.write_text(json.dumps({"card": card, "torch": torch.__version__, "rows": rows}, indent=2) + "\n")


def families(tiny: bool) -> Iterator[Row]:
    """The largest difference between GPU and CPU of latents and activations, of each family."""
    from tests.tiny import build_tiny_pipeline
    from tests.tiny_families import FAMILIES, build_family

    torch.backends.cudnn.allow_tf32 = False
    builders: dict[str, Callable[[Path], Path]] = {name: partial(build_family, name) for name in FAMILIES}
    with tempfile.TemporaryDirectory() as folder:
        path = str(build_tiny_pipeline(Path(folder)))
        reference = _first_steps(path, "cpu", "float32", "ddim")
        for dtype, agreement in AGREEMENT.items():
            found = _first_steps(path, DEVICE.type, dtype, "ddim")
            yield {"family": f"stable_diffusion, {dtype}", **_differences(found, reference), "goal": agreement}
    for name, build in builders.items():
        scheduler = "own" if name in ("sd3", "flux") else "ddim"
        with tempfile.TemporaryDirectory() as folder:
            path = str(build(Path(folder)))
            reference, found = (_first_steps(path, device, "float32", scheduler) for device in ("cpu", DEVICE.type))
        yield {"family": name, **_differences(found, reference), "goal": AGREEMENT["float32"]}
    torch.backends.cudnn.allow_tf32 = True


def _first_steps(path: str, device: str, dtype: str, scheduler: str) -> dict[str, Tensor]:
    """Latents after three steps, and all activations of the last, on the CPU."""
    from diffprobe.backbone.layers import catalogue
    from diffprobe.backbone.load import load_backbone
    from diffprobe.backbone.trajectory import generate

    backbone = load_backbone(path, device=device, dtype=dtype, scheduler=scheduler)
    layers = [layer.name for layer in catalogue(backbone.denoiser)]
    last = list(generate(backbone, ["a b", "c"], [0, 1], steps=3, layers=layers))[-1]
    return {name: value.cpu().float() for name, value in {"latents": last.latents, **last.activations}.items()}


def _differences(found: dict[str, Tensor], reference: dict[str, Tensor]) -> Row:
    """The largest difference, as a share of the largest value of its layer."""
    shares = [
        float((found[key] - value).abs().max() / value.abs().max().clamp_min(1e-6)) for key, value in reference.items()
    ]
    return {"layers": len(shares) - 1, "difference": max(shares)}


def copies(tiny: bool) -> Iterator[Row]:
    """Whether activations that were copied beside the network are those that it gave."""
    from diffprobe.activations.extraction import extract
    from diffprobe.activations.sources import Generation
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.backbone.trajectory import generate
    from diffprobe.data.prompts import Prompt

    backbone, steps, count, batch = _backbone(tiny), 3, 6, 2
    layers = select_layers(catalogue(backbone.denoiser), "self_attention")
    prompts = [Prompt("a photo of a red cube", seed, f"image_{seed}") for seed in range(count)]
    given: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    for start in range(0, count, batch):
        own = prompts[start : start + batch]
        texts, seeds = [prompt.text for prompt in own], [prompt.seed for prompt in own]
        for step in generate(backbone, texts, seeds, steps=steps, layers=list(given)):
            for name, values in step.activations.items():
                given[name].append(values.cpu())
    wanted = {name: torch.cat(values).unflatten(0, (-1, steps, batch)) for name, values in given.items()}
    with tempfile.TemporaryDirectory() as folder:
        for where, stores in {"memory": None, "store": Path(folder)}.items():
            dtype = str(backbone.dtype).removeprefix("torch.")
            kept = extract(
                *(backbone, Generation(prompts, sampling_steps=steps), layers, range(steps)),
                **{"batch_size": batch, "stores": stores, "images_per_shard": 4, "dtype": dtype},
            ).activations
            found = {name: kept.values[name][:, range(count)].unflatten(1, (-1, batch)) for name in wanted}
            difference = max(float((found[name].transpose(0, 1) - wanted[name]).abs().max()) for name in wanted)
            yield {"kept in": where, "layers": len(layers), "difference": difference, "goal": 0.0}


def capture_costs(tiny: bool) -> Iterator[Row]:
    """Images a second of each way, by precision and batch size."""
    settings = [("float32", 2)] if tiny else [("float16", 1), ("float16", 4), ("float16", 8), ("bfloat16", 8)]
    backbone = _backbone(tiny)
    for dtype, batch in settings:
        backbone.networks.to(getattr(torch, dtype))
        count = 4 * batch  # of which two batches train ridge probes, one selects and one scores them
        with tempfile.TemporaryDirectory() as folder, _timed_closed_form() as closed_form:
            ways = _ways(backbone, count, batch, 3 if tiny else 15, Path(folder))
            seconds, memory = _measured(ways, repeats=1 if tiny else 3, after=partial(_emptied, Path(folder)))
        once = statistics.median(closed_form)
        for name, value in seconds.items():
            row: Row = {"dtype": dtype, "batch": batch, "way": name}
            if name == RIDGE:
                row["closed_form_s"], value = once, value - once
            ratio = seconds[PLAIN] / value
            row |= {"images_a_second": count / value, "ratio": ratio, "peak_gb": memory[name] / 1e9}
            yield row | ({"goal": GOALS[name]} if name in GOALS else {})
    backbone.networks.to(torch.float32 if tiny else torch.float16)


@contextmanager
def _timed_closed_form() -> Iterator[list[float]]:
    """Collects the seconds of every closed form inside: it is computed once, however many images there are."""
    from diffprobe.probes.ridge import Moments

    seconds: list[float] = []
    solve = Moments.solve

    def timed(moments: Moments) -> Any:
        _synchronize()
        start = time.perf_counter()
        path = solve(moments)
        _synchronize()
        seconds.append(time.perf_counter() - start)
        return path

    with mock.patch.object(Moments, "solve", timed):
        yield seconds


def _ways(backbone: Any, count: int, batch: int, steps: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """What makes `count` images: the plain pipeline, and this package with more and more beside it."""
    from diffprobe.activations.extraction import extract
    from diffprobe.activations.sources import Generation
    from diffprobe.backbone.capture import decode_latents
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.backbone.trajectory import generate
    from diffprobe.data.prompts import Prompt
    from diffprobe.probes.bank import ProbeConfig
    from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing

    layers = select_layers(catalogue(backbone.denoiser), "self_attention")
    headline = [layer.name for layer in layers if layer.name == HEADLINE] or [layers[-1].name]
    prompts = [Prompt("a photo of a red cube", seed, f"image_{seed}") for seed in range(count)]
    source = Generation(prompts, sampling_steps=steps)
    starts = range(0, count, batch)
    runs = iter(range(10**6))

    def plain() -> None:
        for start in starts:
            seeds = range(start, min(start + batch, count))
            backbone.pipeline(
                [prompts[seed].text for seed in seeds],
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=steps,
                guidance_scale=backbone.guidance,
                output_type="pt",
            )

    @torch.no_grad()
    def captured(names: Sequence[str]) -> None:
        for start in starts:
            own = prompts[start : start + batch]
            latents = torch.empty(0)
            for step in generate(
                backbone, [prompt.text for prompt in own], [prompt.seed for prompt in own], steps=steps, layers=names
            ):
                latents = step.latents
                del step
            decode_latents(backbone, latents)

    def kept(stores: Path | None) -> None:
        extract(
            *(backbone, source, layers, range(steps)),
            batch_size=batch,
            stores=stores and stores / str(next(runs)),
            images_per_shard=batch,
        )

    def ridge() -> None:
        config = ProbingConfig(
            *(layers, range(steps)),
            controls=(),
            fractions=(0.5, 0.25, 0.25),
            probe_config=ProbeConfig("ridge", solver="ridge"),
        )
        run_probing(backbone, source, _RandomMaps(), config, ExecutionConfig(batch_size=batch, one_pass=True))

    return {
        PLAIN: plain,
        "1 layer": partial(captured, headline),
        "16 layers": partial(captured, [layer.name for layer in layers]),
        "16 layers to CPU memory": partial(kept, None),
        "16 layers to disk": partial(kept, folder),
        RIDGE: ridge,
    }


class _RandomMaps:
    """A labeler whose maps say nothing, and cost nothing."""

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Takes all images."""

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(0)
        maps = torch.rand(len(properties), len(names), *images.shape[-2:], generator=random)
        binary = {"saliency": maps[0].round()}
        return {name: binary.get(name, maps[row]) for row, name in enumerate(properties)}

    def fingerprint(self, name: str) -> str:
        return "random"


def solvers(tiny: bool) -> Iterator[Row]:
    """Seconds on GPU and CPU of adding to the sums, of the closed form, and of training a bank."""
    from diffprobe.probes.bank import ProbeConfig
    from diffprobe.probes.ridge import Moments
    from diffprobe.properties import PAPERS

    channels, steps, images, side = (16, 2, 4, 8) if tiny else (1280, 15, 8, 16)
    random = torch.Generator().manual_seed(0)
    values = torch.randn(steps, images, channels, side, side, generator=random)
    maps = {name: torch.rand(images, 8 * side, 8 * side, generator=random) for name in PAPERS}
    maps["saliency"] = maps["saliency"].round()
    config = ProbeConfig("ridge", solver="ridge")

    def added(device: str) -> Moments:
        moments = Moments(PAPERS, config)
        there = {name: value.to(device) for name, value in maps.items()}
        moments.add({"layer": values.to(device)}, there)
        return moments

    devices = ("cpu", DEVICE.type)
    sums = {device: added(device) for device in devices}
    for what, work in {
        f"sums of {steps} steps of {images} images, {channels} channels": added,
        f"closed form of {steps} steps, {channels} channels": lambda device: sums[device].solve(),
        "a bank, one epoch": partial(_train, tiny),
    }.items():
        seconds, _ = _measured({device: partial(work, device) for device in devices}, repeats=1 if tiny else 3)
        on_cpu, on_gpu = seconds["cpu"], seconds[DEVICE.type]
        yield {"what": what, "cpu_s": on_cpu, "gpu_s": on_gpu, "ratio": on_cpu / on_gpu}


def _train(tiny: bool, device: str) -> None:
    import lightning

    from diffprobe.activations.activations import Activations
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.adam import train_bank
    from diffprobe.probes.bank import ProbeConfig
    from diffprobe.probes.splits import Split
    from diffprobe.properties import PAPERS

    sizes = {"4x4": (16, 4)} if tiny else {"16x16": (640, 16), "32x32": (320, 32)}
    steps, images = (2, 8) if tiny else (15, 40)
    random = torch.Generator().manual_seed(0)
    layers = [Layer(name, "self_attention", "decoder", *(width, side, side)) for name, (width, side) in sizes.items()]
    values = {
        layer.name: torch.randn(steps, images, layer.channels, layer.height, layer.width, generator=random)
        for layer in layers
    }
    activations = Activations(layers, list(range(steps)), [0.0] * steps, [str(row) for row in range(images)], values)
    maps = {name: torch.rand(images, 64, 64, generator=random) for name in PAPERS}
    maps["saliency"] = maps["saliency"].round()
    rows = list(range(images))
    split = Split(rows[: images // 2], rows[images // 2 : -2], rows[-2:])
    trainer = lightning.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    train_bank(activations, maps, split, PAPERS, ProbeConfig(), trainer=trainer)


@torch.no_grad()
def options_of_models(tiny: bool) -> Iterator[Row]:
    """Seconds of a guided step with channels_last and torch.compile, against neither."""
    batch = 1 if tiny else 4
    plain = _backbone(tiny).denoiser
    last, compiled = copy.deepcopy(plain), copy.deepcopy(plain)
    last.to(memory_format=torch.channels_last)
    compiled.compile(backend="inductor" if DEVICE.type == "cuda" else "eager")
    config = plain.config
    latents = torch.randn(2 * batch, config.in_channels, config.sample_size, config.sample_size)
    text = torch.randn(2 * batch, 77, config.cross_attention_dim)
    inputs = [value.to(DEVICE, plain.dtype) for value in (latents, text)]
    networks = {"neither": plain, "channels_last": last, "compile": compiled}
    ways = {name: partial(network, inputs[0], 500, inputs[1]) for name, network in networks.items()}
    seconds, memory = _measured(ways, repeats=2 if tiny else 10)
    for name, value in seconds.items():
        yield {"option": name, "step_s": value, "ratio": seconds["neither"] / value, "peak_gb": memory[name] / 1e9}


@cache
def _backbone(tiny: bool) -> Any:
    """A Stable Diffusion pipeline with random weights: of full size in float16, or tiny in float32."""
    from tests.tiny import build_tiny_pipeline

    from diffprobe.backbone.load import load_backbone

    with tempfile.TemporaryDirectory() as folder:
        path = build_tiny_pipeline(Path(folder)) if tiny else full_size_pipeline(Path(folder))
        return load_backbone(str(path), device=DEVICE.type, dtype="float32" if tiny else "float16")


def full_size_pipeline(folder: Path, *, half: bool = True) -> Path:
    """Writes a Stable Diffusion 1.4 pipeline of random weights, with the vocabulary of the built-in model."""
    import diffusers
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

    import diffprobe.backbone
    import diffprobe.pocket

    library: Any = diffusers
    dtype = torch.float16 if half else torch.float32
    (package,), (pocket,) = diffprobe.backbone.__path__, diffprobe.pocket.__path__
    configs = Path(package) / "configs/stable-diffusion-v1-4"
    tokenizer: Any = AutoTokenizer.from_pretrained(Path(pocket) / "weights/pipeline/tokenizer", local_files_only=True)
    words = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }

    def made(kind: Any, part: str) -> Any:
        return kind.from_config(kind.load_config(configs / part))

    with torch.device("meta"):
        networks = {
            "unet": made(library.UNet2DConditionModel, "unet"),
            "vae": made(library.AutoencoderKL, "vae"),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(configs / "text_encoder", **words)),
        }
    pipeline = library.StableDiffusionPipeline(
        **{name: random_weights(network).to(dtype) for name, network in networks.items()},
        tokenizer=tokenizer,
        scheduler=made(library.PNDMScheduler, "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _emptied(folder: Path) -> None:
    """Removes what a run wrote: a store of 32 images is 11 GB."""
    for path in folder.iterdir():
        shutil.rmtree(path)


def _measured(
    ways: dict[str, Callable[[], Any]], repeats: int, after: Callable[[], None] = lambda: None
) -> tuple[dict[str, float], dict[str, int]]:
    """Median seconds of each, run in turns after a first run of each, and the most bytes that it held on the GPU.

    Calls `after` when a run has been timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, int] = {}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            _free()
            start = time.perf_counter()
            way()
            _synchronize()
            if DEVICE.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            after()
    return {name: statistics.median(values) for name, values in seconds.items()}, dict.fromkeys(ways, 0) | memory


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _free() -> None:
    _synchronize()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "families": families,
    "copies": copies,
    "capture": capture_costs,
    "solvers": solvers,
    "options": options_of_models,
}

if __name__ == "__main__":
    main()
