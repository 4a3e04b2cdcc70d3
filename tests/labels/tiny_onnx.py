"""Tiny image models in .onnx files, and what their labelers should do with pictures, written slowly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

SCRAMBLED = np.random.default_rng(0).normal(size=(3, 3, 3, 3)) / 2  # [channels, colours, height, width]


def save_maps(
    path: Path,
    kernel: np.ndarray = SCRAMBLED,
    bias: Sequence[float] = (0.3, -0.2, 0.4),
    *,
    size: int | str = "side",
    camera: bool = False,
    outputs: Sequence[str] = ("map",),
    then: str = "Identity",
) -> Path:
    """A convolution of the picture with black around it. Saves and returns the path.

    Args:
        size: of the input; a word leaves it open.
        camera: whether a second input, a matrix [1, 3, 3], adds the sum of each of its rows to a channel.
        outputs: 'map'; 'other', which is its negative; 'flat', without height and width; 'grey', the first channel
            without the axis of channels.
        then: the operator after the convolution.
    """
    kind = onnx.TensorProto.FLOAT
    channels, sides = len(kernel), [kernel.shape[-1] // 2] * 4
    given = [helper.make_tensor_value_info("img", kind, [1, 3, size, size])]
    nodes = [
        helper.make_node("Conv", ["img", "kernel", "bias"], ["sum"], pads=sides),
        helper.make_node(then, ["sum"], ["then"]),
        helper.make_node("ReduceSum", ["intrins", "last"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows", "last"], ["column"]),
        helper.make_node("Add" if camera else "Identity", ["then", "column"] if camera else ["then"], ["map"]),
        helper.make_node("Neg", ["map"], ["other"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("ReduceMean", ["map", "first"], ["grey"], keepdims=0),
    ]
    if camera:
        given.append(helper.make_tensor_value_info("intrins", kind, [1, 3, 3]))
    else:
        nodes = [node for node in nodes if node.op_type not in ("ReduceSum", "Unsqueeze")]
    constants = {
        "kernel": kernel.astype(np.float32),
        "bias": np.array(bias[:channels], np.float32),
        "last": np.array([-1]),
        "first": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        given,
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def pixelwise(matrix: np.ndarray) -> np.ndarray:
    """The kernel that multiplies each pixel's colours by a matrix [channels, colours]."""
    return np.asarray(matrix, float)[..., None, None]


def convolved(picture: np.ndarray, kernel: np.ndarray = SCRAMBLED, bias: Sequence[float] = (0.3, -0.2, 0.4)):
    """[colours, height, width] -> [channels, height, width], by sums over neighbours; zeros are around it."""
    reach = kernel.shape[-1] // 2
    height, width = picture.shape[1:]
    wide = np.zeros((3, height + 2 * reach, width + 2 * reach))
    wide[:, reach : reach + height, reach : reach + width] = picture
    found = np.zeros((len(kernel), height, width)) + np.array(bias[: len(kernel)])[:, None, None]
    for y, x in np.ndindex(kernel.shape[2:]):
        found += np.einsum("kc,chw->khw", kernel[:, :, y, x], wide[:, y : y + height, x : x + width])
    return found


def resized(values: np.ndarray, size: int, weigh, reach: int) -> np.ndarray:
    """[channels, side, side] -> [channels, size, size]: sums over `reach` neighbours on each side of a pixel's centre,
    weighed by their distance; without antialiasing."""
    side = values.shape[-1]
    weights = np.zeros((size, side))
    for row in range(size):
        centre = (row + 0.5) * side / size - 0.5
        for near in range(int(np.floor(centre)) - reach + 1, int(np.floor(centre)) + reach + 1):
            weights[row, min(max(near, 0), side - 1)] += weigh(abs(centre - near))
    return weights @ values @ weights.T


def linear(distance: float) -> float:
    return 1 - distance


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys (1981), with the parameter of OpenCV."""
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
