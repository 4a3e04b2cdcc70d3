"""Shading by Intrinsic (Careaga and Aksoy 2023), a package that is installed from its own repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffprobe.backbone.load import chosen_device
from diffprobe.backbone.model_folder import fingerprint_of
from diffprobe.errors import UserError, one_line
from diffprobe.labels.labeler import SinglePropertyLabeler, eight_bit, try_on_noise
from diffprobe.ranges import Text

INSTALL = "pip install https://github.com/compphoto/Intrinsic/archive/main.zip"
GREY = 1  # the stage of its pipeline that gives grey shading
LEAST = 0.001  # smallest inverse shading, as in Intrinsic itself


class IntrinsicShading(SinglePropertyLabeler):
    """Irradiance, from the grey shading of Intrinsic, which is given as 1 / (shading + 1).

    Tested with a stand-in that has the interface of the package's public code (main branch of April 2025), not with
    the package and its weights.

    Args:
        weights: a name that Intrinsic knows: 'paper_weights' (of the ordinal shading paper), 'rendered_only', 'v2',
            'v2.1'; or a list of files, the ordinal and the intrinsic network first. Intrinsic downloads named ones.
        device: as in `load_backbone`.

    Raises:
        UserError: the package is missing, is not the one meant, or cannot load its weights.
    """

    labels = "shading"

    def __init__(self, weights: str | Sequence[str] = "paper_weights", device: Annotated[str, Text()] = "auto") -> None:
        self.device = str(chosen_device(device))
        try:
            from intrinsic import pipeline  # type: ignore[import-not-found]
        except ImportError as error:
            raise UserError(
                f"labelling shading needs Intrinsic (compphoto/Intrinsic), which cannot be imported ({error}): "
                f"{INSTALL}; or give maps: labeler/shading=files labeler.shading.path=FOLDER"
            ) from error
        self._pipeline: Any = pipeline
        for file in [] if isinstance(weights, str) else weights:
            try:  # Intrinsic unpickles its files, which would run code in them
                torch.load(file, map_location="meta", weights_only=True)
            except Exception as error:  # a damaged file can make the unpickler raise nearly anything
                raise UserError(
                    f"labeler.shading.weights: {file} is no file of weights alone: {one_line(error)}"
                ) from error
        named = weights if isinstance(weights, str) else list(weights)
        try:
            self.models: dict[str, nn.Module] = self._pipeline.load_models(named, stage=GREY, device=self.device)
        except Exception as error:  # downloading, reading and fitting weights each raise other kinds
            raise UserError(f"Intrinsic cannot load the weights {named}: {one_line(error)}") from error
        try_on_noise(self.maps, f"Intrinsic does not run here (the current release: {INSTALL})")

    def maps(self, images: Tensor) -> Tensor:
        return torch.stack([self._shading(image) for image in images])

    def determinants(self) -> list[Any]:
        return ["intrinsic", GREY, LEAST, {name: fingerprint_of(model) for name, model in self.models.items()}]

    def _shading(self, image: Tensor) -> Tensor:
        """[3, height, width] in [0, 1] -> [height, width], resized from the size that Intrinsic chooses."""
        picture = eight_bit(image).permute(1, 2, 0).numpy().astype(np.float32) / 255
        results = self._pipeline.run_pipeline(self.models, picture, stage=GREY, device=self.device)
        if "gry_shd" not in results:
            raise ValueError(f"no 'gry_shd' among its results {', '.join(results)}")
        inverse = torch.as_tensor(np.asarray(results["gry_shd"], np.float32))[None, None]
        inverse = functional.interpolate(inverse, size=image.shape[-2:], mode="bilinear", antialias=True)[0, 0]
        return 1 / inverse.clamp(LEAST, 1) - 1
