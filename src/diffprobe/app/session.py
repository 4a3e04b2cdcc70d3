"""What one does on the page, without the page: generate images, say where an object shall be, denoise again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffprobe.analyses.intervention.edits import final_images, replacements
from diffprobe.analyses.intervention.target_maps import Move, move
from diffprobe.api.models import as_prompts
from diffprobe.app.equipment import NEW, Equipment
from diffprobe.backbone.finite import NotFinite, naming_images
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import LARGEST_SEED
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.properties.binary import dice
from diffprobe.properties.tokens import grid_of

SMALLEST_SHARE = 0.005  # of the picture, that a mask must cover: half of pocket's smallest objects


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """One image with its trajectory, and what the probes predict on the way.

    Attributes:
        images: decoded after every step, [steps, 3, H, W] in [0, 1].
        steps: which steps, from 0, the probes are of.
        maps: {property: {layer: [probed steps, h, w]}}: probability of foreground, and quantities in label units.
        label: the labeler's mask of the final image, [H, W] in {0, 1}.
        labels, scores: its labels of other properties, and scores of (property, layer), as far as they were asked for.
    """

    prompt: str
    seed: int
    images: Tensor
    steps: list[int]
    maps: dict[str, dict[str, Tensor]]
    label: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EditedImage:
    """The image [3, H, W] that was denoised towards a target mask [H, W], and its label [H, W].

    `dice` is that label's overlap with the target, `dice_before` the original label's; NaN where it is not defined.
    """

    target: Tensor
    image: Tensor
    label: Tensor
    dice: float
    dice_before: float


def make_image(equipment: Equipment, prompt: str, seed: float | None) -> GeneratedImage:
    """As `make_images`, of one prompt and seed."""
    return make_images(equipment, [prompt], [seed])[0]


def prompts_and_seeds(prompts: str, seeds: str, most: int) -> tuple[list[str], list[int]]:
    """Prompts, one a line, and as many seeds; one of either stands for all.

    Raises:
        UserError: a seed is no number, or there are more images than `most`.
    """
    lines = [line.strip() for line in prompts.splitlines() if line.strip()]
    words = seeds.replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise UserError(f"seed {seeds!r}: write a whole number from 0 to {LARGEST_SEED}, or one for each image")
    numbers = [int(word) for word in words]
    count = max(len(lines), len(numbers))
    if count > most:
        raise UserError(f"these are {count} images; {most} are shown side by side at most")
    return lines * count if len(lines) == 1 else lines, numbers * count if len(numbers) == 1 else numbers


def make_images(equipment: Equipment, prompts: Sequence[str], seeds: Sequence[float | None]) -> list[GeneratedImage]:
    """The images of prompts and seeds, with the probes' maps, all made at once.

    Raises:
        UserError: no prompt, a seed that is none, not one seed a prompt, or two of one prompt and seed.
    """
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise UserError("there is no prompt: write what shall be in the picture, such as 'a red cube on a table'")
    whole = [int(seed) for seed in seeds if seed is not None and 0 <= seed <= LARGEST_SEED and int(seed) == seed]
    if len(whole) < len(seeds):
        raise UserError(f"a seed has to be a whole number from 0 to {LARGEST_SEED}")
    chosen = as_prompts(prompts, whole)
    bank = equipment.bank
    texts, numbers = [prompt.text for prompt in chosen], [prompt.seed for prompt in chosen]
    images, activations = [], {layer: [] for layer in bank.layers}
    steps = generate(
        equipment.backbone, texts, numbers, steps=equipment.sampling_steps, layers=bank.layers, decode=True
    )
    with _advice_for_page(texts):
        for step in steps:
            assert step.images is not None  # by decode=True
            images.append(step.images.cpu())
            if step.index in bank.steps:
                for layer, values in step.activations.items():
                    activations[layer].append(values.float().cpu())
    maps = _maps(bank, {layer: torch.stack(values) for layer, values in activations.items()})
    decoded = torch.stack(images, 1)
    return [
        GeneratedImage(
            prompt.text,
            prompt.seed,
            decoded[at],
            bank.steps,
            {name: {layer: values[:, at] for layer, values in by_layer.items()} for name, by_layer in maps.items()},
            _label(equipment, decoded[at, -1]),
        )
        for at, prompt in enumerate(chosen)
    ]


@torch.no_grad()
def _maps(bank: ProbeBank, activations: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What the probes predict from activations [steps, images, channels, h, w] by layer: [steps, images, h, w]."""
    outputs = {layer: bank(layer, values) for layer, values in activations.items()}
    return {
        name: {
            layer: item.in_label_units(item.decode(output[name], statistics), statistics)
            for layer, output in outputs.items()
        }
        for (name, item), statistics in zip(bank.properties.items(), bank.standardisations.values(), strict=True)
    }


def label_of(equipment: Equipment, image: GeneratedImage, name: str) -> Tensor:
    """The labeler's map of a property of the final image, [H, W]; it is asked once.

    Raises:
        UserError: the labeler does not know the property.
    """
    if name == equipment.mask:
        return image.label
    if name not in image.labels:
        equipment.labeler.check([NEW], [name], equipment.backbone.image_size)
        image.labels[name] = _label(equipment, image.images[-1], name)
    return image.labels[name]


def scores_over_steps(equipment: Equipment, image: GeneratedImage, name: str, layer: str) -> list[float]:
    """How well the probe of a layer agrees with the label of the final image, at every probed step: by the headline
    metric of the property, as in a run. NaN where it is not defined.

    Raises:
        UserError: as `label_of`.
    """
    if (name, layer) not in image.scores:
        image.scores[name, layer] = _scores(equipment, image, name, layer)
    return image.scores[name, layer]


def _scores(equipment: Equipment, image: GeneratedImage, name: str, layer: str) -> list[float]:
    bank = equipment.bank
    item, statistics = bank.properties[name], bank.standardisations[name]
    target = item.target(label_of(equipment, image, name)[None])
    predicted = item.of_labels(image.maps[name][layer][:, None], statistics)  # from label units to those of scores
    grid = grid_of(predicted)
    thresholds = bank.thresholds[name][layer] if item.binary else []
    scores = item.scores(predicted, item.prepared(target, statistics, [grid])[grid], thresholds)
    return scores[item.headline][:, 0].tolist()


def moved_mask(label: Tensor, right: float, down: float) -> Tensor:
    """A mask [H, W] moved by shares of the picture's width and height; what leaves the picture is gone."""
    height, width = label.shape
    return move(label, Move(round(right * width), round(down * height)), mask=True)


def centre(mask: Tensor) -> tuple[float, float]:
    """The centre of the smallest box around a mask's foreground, as shares of its height and width.

    That of the picture if there is no foreground.
    """
    places = mask.nonzero().double()
    if not len(places):
        return 0.5, 0.5
    middle = (places.amin(0) + places.amax(0) + 1) / 2 / torch.tensor(mask.shape)
    return middle[0].item(), middle[1].item()


def drawn_mask(painted: Tensor, height: int, width: int) -> Tensor:
    """What was painted, [any height, any width] in [0, 1], as a mask [height, width]: 1 where half of it is covered."""
    shrunk = interpolate(painted[None, None].float(), (height, width), mode="area")
    return (shrunk[0, 0] >= 0.5).float()


def denoise_towards(equipment: Equipment, generated: GeneratedImage, target: Tensor) -> EditedImage:
    """The same prompt and seed once more, with activations edited so that the probes report the target.

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
    with _advice_for_page([generated.prompt]):
        backbone, prompts, seeds = equipment.backbone, [generated.prompt], [generated.seed]
        edits = replacements(
            backbone, seeds, target[None], equipment.bank, equipment.editing, covariances=equipment.covariances
        )
        trajectory = generate(backbone, prompts, seeds, steps=equipment.sampling_steps, replace=edits)
        (image,) = final_images(backbone, trajectory)
    label = _label(equipment, image)
    after, before = dice(torch.stack([label, generated.label]), target.expand(2, *target.shape)).tolist()
    return EditedImage(target, image, label, after, before)


@contextmanager
def _advice_for_page(prompts: Sequence[str]) -> Iterator[None]:
    """Names the image in which something is not finite, with advice that can be followed on the page."""
    try:
        with naming_images(list(prompts)):
            yield
    except NotFinite as error:
        error.advice += " (settings of the run that the probes are of)"
        if error.edited:
            error.advice = "the mask asks for too much; move it less far"
        raise


def _label(equipment: Equipment, image: Tensor, name: str = "") -> Tensor:
    """The labeler's map [H, W] of an image [3, H, W]: of the mask, or of another property."""
    wanted = name or equipment.mask
    return equipment.labeler(image[None], [NEW], [wanted])[wanted][0]
