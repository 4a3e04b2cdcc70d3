"""Fills `Activations` by running the frozen network once over all images, as Lightning prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffprobe.backbone.calls import decode_latents
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep, fresh_scheduler, generate, replay
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.features.activations import Activations


@dataclass(frozen=True)
class Extraction:
    """What one pass over the prompts leaves.

    Attributes:
        activations: of the wanted layers at the wanted steps.
        images: [images, 3, height, width] in [0, 1], the generated images.
        noisy: [steps, images, channels, height, width], the latents that the denoiser saw at the wanted steps.
        shown: row -> [steps, 3, height, width], the images of some rows decoded after each wanted step.
    """

    activations: Activations
    images: Tensor
    noisy: Tensor
    shown: dict[int, Tensor]


class TrajectoryModule(lightning.LightningModule):
    """Runs the frozen pipeline on rows of `prompts`; `predict_step` yields that batch's trajectory steps."""

    def __init__(
        self, backbone: Backbone, prompts: Sequence[Prompt], layers: Sequence[str], sampling_steps: int, half: str
    ) -> None:
        super().__init__()
        self.backbone, self.prompts = backbone, prompts
        self.layers, self.sampling_steps, self.wanted_half = list(layers), sampling_steps, half

    def predict_step(self, rows: list[int], *_: Any) -> Iterator[TrajectoryStep]:
        prompts = [self.prompts[row] for row in rows]
        return generate(
            self.backbone,
            [prompt.text for prompt in prompts],
            [prompt.seed for prompt in prompts],
            steps=self.sampling_steps,
            layers=self.layers,
            half=self.wanted_half,
        )


class ReplayModule(lightning.LightningModule):
    """Shows the latents of an earlier pass to another denoiser, such as the permuted control."""

    def __init__(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        prompts: Sequence[Prompt],
        layers: Sequence[str],
        sampling_steps: int,
        steps: Sequence[int],
        noisy: Tensor,
    ) -> None:
        super().__init__()
        self.backbone, self.denoiser, self.prompts = backbone, denoiser, prompts
        self.layers, self.sampling_steps, self.steps, self.noisy = list(layers), sampling_steps, list(steps), noisy

    def predict_step(self, rows: list[int], *_: Any) -> Iterator[tuple[int, float, dict[str, Tensor]]]:
        return replay(
            self.backbone,
            self.denoiser,
            [self.prompts[row].text for row in rows],
            self.noisy[:, rows],
            self.steps,
            steps=self.sampling_steps,
            layers=self.layers,
        )


class _TrajectoryWriter(BasePredictionWriter):
    """Puts each batch's steps in its rows as they are computed, so that no step of a batch is held twice."""

    def __init__(self, extraction: Extraction, backbone: Backbone, sampling_steps: int) -> None:
        super().__init__("batch")
        self.extraction, self.backbone, self.last = extraction, backbone, sampling_steps - 1

    def write_on_batch_end(self, trainer: Any, module: Any, prediction: Any, indices: Any, rows: Any, *_: Any) -> None:
        step: TrajectoryStep
        for step in prediction:
            if step.index in self.extraction.activations.steps:
                self._keep(step, rows)
            if step.index == self.last:
                self.extraction.images[rows] = self._decode(step.latents)

    def _keep(self, step: TrajectoryStep, rows: list[int]) -> None:
        at = self.extraction.activations.steps.index(step.index)
        _store(self.extraction.activations, step.activations, at, rows)
        self.extraction.noisy[at, rows] = step.noisy.float().cpu()
        for place, row in enumerate(rows):
            if row in self.extraction.shown:
                self.extraction.shown[row][at] = self._decode(step.latents[place : place + 1])[0]

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        return decode_latents(self.backbone, latents).cpu()


class _ReplayWriter(BasePredictionWriter):
    def __init__(self, activations: Activations) -> None:
        super().__init__("batch")
        self.activations = activations

    def write_on_batch_end(self, trainer: Any, module: Any, prediction: Any, indices: Any, rows: Any, *_: Any) -> None:
        for index, _, taken in prediction:
            _store(self.activations, taken, self.activations.steps.index(index), rows)


def _store(activations: Activations, taken: dict[str, Tensor], at: int, rows: list[int]) -> None:
    for layer, activation in taken.items():
        values = activations.values[layer]
        values[at, rows] = activation.to("cpu", values.dtype)


def extract(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    layers: Sequence[Layer],
    steps: Sequence[int],
    *,
    sampling_steps: int = 15,
    half: str = "conditional",
    batch_size: int = 8,
    dtype: str = "float16",
    folder: Path | None = None,
    shown: Sequence[int] = (),
    trainer: lightning.Trainer | None = None,
) -> Extraction:
    """Generates every prompt's image and takes the activations of `layers` at `steps` on the way.

    Each (image, step) is evaluated once, whatever is asked. Activations live in memory, or in files of `folder`.

    Args:
        steps: 0-based steps to keep, in order.
        half: of the guidance batch: 'conditional' or 'unconditional'.
        dtype: 'float16', 'bfloat16' or 'float32', of the kept activations.
        shown: rows of the images that are to be decoded after every step.

    Raises:
        UserError: steps outside the trajectory, unknown layers, or activations that overflow the dtype.
    """
    bad = [step for step in steps if not 0 <= step < sampling_steps]
    if bad or not steps:
        raise UserError(
            f"steps {bad or 'none'}: choose from 0 to {sampling_steps - 1} (steps.sampling={sampling_steps})"
        )
    timesteps = fresh_scheduler(backbone, sampling_steps).timesteps
    activations = _allocate(prompts, layers, steps, [float(timesteps[s]) for s in steps], dtype, folder, "activations")
    size = backbone.image_size
    extraction = Extraction(
        activations=activations,
        images=torch.zeros(len(prompts), 3, size, size),
        noisy=torch.zeros(len(steps), len(prompts), *backbone.latent_shape),
        shown={row: torch.zeros(len(steps), 3, size, size) for row in shown},
    )
    names = [layer.name for layer in layers]
    module = TrajectoryModule(backbone, prompts, names, sampling_steps, half)
    _predict(module, len(prompts), batch_size, _TrajectoryWriter(extraction, backbone, sampling_steps), trainer)
    _check_finite(activations)
    return extraction


def extract_replayed(
    backbone: Backbone,
    denoiser: nn.Module,
    prompts: Sequence[Prompt],
    extraction: Extraction,
    *,
    sampling_steps: int = 15,
    batch_size: int = 8,
    folder: Path | None = None,
    trainer: lightning.Trainer | None = None,
) -> Activations:
    """The same activations of another denoiser that is shown the same noisy latents and prompts."""
    like = extraction.activations
    dtype = str(next(iter(like.values.values())).dtype).removeprefix("torch.")
    activations = _allocate(prompts, like.layers, like.steps, like.timesteps, dtype, folder, "control")
    names = [layer.name for layer in like.layers]
    module = ReplayModule(backbone, denoiser, prompts, names, sampling_steps, like.steps, extraction.noisy)
    _predict(module, len(prompts), batch_size, _ReplayWriter(activations), trainer)
    _check_finite(activations)
    return activations


def _predict(
    module: lightning.LightningModule,
    images: int,
    batch_size: int,
    writer: BasePredictionWriter,
    trainer: lightning.Trainer | None,
) -> None:
    rows: Any = range(images)
    trainer = trainer or lightning.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, devices=1, accelerator="cpu"
    )
    trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    try:
        trainer.predict(module, DataLoader(rows, batch_size, collate_fn=list), return_predictions=False)
    finally:
        trainer.callbacks.remove(writer)  # type: ignore[attr-defined]


def _allocate(
    prompts: Sequence[Prompt],
    layers: Sequence[Layer],
    steps: Sequence[int],
    timesteps: list[float],
    dtype: str,
    folder: Path | None,
    name: str,
) -> Activations:
    values = {}
    for number, layer in enumerate(layers):
        shape = (len(steps), len(prompts), layer.channels, layer.height, layer.width)
        if folder is None:
            values[layer.name] = torch.zeros(shape, dtype=getattr(torch, dtype))
        else:
            path = folder / f"{name}-{number:03d}.bin"
            count = torch.Size(shape).numel()
            flat = torch.from_file(str(path), shared=True, size=count, dtype=getattr(torch, dtype))
            values[layer.name] = flat.view(shape)
    return Activations(list(layers), list(steps), timesteps, [prompt.name for prompt in prompts], values)


def _check_finite(activations: Activations) -> None:
    for layer, values in activations.values.items():
        if not all(bool(step.isfinite().all()) for step in values):
            raise UserError(f"activations of {layer} overflow {values.dtype}; use features.dtype=float32")
