"""What labelers by image models in .onnx files share: the file, and pictures of the size and colours that it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffprobe.errors import UserError, one_line
from diffprobe.labels.labeler import SinglePropertyLabeler
from diffprobe.ranges import Items, Number

Means = Annotated[Sequence[float], Items(3, 3, distinct=False)]
Deviations = Annotated[Sequence[Annotated[float, Number(above=0)]], Items(3, 3, distinct=False)]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class OnnxFamily:
    """How a kind of model wants its pictures.

    Attributes:
        size: height and width where the file leaves them open; 0 for those of the image.
        mean, std: of each colour, subtracted and divided by after scaling to [0, 1].
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class OnnxLabeler(SinglePropertyLabeler):
    """A labeler of one property by a network in an .onnx file that takes one picture at a time.

    Args:
        path: the .onnx file.
        family: a name among `families`.
        mean, std: of each colour, in place of the family's.
        device: 'cpu', or anything else to use CUDA where onnxruntime-gpu offers it.

    Raises:
        UserError: onnxruntime or the file is missing, or the file takes no pictures.
    """

    families: ClassVar[Mapping[str, OnnxFamily]]
    models: ClassVar[str]  # their names, for messages

    def __init__(
        self,
        path: str | Path | None,
        family: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        device: str,
    ) -> None:
        name = self.labels
        if family not in self.families:
            raise UserError(f"labeler.{name}.family={family}: use one of {', '.join(self.families)}")
        known = self.families[family]
        self.mean, self.std = (_colours(given, name) for given in (mean or known.mean, std or known.std))
        if path is None or not Path(path).expanduser().is_file():
            problem = "no model is set" if path is None else f"there is no file {path}"
            raise UserError(
                f"{problem} to label {name} with; give labeler.{name}.path=FILE.onnx ({self.models}), "
                f"or maps: labeler/{name}=files labeler.{name}.path=FOLDER"
            )
        self.path = Path(path).expanduser()
        self.session = _session(self.path, name, device)
        entry = self.session.get_inputs()[0]
        self._input = entry.name
        self._type = {"tensor(float)": np.float32, "tensor(float16)": np.float16}.get(entry.type)
        size = _size(entry.shape, known.size)
        if self._type is None or size is None:
            raise UserError(
                f"{path} takes {entry.type} {entry.shape}; a {name} model takes float pictures [1, 3, height, width]"
            )
        self.size, self._more = size, self.session.get_inputs()[1:]

    def weights(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def run(self, picture: Tensor, *more: Tensor) -> list[Tensor]:
        """A picture [1, 3, height, width] in [0, 1], of `size`, and what goes into inputs after the first -> the
        network's outputs in float32."""
        inputs = {self._input: (picture - self.mean) / self.std}
        inputs |= {entry.name: values for entry, values in zip(self._more, more, strict=False)}
        answers = self.session.run(None, {name: values.numpy().astype(self._type) for name, values in inputs.items()})
        return [torch.from_numpy(np.asarray(answer, np.float32)) for answer in answers]


def _session(path: Path, name: str, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"labelling {name} with an .onnx file needs onnxruntime: pip install -e '.[saliency]' -c constraints.txt"
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


def _colours(values: Sequence[float], name: str) -> Tensor:
    if len(values) != 3:
        raise UserError(f"mean and std of a {name} model have three numbers each, not {list(values)}")
    return torch.tensor(list(values), dtype=torch.float32).reshape(1, 3, 1, 1)
