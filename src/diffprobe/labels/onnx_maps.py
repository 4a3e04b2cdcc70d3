"""Maps of numbers or vectors by image models in .onnx files, brought back to the size of the images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.errors import UserError
from diffprobe.labels.labeler import eight_bit, try_on_noise
from diffprobe.labels.onnx_models import OnnxFamily, OnnxLabeler


@dataclass(frozen=True)
class MapFamily(OnnxFamily):
    """How a kind of model wants its pictures, and which of its outputs is the map.

    Attributes:
        bgr: whether colours are in the order blue, green, red.
        antialias: whether pictures are smoothed where they shrink, as Pillow does it; OpenCV does not.
        multiple: pictures of the image's own size get black margins until their sides are multiples of this.
        intrinsics: whether a second input takes the matrix of the camera.
        refined: whether several outputs are ever better versions of the map, so that the last is taken.
        unit_range: whether the map is cut to [0, 1].
    """

    bgr: bool = False
    antialias: bool = True
    multiple: int = 1
    intrinsics: bool = False
    refined: bool = False
    unit_range: bool = False


class OnnxMapLabeler(OnnxLabeler):
    """A labeler by an .onnx file that gives `channels` numbers a pixel.

    Args:
        path, family, mean, std, device: as of `OnnxLabeler`.
        field_of_view: of the image's longer side in degrees, for models that want the matrix of the camera.

    Raises:
        UserError: as of `OnnxLabeler`; or the file takes other inputs, gives no such map, or one that is not finite.
    """

    channels: ClassVar[int]

    def __init__(
        self,
        path: str | Path | None,
        family: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        device: str,
        field_of_view: float = 60.0,
    ) -> None:
        super().__init__(path, family, mean, std, device)
        known = self.families[family]
        assert isinstance(known, MapFamily)
        self.family, self.field_of_view = known, field_of_view
        if len(self._more) > known.intrinsics:  # a file may have them built in
            names = ", ".join(entry.name for entry in self.session.get_inputs())
            taken = "a picture and the matrix of the camera" if known.intrinsics else "pictures alone"
            raise UserError(
                f"{path} takes {len(self._more) + 1} inputs ({names}), and a {self.labels} model of the family "
                f"{family} takes {taken}; choose another with labeler.{self.labels}.family"
            )

    def _try(self) -> None:
        """Raises UserError if the file gives no map of an image of noise."""
        try_on_noise(self._maps, f"{self.path} does not run as a {self.labels} model")

    def maps(self, images: Tensor) -> Tensor:
        try:
            return self._maps(images)
        except ValueError as error:
            raise UserError(f"{self.path}, a {self.labels} model, fails at an image: {error}") from error

    def determinants(self) -> list[Any]:
        camera = [self.field_of_view] if self._more else []
        colours = [self.mean.tolist(), self.std.tolist()]
        return [self.labels, self.weights(), asdict(self.family), self.size, *colours, *camera]

    @abstractmethod
    def labels_of(self, values: Tensor) -> Tensor:
        """What the network gives, [channels, height, width], to a label map."""

    def _maps(self, images: Tensor) -> Tensor:
        return torch.stack([self.labels_of(self._values(image)) for image in images])

    def _values(self, image: Tensor) -> Tensor:
        """[3, height, width] in [0, 1] -> [channels, height, width]; one image at a time, as most files want.

        The map is brought to the image's size bicubically, without antialiasing, as MiDaS and DAViD do it.
        """
        sides: list[int] = list(image.shape[-2:])
        size = [own or side for own, side in zip(self.size, sides, strict=True)]
        picture = eight_bit(image)[None].float() / 255
        picture = functional.interpolate(picture, size=size, mode="bilinear", antialias=self.family.antialias)
        picture = picture.flip(1) if self.family.bgr else picture
        top, bottom, left, right = (
            margin
            for own, side in zip(self.size, size, strict=True)
            for margin in margins(side, 1 if own else self.family.multiple)
        )
        padded = functional.pad(picture, (left, right, top, bottom))
        camera = intrinsics(size, sides, self.field_of_view)
        camera[0, :2, 2] += torch.tensor([left, top])
        values = self._map(self.run(padded, camera), padded.shape[-2:] if padded.shape != picture.shape else None)
        values = values[..., top : values.shape[-2] - bottom, left : values.shape[-1] - right]
        return functional.interpolate(values, size=sides, mode="bicubic")[0]

    def _map(self, outputs: Sequence[Tensor], size: torch.Size | None) -> Tensor:
        """The output that is a map, [1, channels, height, width]. Raises ValueError without one, with values that are
        not finite, or with another `size` than that of a picture with margins."""
        shapes = [list(each.shape) for each in outputs]
        found = [each for each, shape in zip(outputs, shapes, strict=True) if self._is_map(shape)]
        if not found:
            wanted = f"[1, {self.channels}, height, width]"
            raise ValueError(f"its outputs are {', '.join(map(str, shapes))}, and none is a map {wanted}")
        values = found[-1 if self.family.refined else 0]
        values = values.reshape(1, self.channels, *values.shape[-2:])
        if not values.isfinite().all():
            raise ValueError("its map has values that are infinite or not numbers")
        if size is not None and values.shape[-2:] != size:
            raise ValueError(f"its map is {list(values.shape[-2:])} of a picture {list(size)}; they must be the same")
        return values.clamp(0, 1) if self.family.unit_range else values

    def _is_map(self, shape: Sequence[int]) -> bool:
        without_channel = self.channels == 1 and len(shape) == 3 and shape[0] == 1
        return without_channel or (len(shape) == 4 and list(shape[:2]) == [1, self.channels])


def margins(side: int, multiple: int) -> tuple[int, int]:
    """Pixels to be added before and after, so that a side becomes a multiple; the smaller half is before."""
    lacking = -side % multiple
    return lacking // 2, lacking - lacking // 2


def intrinsics(size: Sequence[int], sides: Sequence[int], degrees: float) -> Tensor:
    """The matrix of a camera [1, 3, 3], in pixels whose centres are whole numbers, the first (0, 0).

    Args:
        size: height and width of the picture.
        sides: those of the image that was stretched to it.
        degrees: field of view of the image's longer side.
    """
    height, width = size
    focal = max(sides) / 2 / math.tan(math.radians(degrees) / 2)
    across, down = focal * width / sides[1], focal * height / sides[0]
    return torch.tensor([[[across, 0.0, width / 2 - 0.5], [0.0, down, height / 2 - 0.5], [0.0, 0.0, 1.0]]])
