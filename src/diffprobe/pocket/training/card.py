"""Joins the trained parts as one pipeline, measures them on new scenes and prompts, and writes the model card."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.image import peak_signal_noise_ratio

from diffprobe.pocket.networks import (
    ClassifierNetwork,
    LabelerNetwork,
    SurfaceNetwork,
    build_scheduler,
    load_weights,
)
from diffprobe.pocket.render import RenderedScenes, render_indices
from diffprobe.pocket.scenes import COLOURS, SHAPES, sample_scene
from diffprobe.pocket.training.fit import SceneArrays, load_scenes
from diffprobe.pocket.training.modules import numbered, to_signed
from diffprobe.weights import record_checksums

INSTALLED = Path(str(files("diffprobe.pocket"))) / "weights"  # inside the package
# What the model is meant to reach, by part and measure.
BARS = {
    ("autoencoder", "psnr_db"): 30.0,
    ("labeler", "saliency_dice"): 0.97,
    ("labeler", "depth_rank_correlation"): 0.95,
    ("labeler", "shading_rank_correlation"): 0.90,
    ("surfaces", "normals_mean_angle"): 12.0,
    ("surfaces", "albedo_rank_correlation"): 0.90,
    ("surfaces", "shape_mean_iou"): 0.80,
    ("surfaces", "shadow_dice"): 0.85,
    ("one object", "colours_and_shapes_right"): 0.90,
    ("two objects", "colours_right"): 0.70,
}
ERRORS = ("normals_mean_angle",)  # degrees; lower is better
# Where a part of the model is in the folder of its training, and among the weights of the package
PARTS = {
    **{name: (f"{name}/{name}", f"pipeline/{name}") for name in ("vae", "unet")},
    **{name: (f"text/{name}", f"pipeline/{name}") for name in ("text_encoder", "tokenizer")},
    **{
        f"{name}.safetensors": (f"{name}/{name}.safetensors", f"{name}.safetensors")
        for name in ("labeler", "surfaces", "classifier")
    },
}
SHEET = (4, 8)  # rows, columns
GUIDANCE = 2.5
STEPS = 15
CAPTIONS = 200


def part_of(folder: Path, name: str) -> Path:
    """A trained part: that of the folder, or the package's where the folder has none."""
    trained, installed = PARTS[name]
    own = folder / trained
    return own if own.exists() else INSTALLED / installed


def assemble(folder: Path) -> None:
    """Writes `folder/weights`: the pipeline in float16 safetensors, labeler, its second decoder and classifier."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    build: Any = StableDiffusionPipeline
    pipeline = build(
        vae=AutoencoderKL.from_pretrained(part_of(folder, "vae"), dtype=torch.float32),
        text_encoder=CLIPTextModel.from_pretrained(part_of(folder, "text_encoder"), dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(part_of(folder, "tokenizer")),
        unet=UNet2DConditionModel.from_pretrained(part_of(folder, "unet"), dtype=torch.float32),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    fresh = folder / "weights.new"
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(fresh / "pipeline", safe_serialization=True)
    for path in fresh.rglob("config.json"):
        config = {key: value for key, value in json.loads(path.read_text()).items() if key != "_name_or_path"}
        path.write_text(json.dumps(config, indent=2) + "\n")
    for name in ("labeler", "surfaces", "classifier"):
        shutil.copy(part_of(folder, f"{name}.safetensors"), fresh)
    _replace(folder / "weights", fresh)


def install(folder: Path) -> None:
    """Replaces the weights inside the package by `folder/weights`."""
    fresh = INSTALLED.with_name("weights.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder / "weights", fresh)
    _replace(INSTALLED, fresh)


def _replace(target: Path, fresh: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    os.replace(fresh, target)


def write_card(folder: Path, train_count: int, test_count: int) -> None:
    """Measures `folder/weights`; writes measures, card and checksums there, and sheets of images into `folder`."""
    from diffusers import StableDiffusionPipeline

    train, test = (load_scenes(folder / "scenes", *scenes) for scenes in (("train", train_count), ("test", test_count)))
    weights = folder / "weights"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        weights / "pipeline", dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    labeler = load_weights(LabelerNetwork(), weights / "labeler.safetensors")
    surfaces = load_weights(SurfaceNetwork(), weights / "surfaces.safetensors")
    classifier = load_weights(ClassifierNetwork(), weights / "classifier.safetensors")
    measures: dict[str, Mapping[str, float]] = {
        "position only": measure_position(train, test),
        "autoencoder": measure_autoencoder(pipeline.vae, test.images),
        "labeler": measure_labeler(labeler, test),
        "surfaces": measure_surfaces(labeler, surfaces, test),
        "classifier": measure_classifier(classifier, test),
        "one object": measure_samples(pipeline, classifier, 1),
        "two objects": measure_samples(pipeline, classifier, 2),
        "training steps": training_steps(folder),
    }
    networks: dict[str, nn.Module] = {
        "U-Net": pipeline.unet,
        "VAE": pipeline.vae,
        "text encoder": pipeline.text_encoder,
        "labeler": labeler,
        "its second decoder": surfaces,
        "classifier": classifier,
    }
    (weights / "measures.json").write_text(json.dumps(measures, indent=2) + "\n")
    record_checksums(weights)
    size_mb = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()) / 1e6
    (weights / "MODEL_CARD.md").write_text(render_card(measures, networks, size_mb))
    captions = [sample_scene(20_000_000 + number, "prompts").caption for number in range(SHEET[0] * SHEET[1])]
    images, _ = sample_images(pipeline, captions, first_seed=20_000_000)
    save_sheet(images, captions, folder / "contact_sheet.png")
    save_scenes(render_indices(range(10), "test"), folder / "scenes.png")


def training_steps(folder: Path) -> dict[str, int]:
    """Of each part that the folder has; of the package's parts as their card says."""
    steps = dict(json.loads((INSTALLED / "measures.json").read_text())["training steps"])
    for part in ("text", "vae", "labeler", "surfaces", "classifier", "unet"):
        path = folder / part / "last.ckpt"
        if path.exists():
            steps[part] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    return steps


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Mean over images of Spearman's rank correlation of maps [images, height, width]."""
    from scipy.stats import spearmanr

    correlate: Any = spearmanr
    pairs = zip(one.flatten(1).numpy(), other.flatten(1).numpy(), strict=True)
    return float(np.mean([correlate(a, b).statistic for a, b in pairs]))


def mean_dice(predicted: Tensor, target: Tensor) -> float:
    """Mean over images of Dice of masks [images, height, width]."""
    both = (predicted & target).sum((1, 2)).float()
    return float((2 * both / (predicted.sum((1, 2)) + target.sum((1, 2)))).mean())


def measure_position(train: SceneArrays, test: SceneArrays) -> dict[str, float]:
    """Scores of the mean training map, which sees no image."""
    share = train.salient.float().mean(0)
    depth, shading = (maps.float().mean(0).expand(len(test.images), -1, -1) for maps in (train.depth, train.shading))
    return {
        "saliency_dice": max(
            mean_dice((share > threshold).expand_as(test.salient), test.salient)
            for threshold in torch.linspace(0.02, 0.5, 49).tolist()
        ),
        "depth_rank_correlation": rank_correlation(depth, test.depth.float()),
        "shading_rank_correlation": rank_correlation(shading, test.shading.float()),
    }


@torch.no_grad()
def measure_autoencoder(autoencoder: Any, images: Tensor) -> dict[str, float]:
    """Mean over images of the reconstruction's peak signal-to-noise ratio in dB, from the latent's mean."""
    ratios = []
    for batch in images.split(50):
        signed = to_signed(batch)
        restored = autoencoder.decode(autoencoder.encode(signed).latent_dist.mode()).sample.clamp(-1, 1)
        ratios.append(
            peak_signal_noise_ratio(restored, signed, data_range=(-1.0, 1.0), dim=(1, 2, 3), reduction="none")
        )
    return {"psnr_db": float(torch.cat(ratios).mean())}


@torch.no_grad()
def measure_labeler(labeler: LabelerNetwork, scenes: SceneArrays) -> dict[str, float]:
    """Agreement with the exact maps of rendered scenes."""
    batches = [labeler.maps(labeler.features(batch.float() / 255)) for batch in scenes.images.split(100)]
    maps = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return {
        "saliency_dice": mean_dice(maps["saliency"] > 0.5, scenes.salient),
        "depth_rank_correlation": rank_correlation(maps["depth"], scenes.depth.float()),
        "shading_rank_correlation": rank_correlation(maps["shading"], scenes.shading.float()),
    }


@torch.no_grad()
def measure_surfaces(labeler: LabelerNetwork, surfaces: SurfaceNetwork, scenes: SceneArrays) -> dict[str, float]:
    """Agreement with the exact maps of rendered scenes; means over images, of classes over classes of the whole set."""
    batches = [surfaces.maps(labeler.features(batch.float() / 255)) for batch in scenes.images.split(100)]
    maps = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    cosines = functional.cosine_similarity(maps["normals"], scenes.normals.float()).clamp(-1, 1)
    with_shadow = scenes.shadow.any(-1).any(-1)
    return {
        "normals_mean_angle": float(cosines.acos().rad2deg().mean()),
        "albedo_rank_correlation": rank_correlation(maps["albedo"], scenes.albedo.float()),
        "shape_mean_iou": mean_iou(maps["shape"], scenes.shape, 1 + len(SHAPES)),
        "colour_mean_iou": mean_iou(maps["colour"], scenes.colour, 1 + len(COLOURS)),
        "shadow_dice": mean_dice(maps["shadow"][with_shadow] > 0.5, scenes.shadow[with_shadow]),
    }


def mean_iou(predicted: Tensor, target: Tensor, classes: int) -> float:
    """Mean over classes of intersection over union, summed over all images, of maps of class numbers."""
    return float(multiclass_jaccard_index(predicted.long(), target.long(), classes))


@torch.no_grad()
def measure_classifier(classifier: ClassifierNetwork, scenes: SceneArrays) -> dict[str, float]:
    """Share of the objects of rendered scenes whose colour, shape, and both are named right at their place."""
    logits = [classifier(batch.float() / 255) for batch in scenes.images.split(100)]
    colour = torch.cat([by_colour.argmax(-1) for by_colour, _ in logits]) == numbered(scenes.colours, len(COLOURS))
    shape = torch.cat([by_shape.argmax(-1) for _, by_shape in logits]) == numbered(scenes.classes, len(SHAPES))
    there = scenes.classes >= 0
    return {
        "colour_accuracy": float(colour[there].float().mean()),
        "shape_accuracy": float(shape[there].float().mean()),
        "both_accuracy": float((colour & shape)[there].float().mean()),
    }


def sample_images(pipeline: Any, captions: list[str], first_seed: int, batch: int = 25) -> tuple[Tensor, float]:
    """Images [captions, 3, 64, 64] of captions with seeds counting up, and the seconds per image."""
    images = []
    start = time.perf_counter()
    for at in range(0, len(captions), batch):
        texts = captions[at : at + batch]
        generators = [torch.Generator().manual_seed(first_seed + at + row) for row in range(len(texts))]
        output = pipeline(
            texts, generator=generators, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="pt"
        )
        images.append(output.images.float().cpu())
    return torch.cat(images), (time.perf_counter() - start) / len(captions)


@torch.no_grad()
def measure_samples(pipeline: Any, classifier: ClassifierNetwork, objects: int) -> dict[str, float]:
    """What the classifier sees in images of 200 captions of one or two objects, none of them selected."""
    scenes = [sample_scene(index, "prompts", objects) for index in range(10_000_000, 10_000_000 + CAPTIONS)]
    images, seconds = sample_images(pipeline, [scene.caption for scene in scenes], first_seed=objects * 1_000_000)
    by_colour, by_shape = classifier(images)
    wanted_colours = torch.tensor([[COLOURS.index(item.colour) for item in scene.objects] for scene in scenes])
    wanted_shapes = torch.tensor([[SHAPES.index(item.shape) for item in scene.objects] for scene in scenes])
    colour = (by_colour[:, :objects].argmax(-1) == wanted_colours).all(1)
    shape = (by_shape[:, :objects].argmax(-1) == wanted_shapes).all(1)
    number = (by_colour[:, objects:].argmax(-1) == len(COLOURS)).all(1)
    return {
        "captions": CAPTIONS,
        "colours_right": float(colour.float().mean()),
        "shapes_right": float(shape.float().mean()),
        "colours_and_shapes_right": float((colour & shape).float().mean()),
        "number_right": float(number.float().mean()),
        "seconds_per_picture": seconds,
    }


def render_card(measures: Mapping[str, Mapping[str, float]], networks: Mapping[str, nn.Module], size_mb: float) -> str:
    """The model card: what it is, what it measured against which bar, how to make it again."""
    sizes = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    size_rows = [f"| {name} | {size:,} |\n" for name, size in sizes.items()]
    rows = []
    for part, values in measures.items():
        for measure, value in values.items():
            bar = BARS.get((part, measure))
            lower = measure in ERRORS
            reached = bar is not None and (value <= bar if lower else value >= bar)
            verdict = "" if bar is None else f"{'<=' if lower else '>='} {bar:g}: {'reached' if reached else 'missed'}"
            number = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
            rows.append(f"| {part} | {measure.replace('_', ' ')} | {number} | {verdict} |\n")
    return f"""# The pocket model

Stable Diffusion 1.4's classes and module names at small width, trained from nothing on ray-cast scenes of 1 to 3 \
spheres, cubes, cylinders and cones. It demonstrates and tests diffprobe offline. It is not Stable Diffusion, has seen \
no photograph, and findings on it are findings about it alone.

64x64 pixels, 16x16 latents, v-prediction, guidance 2.5, 15 LMS steps. Captions are those of \
`diffprobe.pocket.scenes`; other words mean nothing to it.

| part | parameters |
| --- | ---: |
{"".join(size_rows)}
All files together: {size_mb:.1f} MB.

## Measured on held-out scenes, captions and seeds

Written by `python -m diffprobe.pocket.training card`. Samples are judged by the classifier below, whose own errors on \
renders count against them.

| what | measure | value | bar |
| --- | --- | ---: | --- |
{"".join(rows)}
## Make it again

`python -m diffprobe.pocket.training all --install` trains every part in order, resuming where it was stopped; \
`--devices 2` uses two CPU cores. More U-Net steps (`unet --steps N`) make better pictures.
"""


def save_sheet(images: Tensor, captions: list[str], path: Path) -> None:
    """A contact sheet of images [number, 3, size, size] below their captions, in order, none left out."""
    rows, columns = SHEET
    figure = Figure(figsize=(1.25 * columns, 2.0 * rows), layout="constrained")
    for axes, image, caption in zip(figure.subplots(rows, columns).flat, images, captions, strict=True):
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(textwrap.fill(caption, 22), fontsize=6.5)
        axes.set_axis_off()
    figure.savefig(path, dpi=130)


def save_scenes(scenes: RenderedScenes, path: Path) -> None:
    """Rendered scenes, one a column: the image, then every map."""
    count = len(scenes.images)
    rows = {"image": scenes.images.permute(0, 2, 3, 1), **scenes.maps()}
    rows["normals"] = (scenes.normals.permute(0, 2, 3, 1) + 1) / 2
    figure = Figure(figsize=(1.0 * count, 1.02 * len(rows)), layout="constrained")
    looks = {"depth": "viridis", "shape": "tab10", "colour": "tab10"}
    for line, (name, maps) in zip(figure.subplots(len(rows), count), rows.items(), strict=True):
        for axes, values in zip(line, maps.float().numpy(), strict=True):
            low, high = (0, 9) if name in ("shape", "colour") else (None, None)
            axes.imshow(values, cmap=looks.get(name, "gray"), vmin=low, vmax=high, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=130)
