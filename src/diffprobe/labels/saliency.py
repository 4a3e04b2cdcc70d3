"""Saliency by an image model in an .onnx file: IS-Net, U2-Net, BiRefNet and others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.errors import UserError, one_line
from diffprobe.labels.labeler import SinglePropertyLabeler, eight_bit, try_on_noise
from diffprobe.ranges import Choice, Items, Number, Text


@dataclass(frozen=True)
class OnnxFamily:
    """The input and output of a kind of model.

    Attributes:
        size: height and width where the file leaves them open.
        mean, std: of each colour, subtracted and divided by after scaling to [0, 1].
        to_brightest: whether images are divided by their largest value instead of 255.
        logits: whether the first output needs a sigmoid.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    to_brightest: bool = False
    logits: bool = False


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# From the inference code of each: xuebinqin/DIS, xuebinqin/U-2-Net, ZhengPeng7/BiRefNet.
FAMILIES = {
    "isnet": OnnxFamily(1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
    "u2net": OnnxFamily(320, *IMAGENET, to_brightest=True),
    "birefnet": OnnxFamily(1024, *IMAGENET, logits=True),
}


class OnnxSaliency(SinglePropertyLabeler):
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

    def __init__(
        self,
        path: str | Path | None,
        family: Annotated[str, Choice(*FAMILIES)] = "isnet",
        threshold: Annotated[float, Number(above=0, below=1)] = 0.5,
        mean: Annotated[Sequence[float], Items(3, 3, distinct=False)] | None = None,
        std: Annotated[Sequence[Annotated[float, Number(above=0)]], Items(3, 3, distinct=False)] | None = None,
        device: Annotated[str, Text()] = "auto",
    ) -> None:
        if family not in FAMILIES:
            raise UserError(f"labeler.saliency.family={family}: use one of {', '.join(FAMILIES)}")
        known = FAMILIES[family]
        self.mean, self.std = _colours(mean or known.mean), _colours(std or known.std)
        if path is None or not Path(path).expanduser().is_file():
            problem = "no model is set" if path is None else f"there is no file {path}"
            raise UserError(
                f"{problem} to label saliency with; give labeler.saliency.path=FILE.onnx (IS-Net, U2-Net or BiRefNet), "
                "or maps: labeler/saliency=files labeler.saliency.path=FOLDER"
            )
        self.path, self.family, self.threshold = Path(path).expanduser(), known, threshold
        self.session = _session(self.path, device)
        entry = self.session.get_inputs()[0]
        self._input = entry.name
        self._type = {"tensor(float)": np.float32, "tensor(float16)": np.float16}.get(entry.type)
        self.size = _size(entry.shape, known.size)
        if self._type is None or self.size is None:
            raise UserError(
                f"{path} takes {entry.type} {entry.shape}; a saliency model takes float pictures [1, 3, height, width]"
            )
        try_on_noise(self.maps, f"{path} does not run as a saliency model")

    def maps(self, images: Tensor) -> Tensor:
        return torch.stack([(self._probability(image) > self.threshold).float() for image in images])

    def determinants(self) -> list[Any]:
        with self.path.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        return [weights, asdict(self.family), self.size, self.mean.tolist(), self.std.tolist(), self.threshold]

    def _probability(self, image: Tensor) -> Tensor:
        """[3, height, width] in [0, 1] -> [height, width], from 0 to 1; one image at a time, as most files want."""
        picture = eight_bit(image)[None].float()
        picture = picture / (picture.max().clamp_min(1) if self.family.to_brightest else 255)
        picture = functional.interpolate(picture, size=self.size, mode="bilinear", antialias=True)
        inputs = ((picture - self.mean) / self.std).numpy().astype(self._type)
        answer = torch.from_numpy(np.asarray(self.session.run(None, {self._input: inputs})[0], np.float32))
        if answer.ndim not in (3, 4) or len(answer) != 1:
            raise ValueError(f"its first output is {list(answer.shape)}, not a map [1, 1, height, width]")
        values = answer.sigmoid() if self.family.logits else answer
        values = values.reshape(1, -1, *values.shape[-2:])[:, :1]
        low, high = values.amin(), values.amax()
        if high > low:  # a map of one value has no salient object
            values = (values - low) / (high - low)
        return functional.interpolate(values, size=image.shape[-2:], mode="bilinear", antialias=True)[0, 0]


def _session(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "labelling saliency with an .onnx file needs onnxruntime: pip install -e '.[saliency]' -c constraints.txt"
        ) from error
    wanted = ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own kinds have no common class
        raise UserError(f"cannot load {path} as an ONNX model: {one_line(error)}") from error


def _size(shape: Sequence[Any], default: int) -> tuple[int, int] | None:
    """Height and width of a model's input; None if that is not one image of three colours."""
    if len(shape) != 4:
        return None
    one, three, height, width = (
        side if isinstance(side, int) and side > 0 else if_open
        for side, if_open in zip(shape, (1, 3, default, default), strict=True)
    )
    return (height, width) if (one, three) == (1, 3) else None


def _colours(values: Sequence[float]) -> Tensor:
    if len(values) != 3:
        raise UserError(f"mean and std of a saliency model have three numbers each, not {list(values)}")
    return torch.tensor(list(values), dtype=torch.float32).reshape(1, 3, 1, 1)
