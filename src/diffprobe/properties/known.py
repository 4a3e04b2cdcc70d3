"""The properties that have a name here: of the papers, and of the built-in world."""

from __future__ import annotations

from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.properties.base import Property
from diffprobe.properties.binary import Binary
from diffprobe.properties.categorical import Categorical
from diffprobe.properties.continuous import Continuous
from diffprobe.properties.depth import Depth
from diffprobe.properties.vector import Vector

BACKGROUND = "background"

# Learning rates of the first three are those of Chen, Viégas and Wattenberg (2023)
PROPERTIES: dict[str, Property] = {
    item.name: item
    for item in (
        Binary("saliency"),
        Depth("depth", colours="magma"),  # relative inverse depth, larger is nearer, as MiDaS gives it
        Continuous("shading", learning_rate=1e-2, colours="gray"),  # irradiance: light that falls on visible points
        Vector("normals"),  # of surfaces, in the camera's frame: right, up, towards the camera
        Continuous("albedo", colours="gray"),  # how much light a surface reflects: the mean of its three colours
        Categorical("shape", classes=(BACKGROUND, *SHAPES)),
        Categorical("colour", classes=(BACKGROUND, *COLOURS)),
        Binary("shadow"),  # cast by another surface: the light does not reach the point
    )
}
