"""Puts the trained parts together as one pipeline, measures them, and writes the model card and contact sheet."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffprobe.pocket import evaluation
from diffprobe.pocket.networks import ClassifierNetwork, LabelerNetwork, build_scheduler, load_weights, parameters
from diffprobe.pocket.render import RenderedScenes, render_indices
from diffprobe.pocket.scenes import sample_scene
from diffprobe.pocket.shards import SceneArrays
from diffprobe.weights import record_checksums

# part, measure, bar: what the model is meant to reach
BARS = (
    ("autoencoder", "psnr_db", 30.0),
    ("labeler", "saliency_dice", 0.97),
    ("labeler", "depth_rank_correlation", 0.95),
    ("labeler", "shading_rank_correlation", 0.90),
    ("one object", "colours_and_shapes_right", 0.90),
    ("two objects", "colours_right", 0.70),
)
SHEET = (4, 8)  # rows, columns


def assemble(folder: Path) -> None:
    """Writes `folder/weights`: the pipeline in float16 safetensors, labeler and classifier."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    build: Any = StableDiffusionPipeline
    pipeline = build(
        vae=AutoencoderKL.from_pretrained(folder / "vae" / "vae", dtype=torch.float32),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text" / "text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "text" / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet" / "unet", dtype=torch.float32),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    target = folder / "weights"
    fresh = folder / "weights.new"
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(fresh / "pipeline", safe_serialization=True)
    for path in fresh.rglob("config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)  # where this machine kept the part
        path.write_text(json.dumps(config, indent=2) + "\n")
    for name in ("labeler", "classifier"):
        shutil.copy(folder / name / f"{name}.safetensors", fresh)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(fresh, target)


def write_card(folder: Path, train: SceneArrays, test: SceneArrays) -> None:
    """Measures `folder/weights` and writes `measures.json`, `MODEL_CARD.md` and `checksums.json` beside them.

    The pictures `contact_sheet.png` and `scenes.png` go into `folder` itself.
    """
    from diffusers import StableDiffusionPipeline

    weights = folder / "weights"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        weights / "pipeline", dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    labeler = load_weights(LabelerNetwork(), weights / "labeler.safetensors")
    classifier = load_weights(ClassifierNetwork(), weights / "classifier.safetensors")
    measures: dict[str, Mapping[str, float]] = {
        "position only": evaluation.measure_position(train, test),
        "autoencoder": evaluation.measure_autoencoder(pipeline.vae, test.images),
        "labeler": evaluation.measure_labeler(labeler, test),
        "classifier": evaluation.measure_classifier(classifier, test),
        "one object": evaluation.measure_samples(pipeline, classifier, 1),
        "two objects": evaluation.measure_samples(pipeline, classifier, 2),
        "training steps": {
            part: trained_steps(folder / part) for part in ("text", "vae", "labeler", "classifier", "unet")
        },
    }
    sizes = {
        "U-Net": parameters(pipeline.unet),
        "VAE": parameters(pipeline.vae),
        "text encoder": parameters(pipeline.text_encoder),
        "labeler": parameters(labeler),
        "classifier": parameters(classifier),
    }
    (weights / "measures.json").write_text(json.dumps(measures, indent=2) + "\n")
    record_checksums(weights)
    (weights / "MODEL_CARD.md").write_text(render_card(measures, sizes, megabytes(weights)))
    captions = [sample_scene(20_000_000 + number, "prompts").caption for number in range(SHEET[0] * SHEET[1])]
    pictures, _ = evaluation.sample_pictures(pipeline, captions, first_seed=20_000_000)
    save_sheet(pictures, captions, folder / "contact_sheet.png")
    save_scenes(render_indices(range(10), "test"), folder / "scenes.png")


def trained_steps(folder: Path) -> int:
    """Optimiser steps of the last checkpoint in a training folder."""
    return torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True, mmap=True)["global_step"]


def megabytes(folder: Path) -> float:
    """Size of all files below a folder, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def render_card(measures: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int], size_mb: float) -> str:
    """The model card: what it is, what it measured against which bar, how to make it again."""
    lines = [
        "# The pocket model",
        "",
        "Stable Diffusion 1.4's classes and module names at small width, trained from nothing on ray-cast scenes of "
        "1 to 3 spheres, cubes, cylinders and cones. It demonstrates and tests diffprobe offline. It is not Stable "
        "Diffusion, has seen no photograph, and findings on it are findings about it alone.",
        "",
        "64x64 pixels, 16x16 latents, v-prediction, guidance 2.5, 15 LMS steps. Captions are those of "
        "`diffprobe.pocket.scenes`; other words mean nothing to it.",
        "",
        "| part | parameters |",
        "| --- | ---: |",
        *(f"| {name} | {count:,} |" for name, count in sizes.items()),
        "",
        f"All files together: {size_mb:.1f} MB.",
        "",
        "## Measured on held-out scenes, captions and seeds",
        "",
        "Written by `python -m diffprobe.pocket.training card`. Samples are judged by the classifier below, whose own "
        "errors on renders count against them.",
        "",
        "| what | measure | value | bar |",
        "| --- | --- | ---: | --- |",
    ]
    bars = {(part, measure): bar for part, measure, bar in BARS}
    for part, values in measures.items():
        for measure, value in values.items():
            bar = bars.get((part, measure))
            verdict = "" if bar is None else f">= {bar:g}: {'reached' if value >= bar else 'missed'}"
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
            lines.append(f"| {part} | {measure.replace('_', ' ')} | {shown} | {verdict} |")
    lines += [
        "",
        "## Make it again",
        "",
        "`python -m diffprobe.pocket.training all --install` trains every part in order, resuming where it was "
        "stopped; `--devices 2` uses two CPU cores. More U-Net steps (`unet --steps N`) make better pictures.",
        "",
    ]
    return "\n".join(lines)


def save_sheet(pictures: Tensor, captions: list[str], path: Path) -> None:
    """A contact sheet of pictures [number, 3, size, size] above their captions, in order, none left out."""
    rows, columns = SHEET
    figure = Figure(figsize=(1.25 * columns, 2.0 * rows), layout="constrained")
    for axes, picture, caption in zip(figure.subplots(rows, columns).flat, pictures, captions, strict=True):
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(textwrap.fill(caption, 22), fontsize=6.5)
        axes.set_axis_off()
    figure.savefig(path, dpi=130)


def save_scenes(scenes: RenderedScenes, path: Path) -> None:
    """Rendered scenes, one a column: picture, salient mask, depth, shading."""
    count = len(scenes.images)
    figure = Figure(figsize=(1.0 * count, 4.1), layout="constrained")
    rows = {
        "image": scenes.images.permute(0, 2, 3, 1),
        "saliency": scenes.salient.float(),
        "depth": scenes.depth,
        "shading": scenes.shading,
    }
    for line, (name, maps) in zip(figure.subplots(4, count), rows.items(), strict=True):
        for axes, values in zip(line, maps.numpy(), strict=True):
            axes.imshow(values, cmap={"depth": "viridis"}.get(name, "gray"), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=130)


def install(folder: Path) -> None:
    """Replaces the weights inside the package by `folder/weights`."""
    target = Path(str(files("diffprobe.pocket"))) / "weights"
    fresh = target.with_name("weights.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder / "weights", fresh)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(fresh, target)
