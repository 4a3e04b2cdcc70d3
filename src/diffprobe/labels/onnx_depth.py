"""Depth by an image model in an .onnx file: Omnidata, DAViD."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.labels.depth import DISTANCE, INVERSE, NEAREST
from diffprobe.labels.onnx_maps import MapFamily, OnnxMapLabeler
from diffprobe.labels.onnx_models import Deviations, Means
from diffprobe.ranges import Choice, Text

RELATIVE = "relative_distance"  # distance of unknown scale and shift, of which 1 / distance would say nothing


@dataclass(frozen=True)
class DepthFamily(MapFamily):
    """The input and output of a kind of model.

    Attributes:
        output: 'inverse_depth', 'distance' (in metres) or 'relative_distance'.
    """

    output: str = RELATIVE


FAMILIES = {
    # EPFL-VILAB/omnidata: omnidata_tools/torch/demo.py, which shows 1 - output; trained with a scale- and
    # shift-invariant loss on distances (train_depth.py)
    "omnidata": DepthFamily(384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), unit_range=True),
    # microsoft/DAViD: runtime/utils.py, pixelwise_estimator.py and depth_estimator.py, whose `is_inverse` negates
    "david": DepthFamily(512, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), bgr=True, antialias=False),
}


class OnnxDepth(OnnxMapLabeler):
    """Relative inverse depth [height, width], larger is nearer.

    Distances in metres are inverted as in `TransformersDepth`. Distances of unknown scale and shift are negated: ranks
    and standardised values count. Then no label is above 0, and scores that need true depth are NaN.

    Args:
        path: the .onnx file.
        family: 'omnidata' or 'david': how images are prepared.
        output: what the model gives, in place of the family's: 'inverse_depth', 'distance' or 'relative_distance'.
        mean, std: of each colour, in place of the family's.
        device: 'cpu', or anything else to use CUDA where onnxruntime-gpu offers it.

    Raises:
        UserError: onnxruntime or the file is missing, or the file is no model of this kind.
    """

    labels = "depth"
    families = FAMILIES
    models = "Omnidata or DAViD"
    channels = 1

    def __init__(
        self,
        path: str | Path | None,
        family: Annotated[str, Choice(*FAMILIES)] = "omnidata",
        output: Annotated[str, Choice(INVERSE, DISTANCE, RELATIVE)] | None = None,
        mean: Means | None = None,
        std: Deviations | None = None,
        device: Annotated[str, Text()] = "auto",
    ) -> None:
        if output not in (None, INVERSE, DISTANCE, RELATIVE):
            raise UserError(f"labeler.{self.labels}.output={output}: use {INVERSE}, {DISTANCE} or {RELATIVE}")
        super().__init__(path, family, mean, std, device)
        self.output = output or FAMILIES[family].output
        self._try()

    def labels_of(self, values: Tensor) -> Tensor:
        if self.output == DISTANCE:
            return 1 / values[0].clamp_min(NEAREST)
        return values[0] if self.output == INVERSE else -values[0]

    def determinants(self) -> list[Any]:
        return [*super().determinants(), self.output, NEAREST]
