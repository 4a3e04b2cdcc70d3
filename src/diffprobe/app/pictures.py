"""What the page shows of images, masks and maps, as arrays of pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.app.equipment import Equipment
from diffprobe.app.session import GeneratedImage, label_of
from diffprobe.errors import UserError
from diffprobe.properties import Property

SIDE = 384  # pixels of every picture: six times pocket's
LINE = 3  # pixels, of an outline; black outside and white inside, so that it shows on any colour
GAP = 8  # pixels between pictures
GREY = 128  # of a gap, to be seen in light and dark


def picture(image: Tensor) -> np.ndarray:
    """An image [3, H, W] in [0, 1] as [SIDE, SIDE, 3] in 0 to 255."""
    return _eight_bit(_enlarged(image))


def draw_outline(image: Tensor, mask: Tensor) -> np.ndarray:
    """An image [3, H, W] with the outline of a mask [h, w] in {0, 1}, as [SIDE, SIDE, 3]."""
    inside = _enlarged(mask[None].float())
    outer = functional.max_pool2d(inside, 2 * LINE + 1, 1, LINE) > inside
    inner = -functional.max_pool2d(-inside, 2 * LINE + 1, 1, LINE) < inside
    return _eight_bit(_enlarged(image).masked_fill(outer, 0.0).masked_fill(inner, 1.0))


def apply_colours(item: Property, values: Tensor, at: int) -> np.ndarray:
    """The map at one of the steps of `values` [steps, h, w] in the property's colours, as [SIDE, SIDE, 3]."""
    from matplotlib import colormaps

    look = item.picture(values.numpy(), values.numpy())
    coloured = look.values[at]
    if look.colours is not None:
        shares = (coloured - look.low) / ((look.high - look.low) or 1.0)
        coloured = colormaps[look.colours](np.clip(shares, 0, 1))[..., :3]
    return _eight_bit(_enlarged(torch.from_numpy(coloured).movedim(-1, 0)))


def _enlarged(image: Tensor) -> Tensor:
    return functional.interpolate(image[None], (SIDE, SIDE), mode="nearest")[0]


def _eight_bit(image: Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()


def draw_step(equipment: Equipment, image: GeneratedImage, layer: str, step: int) -> np.ndarray:
    """The image after a step (from 0), with the outline of what the probe of the mask takes for the object.

    Raises:
        UserError: the probes are of other steps.
    """
    at, name = _place(image, step), equipment.mask
    foreground = image.maps[name][layer][at] > equipment.bank.thresholds[name][layer][at]
    return draw_outline(image.images[step], foreground)


def draw_map(equipment: Equipment, image: GeneratedImage, name: str, layer: str, step: int) -> np.ndarray:
    """What the probe of a property on a layer sees at a step (from 0). Raises UserError as `draw_step`."""
    return apply_colours(equipment.bank.properties[name], image.maps[name][layer], _place(image, step))


def _place(image: GeneratedImage, step: int) -> int:
    """Of a step among those of the probes. Raises UserError where there is none."""
    if step not in image.steps:
        steps = ", ".join(str(each + 1) for each in image.steps)
        raise UserError(f"there are no probes of step {step + 1}; choose one of {steps}")
    return image.steps.index(step)


def draw_label(equipment: Equipment, image: GeneratedImage, name: str) -> np.ndarray:
    """The label of the final image. Raises UserError as `label_of`."""
    label = label_of(equipment, image, name).float()
    return apply_colours(equipment.bank.properties[name], label[None], 0)


def beside(*pictures: np.ndarray) -> np.ndarray:
    """Pictures of one height side by side, grey between them."""
    gap = np.full((pictures[0].shape[0], GAP, 3), GREY, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], 1)
