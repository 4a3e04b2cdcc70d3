"""Surface normals by an image model in an .onnx file: DSINE, Omnidata, DAViD.

Here a normal points away from its surface, to the side that is seen, and has three channels: right, up, and towards the
camera. A wall that faces the camera is (0, 0, 1), a floor (0, 1, 0), a wall at the left (1, 0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffprobe.labels.onnx_maps import MapFamily, OnnxMapLabeler
from diffprobe.labels.onnx_models import IMAGENET, Deviations, Means
from diffprobe.properties.vector import SHORTEST
from diffprobe.ranges import Choice, Number, Text


@dataclass(frozen=True)
class NormalsFamily(MapFamily):
    """The input and output of a kind of model.

    Attributes:
        signs: by which its channels are multiplied to become right, up, and towards the camera.
    """

    signs: tuple[int, int, int] = (1, 1, 1)


PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
FAMILIES = {
    # baegwangbin/DSINE: projects/dsine/test_minimal.py, utils/utils.py (margins) and utils/projection.py (camera). The
    # README: right, down, front, and a normal points away from the camera; a wall that faces it is (0, 0, 1).
    "dsine": NormalsFamily(0, *IMAGENET, multiple=32, intrinsics=True, refined=True, signs=(-1, 1, 1)),
    # EPFL-VILAB/omnidata: omnidata_tools/torch/demo.py; [0, 1] stands for [-1, 1]. Its axes are not written down. By
    # assets/demo/test1_normal.png there: right, down, front, and a normal points to the side that is seen.
    "omnidata": NormalsFamily(384, *PLAIN, unit_range=True, signs=(1, -1, -1)),
    # microsoft/DAViD: runtime/utils.py, pixelwise_estimator.py and surface_normal_estimator.py. By visualize.py and
    # img/face_gt.jpg there: right, up, towards the camera.
    "david": NormalsFamily(512, *PLAIN, bgr=True, antialias=False),
}


class OnnxNormals(OnnxMapLabeler):
    """Unit vectors [3, height, width]: right, up, and towards the camera; of length 0 where the model gives none.

    Args:
        path: the .onnx file.
        family: 'dsine', 'omnidata' or 'david': how images are prepared, and which way axes point.
        field_of_view: of the image's longer side in degrees, for DSINE; 60 is what its own code assumes.
        mean, std: of each colour, in place of the family's.
        device: 'cpu', or anything else to use CUDA where onnxruntime-gpu offers it.

    Raises:
        UserError: onnxruntime or the file is missing, or the file is no model of this kind.
    """

    labels = "normals"
    families = FAMILIES
    models = "DSINE, Omnidata or DAViD"
    channels = 3

    def __init__(
        self,
        path: str | Path | None,
        family: Annotated[str, Choice(*FAMILIES)] = "dsine",
        field_of_view: Annotated[float, Number(above=0, below=180)] = 60.0,
        mean: Means | None = None,
        std: Deviations | None = None,
        device: Annotated[str, Text()] = "auto",
    ) -> None:
        super().__init__(path, family, mean, std, device, field_of_view)
        self.signs = torch.tensor(FAMILIES[family].signs, dtype=torch.float32)[:, None, None]
        self._try()

    def labels_of(self, values: Tensor) -> Tensor:
        vectors = self.signs * (2 * values - 1 if self.family.unit_range else values)
        there = vectors.square().sum(0) > SHORTEST**2
        return torch.where(there, normalize(vectors, dim=0), 0.0)
