"""Measures the pocket world's parts on scenes and prompts that none of them was trained on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffprobe.pocket.networks import ClassifierNetwork, LabelerNetwork
from diffprobe.pocket.scenes import COLOURS, SHAPES, sample_scene
from diffprobe.pocket.shards import SceneArrays
from diffprobe.pocket.training.diffusion import to_signed
from diffprobe.pocket.training.image_networks import numbered

GUIDANCE = 2.5
STEPS = 15
CAPTIONS = 200


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
    """How well the mean training map, which sees no picture, does: what the scenes' variety has to defeat."""
    share = train.salient.float().mean(0)
    dice = {
        threshold: mean_dice((share > threshold).expand_as(test.salient), test.salient)
        for threshold in torch.linspace(0.02, 0.5, 49).tolist()
    }
    return {
        "saliency_dice": max(dice.values()),
        "depth_rank_correlation": rank_correlation(_mean_map(train.depth, test), test.depth.float()),
        "shading_rank_correlation": rank_correlation(_mean_map(train.shading, test), test.shading.float()),
    }


def _mean_map(maps: Tensor, test: SceneArrays) -> Tensor:
    return maps.float().mean(0).expand(len(test.images), -1, -1)


@torch.no_grad()
def measure_autoencoder(autoencoder: Any, images: Tensor) -> dict[str, float]:
    """Mean over pictures of the reconstruction's peak signal-to-noise ratio in dB, from the latent's mean."""
    ratios = []
    for batch in images.split(50):
        pictures = to_signed(batch)
        restored = autoencoder.decode(autoencoder.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
        error = ((restored - pictures) / 2).square().mean((1, 2, 3))
        ratios.append(-10 * error.log10())
    return {"psnr_db": float(torch.cat(ratios).mean())}


@torch.no_grad()
def measure_labeler(labeler: LabelerNetwork, scenes: SceneArrays) -> dict[str, float]:
    """Agreement with the exact maps of rendered scenes."""
    batches = [labeler.maps(batch.float() / 255) for batch in scenes.images.split(100)]
    maps = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return {
        "saliency_dice": mean_dice(maps["saliency"] > 0.5, scenes.salient),
        "depth_rank_correlation": rank_correlation(maps["depth"], scenes.depth.float()),
        "shading_rank_correlation": rank_correlation(maps["shading"], scenes.shading.float()),
    }


@torch.no_grad()
def measure_classifier(classifier: ClassifierNetwork, scenes: SceneArrays) -> dict[str, float]:
    """Share of the objects of rendered scenes whose colour, shape, and both are named rightly at their place."""
    logits = [classifier(batch.float() / 255) for batch in scenes.images.split(100)]
    colour = torch.cat([by_colour.argmax(-1) for by_colour, _ in logits]) == numbered(scenes.colours, len(COLOURS))
    shape = torch.cat([by_shape.argmax(-1) for _, by_shape in logits]) == numbered(scenes.classes, len(SHAPES))
    there = scenes.classes >= 0
    return {
        "colour_accuracy": float(colour[there].float().mean()),
        "shape_accuracy": float(shape[there].float().mean()),
        "both_accuracy": float((colour & shape)[there].float().mean()),
    }


def sample_pictures(pipeline: Any, captions: list[str], first_seed: int, batch: int = 25) -> tuple[Tensor, float]:
    """Pictures [captions, 3, 64, 64] of captions with seeds counting up, and the seconds per picture."""
    pictures = []
    start = time.perf_counter()
    for at in range(0, len(captions), batch):
        texts = captions[at : at + batch]
        generators = [torch.Generator().manual_seed(first_seed + at + row) for row in range(len(texts))]
        output = pipeline(
            texts, generator=generators, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="pt"
        )
        pictures.append(output.images.float().cpu())
    return torch.cat(pictures), (time.perf_counter() - start) / len(captions)


@torch.no_grad()
def measure_samples(pipeline: Any, classifier: ClassifierNetwork, objects: int) -> dict[str, float]:
    """What the classifier sees in pictures of 200 captions of one or two objects, not one of them selected."""
    scenes = [sample_scene(index, "prompts", objects) for index in range(10_000_000, 10_000_000 + CAPTIONS)]
    pictures, seconds = sample_pictures(pipeline, [scene.caption for scene in scenes], first_seed=objects * 1_000_000)
    by_colour, by_shape = classifier(pictures)
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
