"""Rows and pictures as what Weights & Biases shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from diffprobe.errors import UserError
from diffprobe.report.example import PredictionExample
from diffprobe.tables import NO_STEP

CLASSES = {0: "background", 1: "salient"}


def import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError("wandb is not installed: 'pip install wandb', or run with logger=csv") from error
    return wandb


def wandb_table(rows: Sequence[Any]) -> Any:
    """Rows of a data class; no number where a row belongs to no step."""
    columns = [column.name for column in fields(rows[0])]
    data = [
        [None if value == NO_STEP and name == "step" else value for name, value in asdict(row).items()] for row in rows
    ]
    return import_wandb().Table(columns=columns, data=data)


def wandb_figure(path: Path) -> Any:
    """A PNG file as a picture, a GIF as a film."""
    wandb = import_wandb()
    return wandb.Video(str(path), format="gif") if path.suffix == ".gif" else wandb.Image(str(path))


def overlay(example: PredictionExample, step: int) -> Any:
    """The decoded image of one step with predicted and labelled salient regions as masks."""
    row = example.steps.index(step)
    height, width = example.images.shape[1:3]

    def mask(values: np.ndarray) -> dict[str, Any]:
        lines = np.arange(height) * values.shape[0] // height  # nearest neighbour
        columns = np.arange(width) * values.shape[1] // width
        return {"mask_data": (values[lines][:, columns] > 0.5).astype(np.uint8), "class_labels": CLASSES}

    return import_wandb().Image(
        (example.images[row].clip(0, 1) * 255).round().astype(np.uint8),
        caption=f"{example.title}, step {step + 1}",
        masks={"prediction": mask(example.predictions["saliency"][row]), "label": mask(example.labels["saliency"])},
    )
