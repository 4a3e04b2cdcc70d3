"""Depth by an image model of transformers: DPT (MiDaS), Depth Anything and others."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from diffprobe.backbone.load import chosen_device
from diffprobe.backbone.model_folder import fingerprint_of
from diffprobe.errors import UserError
from diffprobe.labels.labeler import SinglePropertyLabeler, load_image_model, processed, try_on_noise
from diffprobe.ranges import Choice, Number, Text

INVERSE, DISTANCE = "inverse_depth", "distance"
# Weights that published files lack, with the reason why that changes nothing.
UNUSED = {
    r"^neck\.fusion_stage\.layers\.0\.residual_layer1\.": "the first fusion layer has nothing to add to its input, so "
    "DPT's files leave this out; transformers makes it all the same",
}
NEAREST = 0.1  # metres; nearer counts as this near, so that one pixel cannot outweigh all others


class TransformersDepth(SinglePropertyLabeler):
    """Relative inverse depth, larger is nearer, at the size of the images (bicubic, as in MiDaS).

    The output of models that give a distance is inverted.

    Args:
        model: a folder written by `save_pretrained`, or a hub id such as 'Intel/dpt-large' or
            'depth-anything/Depth-Anything-V2-Small-hf'.
        output: what the model gives, 'inverse_depth' or 'distance'; None to take it from its configuration.

    Raises:
        UserError: the model cannot be loaded or run, lacks weights that it needs, or does not say what it gives.
    """

    labels = "depth"

    def __init__(
        self,
        model: Annotated[str, Text()],
        device: Annotated[str, Text()] = "auto",
        batch_size: Annotated[int, Number(1, 100_000)] = 8,
        output: Annotated[str, Choice(INVERSE, DISTANCE)] | None = None,
    ) -> None:
        self.device, self.batch_size = chosen_device(device), batch_size
        self.processor, self.network, missing = load_image_model(
            model, "DepthEstimation", "depth model", "labeler.depth.model", "Intel/dpt-large", UNUSED
        )
        self.output = output or _output_of(self.network.config, model)
        if self.output not in (INVERSE, DISTANCE):
            raise UserError(f"labeler.depth.output={output}: use {INVERSE} or {DISTANCE}")
        self.network.to(self.device).requires_grad_(False).eval()
        values = try_on_noise(self._depth, f"the depth model {model!r} does not run here")
        if not values.isfinite().all():
            lacks = f"; its files lack {len(missing)} weights, such as {missing[0]}" if missing else ""
            raise UserError(f"the depth model {model!r} gives depth that is not finite{lacks}")

    def maps(self, images: Tensor) -> Tensor:
        return torch.cat([self._depth(batch) for batch in images.split(self.batch_size)])

    def determinants(self) -> list[Any]:
        return [fingerprint_of(self.network), self.processor.to_dict(), self.output, NEAREST]

    @torch.no_grad()
    def _depth(self, images: Tensor) -> Tensor:
        output = self.network(**processed(self.processor, images).to(self.device))
        # Sizes by position, as in transformers' own pipeline: models give this argument different names.
        depths = self.processor.post_process_depth_estimation(output, [images.shape[-2:]] * len(images))
        values = torch.stack([each["predicted_depth"] for each in depths]).float().cpu()
        return values if self.output == INVERSE else 1 / values.clamp_min(NEAREST)


def _output_of(config: Any, model: str) -> str:
    """What a published model of this configuration gives.

    DPT on DINOv2 (facebook/dpt-dinov2-*) was trained on distances, the DPT of MiDaS on inverse depth.
    """
    kind = config.model_type
    backbone = getattr(getattr(config, "backbone_config", None), "model_type", None)
    if kind == "dpt" and backbone != "dinov2":
        return INVERSE
    if kind == "depth_anything":
        return INVERSE if config.depth_estimation_type == "relative" else DISTANCE
    if kind in ("glpn", "zoedepth"):
        return DISTANCE
    raise UserError(
        f"the depth model {model!r} ({kind}) does not say whether near things have large or small values; give "
        f"labeler.depth.output={INVERSE} (large) or labeler.depth.output={DISTANCE} (small)"
    )
