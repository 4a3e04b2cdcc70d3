"""Trains the pocket world from nothing: `python -m diffprobe.pocket.training all`, or one part at a time.

Parts, in the order in which they need each other: text, vae, labeler, surfaces, classifier, unet, card. Each resumes
where it was stopped, is skipped where it is done, and keeps its checkpoints and the rendered scenes in --folder.
Trained alone, a part takes those that it needs from the package where the folder has none. `card` puts the weights
together as a pipeline, measures everything on scenes and prompts that were not trained on, writes the model card and
the contact sheet, and with --install replaces the weights inside the package.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from diffprobe.ranges import typed_path
from diffprobe.signals import run_command
from diffprobe.threads import share_threads

STEPS = {"text": 600, "vae": 4000, "labeler": 16_000, "surfaces": 16_000, "classifier": 7000, "unet": 40_000}
DEGRADED = 4000
TRAIN_SCENES_MEASURED, TEST_SCENES_MEASURED = 2000, 1000


def train(part: str, folder: Path, count: int, steps: int, devices: int, precision: str) -> None:
    """Trains a part on `count` scenes and saves it in `folder/<part>`."""
    from transformers import CLIPTextModel

    from diffprobe.pocket.networks import LabelerNetwork, load_weights
    from diffprobe.pocket.training.card import part_of
    from diffprobe.pocket.training.fit import PocketModule, fit, load_scenes
    from diffprobe.pocket.training.modules import (
        AutoencoderModule,
        ClassifierModule,
        DenoiserModule,
        LabelerModule,
        SurfaceModule,
        TextModule,
    )

    module: PocketModule
    if part == "text":
        module, precision = TextModule(steps), "32-true"
    elif part == "vae":
        module = AutoencoderModule(load_scenes(folder / "scenes", "train", count).images, steps)
    elif part == "unet":
        encoded = latents(folder, count)
        text_encoder = CLIPTextModel.from_pretrained(part_of(folder, "text_encoder"), dtype=torch.float32)
        module = DenoiserModule(encoded["latents"], encoded["tokens"].long(), text_encoder, steps)
    else:
        scenes = load_scenes(folder / "scenes", "train", count)
        if part == "surfaces":
            labeler = load_weights(LabelerNetwork(), part_of(folder, "labeler.safetensors"))
            module = SurfaceModule(scenes, degraded(folder), steps, labeler)
        else:
            module = (LabelerModule if part == "labeler" else ClassifierModule)(scenes, degraded(folder), steps)
    fit(module, folder / part, devices, precision)


def latents(folder: Path, count: int) -> dict[str, torch.Tensor]:
    """The training scenes as scaled latents, and their captions as tokens with the empty caption last."""
    from transformers import CLIPTokenizer

    from diffprobe.pocket.training.card import part_of
    from diffprobe.pocket.training.fit import load_scenes, read_undamaged, write_sealed
    from diffprobe.pocket.training.modules import encode

    path = folder / f"latents-{count}.safetensors"
    values = read_undamaged(path, {})
    if values is None:
        scenes = load_scenes(folder / "scenes", "train", count)
        tokenizer = CLIPTokenizer.from_pretrained(part_of(folder, "tokenizer"))
        tokens = tokenizer([*scenes.captions, ""], padding="max_length", return_tensors="pt").input_ids
        values = {"latents": encode(_trained_vae(folder), scenes.images), "tokens": tokens.to(torch.int16)}
        write_sealed(path, values, {})
    return values


def degraded(folder: Path) -> torch.Tensor:
    """Degraded images of the first training scenes, for the labeler and the classifier."""
    from diffprobe.pocket.training.fit import load_scenes, read_undamaged, write_sealed
    from diffprobe.pocket.training.modules import degrade, encode

    path = folder / "degraded.safetensors"
    values = read_undamaged(path, {})
    if values is None:
        images = load_scenes(folder / "scenes", "train", DEGRADED).images
        autoencoder = _trained_vae(folder)
        values = {"images": degrade(autoencoder, encode(autoencoder, images))}
        write_sealed(path, values, {})
    return values["images"]


def _trained_vae(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    from diffprobe.pocket.training.card import part_of

    return AutoencoderKL.from_pretrained(part_of(folder, "vae"), dtype=torch.float32).eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m diffprobe.pocket.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=(*STEPS, "card", "all"))
    parser.add_argument(
        "--folder", type=typed_path, default=Path("runs/pocket"), help="checkpoints and rendered scenes"
    )
    parser.add_argument("--devices", type=int, default=1, help="processes; on a CPU one per core is fastest")
    parser.add_argument("--precision", default="bf16-mixed", help="of Lightning: bf16-mixed, 32-true, ...")
    parser.add_argument("--scenes", type=int, default=60_000, help="training scenes")
    parser.add_argument("--steps", type=int, default=None, help="optimiser steps of one part; more steps resume")
    parser.add_argument("--install", action="store_true", help="replace the weights inside the package")
    chosen = parser.parse_args()
    if chosen.part == "all" and chosen.steps:
        parser.error("--steps belongs to one part; name it instead of all")
    share_threads(chosen.devices)
    for part, steps in STEPS.items():
        if chosen.part in (part, "all"):
            train(part, chosen.folder, chosen.scenes, chosen.steps or steps, chosen.devices, chosen.precision)
    if chosen.part in ("card", "all"):
        from diffprobe.pocket.training.card import assemble, install, write_card

        assemble(chosen.folder)
        write_card(chosen.folder, TRAIN_SCENES_MEASURED, TEST_SCENES_MEASURED)
        if chosen.install:
            install(chosen.folder)


if __name__ == "__main__":
    sys.exit(run_command(main))
