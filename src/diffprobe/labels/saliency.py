"""Saliency by an image model in an .onnx file: IS-Net, U2-Net, BiRefNet and others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.labels.labeler import eight_bit, try_on_noise
from diffprobe.labels.onnx_models import IMAGENET, Deviations, Means, OnnxFamily, OnnxLabeler
from diffprobe.ranges import Choice, Number, Text


@dataclass(frozen=True)
class SaliencyFamily(OnnxFamily):
    """The input and output of a kind of model.

    Attributes:
        to_brightest: whether images are divided by their largest value instead of 255.
        logits: whether the first output needs a sigmoid.
    """

    to_brightest: bool = False
    logits: bool = False


# From the inference code of each: xuebinqin/DIS, xuebinqin/U-2-Net, ZhengPeng7/BiRefNet.
FAMILIES = {
    "isnet": SaliencyFamily(1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
    "u2net": SaliencyFamily(320, *IMAGENET, to_brightest=True),
    "birefnet": SaliencyFamily(1024, *IMAGENET, logits=True),
}


class OnnxSaliency(OnnxLabeler):
    """1 where the model sees the salient object, else 0.

    The model's map is stretched to [0, 1] over each image, as in these models' own code, resized to the image and
    compared with `threshold`.

    Args:
        path: the .onnx file.
        family: 'isnet', 'u2net' or 'birefnet': how images are prepared.
        threshold: above which a pixel is salient.
        mean, std: of each colour, in place of the family's.
        device: 'cpu', or anything else to use CUDA where onnxruntime-gpu offers it.

    Raises:
        UserError: onnxruntime or the file is missing, or the file is no model of this kind.
    """

    labels = "saliency"
    families = FAMILIES
    models = "IS-Net, U2-Net or BiRefNet"

    def __init__(
        self,
        path: str | Path | None,
        family: Annotated[str, Choice(*FAMILIES)] = "isnet",
        threshold: Annotated[float, Number(above=0, below=1)] = 0.5,
        mean: Means | None = None,
        std: Deviations | None = None,
        device: Annotated[str, Text()] = "auto",
    ) -> None:
        super().__init__(path, family, mean, std, device)
        self.family, self.threshold = FAMILIES[family], threshold
        try_on_noise(self.maps, f"{path} does not run as a saliency model")

    def maps(self, images: Tensor) -> Tensor:
        return torch.stack([(self._probability(image) > self.threshold).float() for image in images])

    def determinants(self) -> list[Any]:
        colours = [self.mean.tolist(), self.std.tolist()]
        return [self.weights(), asdict(self.family), self.size, *colours, self.threshold]

    def _probability(self, image: Tensor) -> Tensor:
        """[3, height, width] in [0, 1] -> [height, width], from 0 to 1; one image at a time, as most files want."""
        picture = eight_bit(image)[None].float()
        picture = picture / (picture.max().clamp_min(1) if self.family.to_brightest else 255)
        answer = self.run(functional.interpolate(picture, size=self.size, mode="bilinear", antialias=True))[0]
        if answer.ndim not in (3, 4) or len(answer) != 1:
            raise ValueError(f"its first output is {list(answer.shape)}, not a map [1, 1, height, width]")
        values = answer.sigmoid() if self.family.logits else answer
        values = values.reshape(1, -1, *values.shape[-2:])[:, :1]
        low, high = values.amin(), values.amax()
        if high > low:  # a map of one value has no salient object
            values = (values - low) / (high - low)
        return functional.interpolate(values, size=image.shape[-2:], mode="bilinear", antialias=True)[0, 0]
