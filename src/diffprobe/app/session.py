"""What one does on the page, without the page: generate an image, say where its object shall be, denoise again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from diffprobe.analyses.intervention.edits import intervene
from diffprobe.analyses.intervention.target_maps import Move, move
from diffprobe.app.equipment import Equipment
from diffprobe.backbone.finite import NotFinite, naming_images
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import LARGEST_SEED
from diffprobe.errors import UserError
from diffprobe.probes.scoring import dice

SMALLEST_SHARE = 0.005  # of the picture, that a mask must cover: half of pocket's smallest objects


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """One image, how it came about, and what the probes saw on the way.

    Attributes:
        images: decoded after every step, [steps, 3, H, W] in [0, 1].
        steps: which steps, from 0, the probes are of.
        maps: {property: {layer: [probed steps, h, w]}}: probability of foreground, and quantities in label units.
        label: the labeler's mask of the final image, [H, W] in {0, 1}.
    """

    prompt: str
    seed: int
    images: Tensor
    steps: list[int]
    maps: dict[str, dict[str, Tensor]]
    label: Tensor


@dataclass(frozen=True, eq=False)
class EditedImage:
    """The image [3, H, W] that was denoised towards a target mask, and its label [H, W].

    `dice` is that label's overlap with the target, `dice_before` the original label's; NaN where it is not defined.
    """

    image: Tensor
    label: Tensor
    dice: float
    dice_before: float


def make_image(equipment: Equipment, prompt: str, seed: float | None) -> GeneratedImage:
    """The image of a prompt and seed, with the probes' maps.

    Raises:
        UserError: no prompt, or a seed that is none.
    """
    if not prompt or not prompt.strip():
        raise UserError("there is no prompt: write what shall be in the picture, such as 'a red cube on a table'")
    if seed is None or not 0 <= seed <= LARGEST_SEED or int(seed) != seed:
        raise UserError(f"the seed has to be a whole number from 0 to {LARGEST_SEED}")
    bank = equipment.bank
    images, taken = [], {layer: [] for layer in bank.layers}
    steps = generate(
        equipment.backbone, [prompt], [int(seed)], steps=equipment.sampling_steps, layers=bank.layers, decode=True
    )
    with _named(prompt):
        for step in steps:
            assert step.images is not None  # they were asked for
            images.append(step.images[0].cpu())
            if step.index in bank.steps:
                for layer, values in step.activations.items():
                    taken[layer].append(values.float().cpu())
    maps = _maps(equipment, {layer: torch.stack(values) for layer, values in taken.items()})
    return GeneratedImage(prompt, int(seed), torch.stack(images), bank.steps, maps, _label(equipment, images[-1]))


def moved_mask(label: Tensor, right: float, down: float) -> Tensor:
    """A mask [H, W] moved by shares of the picture's width and height; what leaves the picture is gone."""
    height, width = label.shape
    return move(label, Move(round(right * width), round(down * height)), mask=True)


def centre(mask: Tensor) -> tuple[float, float]:
    """Where the middle of a mask's foreground is, as shares of its height and width; of the picture if there is none.

    That of the smallest box around it, which is where a person points at.
    """
    places = mask.nonzero().double()
    if not len(places):
        return 0.5, 0.5
    middle = (places.amin(0) + places.amax(0) + 1) / 2 / torch.tensor(mask.shape)
    return middle[0].item(), middle[1].item()


def drawn_mask(painted: Tensor, height: int, width: int) -> Tensor:
    """What was painted, [any height, any width] in [0, 1], as a mask [height, width]: 1 where half of it is covered."""
    shrunk = torch.nn.functional.interpolate(painted[None, None].float(), (height, width), mode="area")
    return (shrunk[0, 0] >= 0.5).float()


def denoise_towards(equipment: Equipment, generated: GeneratedImage, target: Tensor) -> EditedImage:
    """The same prompt and seed once more, with activations edited so that the saliency probes report the target.

    Args:
        target: [H, W] in {0, 1}.

    Raises:
        UserError: the target is (nearly) empty, or covers the whole picture.
    """
    share = float(target.mean())
    if share < SMALLEST_SHARE:
        raise UserError("the mask is empty, or nearly so: move it back into the picture, or draw a larger one")
    if share == 1:
        raise UserError("the mask covers the whole picture: leave some background")
    with _named(generated.prompt):
        (image,) = intervene(
            equipment.backbone,
            [generated.prompt],
            [generated.seed],
            target[None],
            equipment.bank,
            equipment.editing,
            covariances=equipment.covariances,
            sampling_steps=equipment.sampling_steps,
        )
    label = _label(equipment, image)
    after, before = dice(torch.stack([label, generated.label]), target.expand(2, *target.shape)).tolist()
    return EditedImage(image, label, after, before)


@contextmanager
def _named(prompt: str) -> Iterator[None]:
    """Says of which image something is not finite, with advice that can be followed on the page."""
    try:
        with naming_images([prompt]):
            yield
    except NotFinite as error:
        own = f"{error.advice} (settings of the run that --probes names)"
        advice = "the mask asks for too much; move it less far" if error.edited else own
        raise error.with_details(advice=advice) from None


@torch.no_grad()
def _maps(equipment: Equipment, activations: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What the probes say of activations [steps, 1, channels, h, w] by layer."""
    bank = equipment.bank
    outputs = {layer: bank(layer, values) for layer, values in activations.items()}
    return {
        name: {
            layer: item.decode_map(found[name], bank.standardisations[name])[:, 0] for layer, found in outputs.items()
        }
        for name, item in bank.properties.items()
    }


def _label(equipment: Equipment, image: Tensor) -> Tensor:
    """The labeler's mask [H, W] of an image [3, H, W]."""
    return equipment.labeler(image[None], ["a new image"], ["saliency"])["saliency"][0]
