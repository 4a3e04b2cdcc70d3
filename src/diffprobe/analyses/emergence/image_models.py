"""Image models on the unfinished image: what the labeler sees in the picture after every step, beside the probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.errors import UserError
from diffprobe.labels.labeler import Labeler, check_reference_maps
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.scoring import predict_maps
from diffprobe.probes.study.study import ExampleImage, scores_of_blocks
from diffprobe.properties.tokens import grid_of

if TYPE_CHECKING:
    from diffprobe.activations.extraction import Extraction
    from diffprobe.backbone.load import Backbone
    from diffprobe.probes.bank import ProbeBank

IMAGE_MODEL = "image_model"  # in the columns `layer` and `control`
CUT = 0.5  # a labeler's masks are 0 or 1 already


@dataclass(frozen=True)
class ProbesUnderTest:
    """Trained probes, and the images on which they are held against image models.

    Attributes:
        bank: the probes.
        extraction: of all images; it keeps the latents after every step of the bank.
        activations: what the probes read.
        targets: label maps of the finished images, {property: [images, H, W]}.
        rows: the images to test on, which had no part in the probes.
        probe: what the probes are called in tables.
    """

    bank: ProbeBank
    extraction: Extraction
    activations: ReadableActivations
    targets: dict[str, Tensor]
    rows: Sequence[int]
    probe: str


def step_names(names: Sequence[str], steps: Sequence[int]) -> list[str]:
    """What the pictures of unfinished images are called, image by image: '<image>_step_<step from 0>'."""
    return [f"{name}_step_{step}" for name in names for step in steps]


def check_labeler(
    labeler: Labeler, names: Sequence[str], steps: Sequence[int], properties: Sequence[str], image_size: int
) -> None:
    """Raises UserError where the pictures after every step of the images called `names` cannot be labelled, as where
    maps are files and there are files of finished images alone."""
    try:
        check_reference_maps(labeler, step_names(names, steps), properties, image_size)
    except UserError as error:
        raise UserError(
            f"the unfinished images are to be labelled too, and that labeler cannot: {error}. Choose an image model "
            "(labeler=image_models), or add maps of the decoded image after each step, counted from 0"
        ) from error


def score_image_models(
    backbone: Backbone, labeler: Labeler, probed: ProbesUnderTest, *, shown: int = 0
) -> tuple[pd.DataFrame, list[tuple[ExampleImage, dict[str, Tensor]]]]:
    """Labels every test image as it looks after every step, and scores these maps against the finished image's label.

    The comparison of Chen, Viégas and Wattenberg (2023). The pictures are the decoded latents after each step of the
    scheduler. Scores are those of the probes, by the same code: at image resolution, per image, rmse in standard
    deviations of the probes' training labels. Masks are cut where the labeler cuts them.

    Args:
        shown: how many of the test images are returned for pictures.

    Returns:
        Rows with layer and control 'image_model' and split 'test'; and the first images with their probes' predictions
        and the labeler's maps, {property: [steps, H, W]}.
    """
    bank, names = probed.bank, [probed.activations.names[row] for row in probed.rows]
    values: dict[tuple[str, str], list[Tensor]] = {}
    examples = []
    for row, name in zip(probed.rows, names, strict=True):
        pictures = probed.extraction.decode_steps(backbone, row)
        maps = labeler(pictures, step_names([name], bank.steps), list(bank.properties))
        for key, item in bank.properties.items():
            standardisation = bank.standardisations[key]
            predicted = item.of_labels(item.target(maps[key]), standardisation)[:, None]
            grid = grid_of(predicted)
            prepared = item.prepared(item.target(probed.targets[key][[row]]), standardisation, [grid])[grid]
            for metric, scores in item.scores(predicted, prepared, [CUT] * len(pictures)).items():
                values.setdefault((key, metric), []).append(scores)
        if len(examples) < shown:
            examples.append((_example_image(probed, row, pictures), maps))
    moments = list(zip(bank.steps, probed.activations.timesteps, strict=True))
    blocks = []
    for (key, metric), scores in values.items():
        keys = (backbone.name, IMAGE_MODEL, key, probed.probe, IMAGE_MODEL, "test", metric)
        blocks.append(ScoreBlock(*keys, moments, names, torch.cat(scores, 1).double().cpu().numpy()))
    own = {key: probed.targets[key][list(probed.rows)] for key in bank.properties}
    return scores_of_blocks(blocks, own, names, bank.properties), examples


def _example_image(probed: ProbesUnderTest, row: int, pictures: Tensor) -> ExampleImage:
    bank = probed.bank
    return ExampleImage(
        row=row,
        steps=pictures,
        final=probed.extraction.extras["image"][row],
        labels={name: probed.targets[name][row] for name in bank.properties},
        predictions={
            name: {layer: predict_maps(bank, probed.activations, name, layer, [row])[:, 0] for layer in bank.layers}
            for name in bank.properties
        },
    )
