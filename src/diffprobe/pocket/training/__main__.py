"""Trains the pocket world from nothing: `python -m diffprobe.pocket.training all`, or one part at a time.

Parts, in the order in which they need each other: text, vae, labeler, classifier, unet, card. Each resumes where it
was stopped, is skipped where it is done, and keeps its checkpoints and the rendered scenes in --folder. `card` puts
the weights together as a pipeline, measures everything on scenes and prompts that were not trained on, writes the model
card and the contact sheet, and with --install replaces the weights inside the package.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffprobe.files import Damaged, read_sealed, replacing, sealed
from diffprobe.pocket.shards import SceneArrays, load_scenes
from diffprobe.ranges import typed_path
from diffprobe.signals import run_command
from diffprobe.threads import share_threads

PARTS = ("text", "vae", "labeler", "classifier", "unet", "card")
STEPS = {"text": 600, "vae": 4000, "labeler": 16_000, "classifier": 7000, "unet": 40_000}
DEGRADED = 4000
TRAIN_SCENES_MEASURED, TEST_SCENES_MEASURED = 2000, 1000


@dataclass(frozen=True)
class TrainingSetup:
    """Where training happens and with what: a folder, the number of processes, their precision, sizes."""

    folder: Path
    devices: int
    precision: str
    scenes: int
    steps: int | None
    install: bool

    def scene_arrays(self, stream: str, count: int) -> SceneArrays:
        return load_scenes(self.folder / "scenes", stream, count)

    def steps_of(self, part: str) -> int:
        return self.steps or STEPS[part]


def text(setup: TrainingSetup) -> None:
    from diffprobe.pocket.training.diffusion import train_text

    train_text(setup.folder / "text", setup.steps_of("text"), setup.devices, "32-true")


def vae(setup: TrainingSetup) -> None:
    from diffprobe.pocket.training.diffusion import train_autoencoder

    images = setup.scene_arrays("train", setup.scenes).images
    train_autoencoder(images, setup.folder / "vae", setup.steps_of("vae"), setup.devices, setup.precision)


def labeler(setup: TrainingSetup) -> None:
    from diffprobe.pocket.training.image_networks import train_labeler

    scenes = setup.scene_arrays("train", setup.scenes)
    train_labeler(
        scenes, degraded(setup), setup.folder / "labeler", setup.steps_of("labeler"), setup.devices, setup.precision
    )


def classifier(setup: TrainingSetup) -> None:
    from diffprobe.pocket.training.image_networks import train_classifier

    scenes = setup.scene_arrays("train", setup.scenes)
    train_classifier(
        scenes,
        degraded(setup),
        setup.folder / "classifier",
        setup.steps_of("classifier"),
        setup.devices,
        setup.precision,
    )


def unet(setup: TrainingSetup) -> None:
    from transformers import CLIPTextModel

    from diffprobe.pocket.training.diffusion import train_denoiser

    encoded = latents(setup)
    text_encoder = CLIPTextModel.from_pretrained(setup.folder / "text" / "text_encoder", dtype=torch.float32)
    train_denoiser(
        encoded["latents"],
        encoded["tokens"].long(),
        text_encoder,
        setup.folder / "unet",
        setup.steps_of("unet"),
        setup.devices,
        setup.precision,
    )


def card(setup: TrainingSetup) -> None:
    from diffprobe.pocket.training.card import assemble, install, write_card

    assemble(setup.folder)
    train = setup.scene_arrays("train", TRAIN_SCENES_MEASURED)
    write_card(setup.folder, train, setup.scene_arrays("test", TEST_SCENES_MEASURED))
    if setup.install:
        install(setup.folder)


def latents(setup: TrainingSetup) -> dict[str, torch.Tensor]:
    """The training scenes as scaled latents, and their captions as tokens with the empty caption last."""
    from transformers import CLIPTokenizer

    from diffprobe.pocket.training.diffusion import encode

    path = setup.folder / f"latents-{setup.scenes}.safetensors"
    if not _whole(path):
        scenes = setup.scene_arrays("train", setup.scenes)
        tokenizer = CLIPTokenizer.from_pretrained(setup.folder / "text" / "tokenizer")
        tokens = tokenizer([*scenes.captions, ""], padding="max_length", return_tensors="pt").input_ids
        values = {"latents": encode(_trained_vae(setup), scenes.images, _device()), "tokens": tokens.to(torch.int16)}
        _save(values, path)
    return load_file(path)


def degraded(setup: TrainingSetup) -> torch.Tensor:
    """Degraded pictures of the first training scenes, as the labeler and the classifier are to know them."""
    from diffprobe.pocket.training.diffusion import encode
    from diffprobe.pocket.training.image_networks import degrade

    path = setup.folder / "degraded.safetensors"
    if not _whole(path):
        images = setup.scene_arrays("train", DEGRADED).images
        autoencoder = _trained_vae(setup)
        _save({"images": degrade(autoencoder, encode(autoencoder, images, _device()).cpu())}, path)
    return load_file(path)["images"]


def _trained_vae(setup: TrainingSetup) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(setup.folder / "vae" / "vae", dtype=torch.float32).eval()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _save(values: dict[str, torch.Tensor], path: Path) -> None:
    values = {name: value.contiguous() for name, value in values.items()}
    with replacing(path) as temporary:
        save_file(values, temporary, sealed(values, {}))


def _whole(path: Path) -> bool:
    """Whether a file that `_save` wrote is there, undamaged."""
    try:
        read_sealed(path)
    except (FileNotFoundError, Damaged):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m diffprobe.pocket.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=(*PARTS, "all"))
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
    setup = TrainingSetup(chosen.folder, chosen.devices, chosen.precision, chosen.scenes, chosen.steps, chosen.install)
    functions: dict[str, Callable[[TrainingSetup], None]] = {
        "text": text,
        "vae": vae,
        "labeler": labeler,
        "classifier": classifier,
        "unet": unet,
        "card": card,
    }
    for part in PARTS if chosen.part == "all" else (chosen.part,):
        functions[part](setup)


if __name__ == "__main__":
    sys.exit(run_command(main))
