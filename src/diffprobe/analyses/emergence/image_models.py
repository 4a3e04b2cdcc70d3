"""Image models on the unfinished image: what the labelers see in the picture after every step, beside the probes."""

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
from diffprobe.probes.properties import Property, Standardisation
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.probes.scoring import pooled_targets, predict_maps, score_maps
from diffprobe.probes.study.question import one_valued, skip_flat

if TYPE_CHECKING:
    from diffprobe.activations.extraction import Extraction
    from diffprobe.backbone.load import Backbone
    from diffprobe.probes.bank import ProbeBank

IMAGE_MODEL = "image_model"  # in the columns `layer` and `control`
_CUT = 0.5  # a labeler's saliency is 0 or 1 already


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

    @property
    def moments(self) -> list[tuple[int, float | None]]:
        """Step and timestep of every probed step."""
        return list(zip(self.bank.steps, self.activations.timesteps, strict=True))


@dataclass(frozen=True)
class ActivationBatch:
    """One test image for the pictures.

    Attributes:
        row: its number in the source.
        steps: as it looks after every step, [steps, 3, H, W] in [0, 1].
        final: as it is at the end, [3, H, W].
        labels: label maps of the finished image, {property: [H, W]}.
        probes: what the probes say in the labels' units, {property: {layer: [steps, h, w]}}.
        image_models: what the labeler says of `steps`, {property: [steps, H, W]}.
    """

    row: int
    steps: Tensor
    final: Tensor
    labels: dict[str, Tensor]
    probes: dict[str, dict[str, Tensor]]
    image_models: dict[str, Tensor]


def step_names(names: Sequence[str], steps: Sequence[int]) -> list[str]:
    """What the pictures of unfinished images are called, image by image: '<image>_step_<step from 0>'."""
    return [f"{name}_step_{step}" for name in names for step in steps]


def check_labeler(
    labeler: Labeler, names: Sequence[str], steps: Sequence[int], properties: Sequence[str], image_size: int
) -> None:
    """Makes sure that the pictures after every step of the images called `names` can be labelled.

    Raises:
        UserError: they cannot, as where maps are files and there are files of finished images alone.
    """
    try:
        check_reference_maps(labeler, step_names(names, steps), properties, image_size)
    except UserError as error:
        raise UserError(
            f"the unfinished images are to be labelled too, and that labeler cannot: {error}. Choose an image model "
            "(labeler=image_models), or add maps of the decoded image after each step, counted from 0"
        ) from error


def score_image_models(
    backbone: Backbone, labeler: Labeler, probed: ProbesUnderTest, *, shown: int = 0
) -> tuple[pd.DataFrame, list[ActivationBatch]]:
    """Labels every test image as it looks after every step, and scores these maps against the finished image's label.

    The comparison of Chen, Viégas and Wattenberg (2023). The pictures are the decoded latents after each step of the
    scheduler. Scores are those of the probes, by the same code: at image resolution, per image, rmse in standard
    deviations of the probes' training labels. Saliency is cut where the labeler cuts it.

    Args:
        shown: how many of the test images are returned for pictures.

    Returns:
        Rows with layer and control 'image_model' and split 'test', and the first images with all that was seen.
    """
    items = probed.bank.properties
    names = [probed.activations.names[row] for row in probed.rows]
    values: dict[tuple[str, str], list[Tensor]] = {}
    seen = []
    for row, name in zip(probed.rows, names, strict=True):
        pictures = probed.extraction.decode_steps(backbone, row)
        maps = labeler(pictures, step_names([name], probed.bank.steps), list(items))
        for key, item in items.items():
            standardised = probed.bank.standardisations[key].apply(item.target(maps[key]))
            cuts = [_CUT] * len(pictures)
            for metric, found in _scored(probed, item, standardised[:, None], [row], cuts).items():
                values.setdefault((key, metric), []).append(found)
        if len(seen) < shown:
            seen.append(_seen(probed, row, pictures, maps))
    blocks = []
    for (key, metric), found in values.items():
        keys = (backbone.name, IMAGE_MODEL, key, probed.probe, IMAGE_MODEL, "test", metric)
        blocks.append(ScoreBlock(*keys, probed.moments, names, torch.cat(found, 1).double().cpu().numpy()))
    return skip_flat(score_table(blocks), _flat(probed)), seen


@torch.no_grad()
def score_loaded_bank(probed: ProbesUnderTest, model: str) -> pd.DataFrame:
    """Every metric of every probe on the test images, as `score_bank` scores a bank it has trained."""
    bank, rows = probed.bank, list(probed.rows)
    names = [probed.activations.names[row] for row in rows]
    blocks = []
    for layer in bank.layers:
        outputs = bank(layer, probed.activations.values[layer][:, rows])
        for key, item in bank.properties.items():
            cuts = bank.thresholds[key][layer] if item.binary else []
            for metric, values in _scored(probed, item, item.decode(outputs[key]), rows, cuts).items():
                keys = (model, layer, key, probed.probe, "none", "test", metric)
                blocks.append(ScoreBlock(*keys, probed.moments, names, values.double().cpu().numpy()))
    return skip_flat(score_table(blocks), _flat(probed))


def _flat(probed: ProbesUnderTest) -> list[tuple[str, str]]:
    """(property, image) of the test images' labels that have one value everywhere."""
    rows = list(probed.rows)
    targets = {key: item.target(probed.targets[key][rows]) for key, item in probed.bank.properties.items()}
    return one_valued(targets, [probed.activations.names[row] for row in rows])


def _scored(
    probed: ProbesUnderTest, item: Property, maps: Tensor, rows: Sequence[int], cuts: Sequence[float]
) -> dict[str, Tensor]:
    """Metrics [steps, images] of standardised maps [steps, images, h, w] against the labels of the images `rows`."""
    standardisation: Standardisation = probed.bank.standardisations[item.name]
    target = standardisation.apply(item.target(probed.targets[item.name][list(rows)]))
    grid = (maps.shape[-2], maps.shape[-1])
    return score_maps(item, maps, pooled_targets(item, target, [grid])[grid], cuts)


def _seen(probed: ProbesUnderTest, row: int, pictures: Tensor, maps: dict[str, Tensor]) -> ActivationBatch:
    bank = probed.bank
    return ActivationBatch(
        row=row,
        steps=pictures,
        final=probed.extraction.extras["image"][row],
        labels={name: probed.targets[name][row] for name in bank.properties},
        probes={
            name: {layer: predict_maps(bank, probed.activations, name, layer, [row])[:, 0] for layer in bank.layers}
            for name in bank.properties
        },
        image_models=maps,
    )
