"""The scenes of the pocket world: objects, camera, light and caption, a function of `(stream, index)` alone.

z is up, the ground is z = 0, the camera looks towards +y and down, a vertical wall is behind. Lengths are in scene
units (an object is about one unit wide), angles in radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, radians, sin, tan

import numpy as np

SHAPES = ("sphere", "cube", "cylinder", "cone")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")

# Linear albedo of each colour, in the order of COLOURS.
ALBEDO = np.array(
    [
        [0.80, 0.05, 0.04],
        [0.07, 0.52, 0.09],
        [0.05, 0.13, 0.78],
        [0.88, 0.70, 0.04],
        [0.50, 0.06, 0.58],
        [0.05, 0.62, 0.66],
    ]
)

# Half size of each shape along (x, y, z) for a nominal radius of 1, chosen so that all look equally large.
EXTENT = {
    "sphere": (1.0, 1.0, 1.0),
    "cube": (0.80, 0.80, 0.80),
    "cylinder": (0.78, 0.78, 0.90),
    "cone": (0.95, 0.95, 1.05),
}

# Nominal radius as a fraction of half the image width, by number of objects: (low, high).
APPARENT_RADIUS = {1: (0.30, 0.46), 2: (0.25, 0.36), 3: (0.20, 0.27)}

_SHARES = np.array([0.4, 0.4, 0.2])  # of scenes with one, two and three objects
_UP_TO = _SHARES.cumsum() / _SHARES.sum()

# Scenes for training and for measuring are in different streams.
STREAMS = {"train": 0, "validation": 1, "test": 2, "prompts": 3}


@dataclass(frozen=True)
class SceneObject:
    """One object on the ground. `position` is its centre, `extent` its half sizes along its own axes."""

    shape: str
    colour: str
    position: tuple[float, float, float]
    extent: tuple[float, float, float]
    yaw: float
    albedo: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything needed to render one image. Objects are in order from left to right in the image."""

    objects: tuple[SceneObject, ...]
    camera: tuple[float, float, float]
    axes: np.ndarray  # [3, 3], rows: right, up, forward of the camera in world coordinates
    half_width: float  # tangent of half the field of view
    wall_normal: tuple[float, float]
    wall_offset: float  # the wall is where normal . (x, y) = offset
    light: tuple[float, float, float]
    light_reach: float  # distance at which the light's irradiance is 1
    ambient: float
    ground_albedo: tuple[float, float, float]
    wall_albedo: tuple[float, float, float]
    caption: str


def describe(objects: tuple[SceneObject, ...] | list[SceneObject], variant: int = 0) -> str:
    """Caption of objects given from left to right; `variant` selects one of two phrasings."""
    names = [f"a {item.colour} {item.shape}" for item in objects]
    if len(names) == 1:
        return names[0]
    if len(names) == 2:
        left, right = names
        return f"{left} to the left of {right}" if variant % 2 == 0 else f"{right} to the right of {left}"
    return f"{', '.join(names[:-1])} and {names[-1]} from left to right"


def sample_scene(index: int, stream: str = "train", objects: int | None = None) -> Scene:
    """Draws scene `index` of a stream, of a number of objects (None for 1, 2 or 3 at random)."""
    if stream not in STREAMS:
        raise ValueError(f"unknown scene stream {stream!r}; choose one of {', '.join(STREAMS)}")
    random = np.random.default_rng((STREAMS[stream], index))
    count = objects or 1 + int(np.searchsorted(_UP_TO, random.random(), "right"))
    while (scene := _try_scene(random, count)) is None:
        pass
    return scene


def _try_scene(random: np.random.Generator, count: int) -> Scene | None:
    """One draw; None where the objects would collide, leave the ground or stand too far away."""
    elevation = radians(random.uniform(24, 72))
    distance = random.uniform(4.0, 7.0)
    camera = 0.0, -distance * cos(elevation), distance * sin(elevation)
    roll = radians(random.uniform(-52, 52))
    along, up = cos(elevation), sin(elevation)  # of a camera that is not rolled: forward and up
    turned, across = cos(roll), sin(roll)
    axes = np.array([[turned, across * up, across * along], [-across, turned * up, turned * along], [0.0, along, -up]])
    half_width = tan(radians(random.uniform(34, 58)) / 2)

    objects = _place_objects(random, count, camera, axes, half_width)
    if objects is None:
        return None

    wall_angle = radians(random.uniform(-82, 82))
    normal = np.array([sin(wall_angle), -cos(wall_angle)])
    clearance = min(float(normal @ np.array(o.position[:2])) - 1.5 * max(o.extent[:2]) for o in objects)
    wall_offset = min(clearance, -random.uniform(0.0, 1.2))

    light, reach = _place_light(random, normal, wall_offset)
    return Scene(
        objects=objects,
        camera=camera,
        axes=axes,
        half_width=half_width,
        wall_normal=(float(normal[0]), float(normal[1])),
        wall_offset=wall_offset,
        light=light,
        light_reach=reach,
        ambient=random.uniform(0.12, 0.3),
        ground_albedo=_background_albedo(random),
        wall_albedo=_background_albedo(random),
        caption=describe(objects, variant=int(random.integers(2))),
    )


def _place_objects(
    random: np.random.Generator, count: int, camera: tuple[float, float, float], axes: np.ndarray, half_width: float
) -> tuple[SceneObject, ...] | None:
    """Draws where the objects appear in the image and puts them on the ground there, left to right."""
    slots = {1: [(-0.6, 0.6)], 2: [(-0.68, -0.2), (0.2, 0.68)], 3: [(-0.78, -0.45), (-0.16, 0.16), (0.45, 0.78)]}
    low, high = APPARENT_RADIUS[count]
    placed: list[SceneObject] = []
    for slot in slots[count]:
        u, v = random.uniform(*slot), random.uniform(-0.62, 0.62)
        shape, colour = SHAPES[random.integers(len(SHAPES))], int(random.integers(len(COLOURS)))
        apparent = random.uniform(low, high)
        ray = (np.array([u * half_width, v * half_width, 1.0]) @ axes).tolist()
        # The centre lies on the ray at depth t, at the height of its own half extent, which itself grows with t.
        slope = ray[2] - apparent * half_width * EXTENT[shape][2]
        if slope > -0.05:
            return None
        depth = -camera[2] / slope
        radius = apparent * half_width * depth
        if not 2.0 < depth < 14.0:
            return None
        jitter = random.uniform(0.85, 1.1)
        placed.append(
            SceneObject(
                shape=shape,
                colour=COLOURS[colour],
                position=(camera[0] + depth * ray[0], camera[1] + depth * ray[1], camera[2] + depth * ray[2]),
                extent=(radius * EXTENT[shape][0], radius * EXTENT[shape][1], radius * EXTENT[shape][2]),
                yaw=random.uniform(0, 2 * pi),
                albedo=_triple(np.minimum(ALBEDO[colour] * jitter + random.uniform(0, 0.03, 3), 1)),
            )
        )
    for one, other in pairwise(placed):
        gap = np.hypot(one.position[0] - other.position[0], one.position[1] - other.position[1])
        if gap < 1.3 * (max(one.extent[:2]) + max(other.extent[:2])):
            return None
    return tuple(placed)


def _place_light(
    random: np.random.Generator, normal: np.ndarray, wall_offset: float
) -> tuple[tuple[float, float, float], float]:
    """A point light in front of the wall, and the distance at which it gives unit irradiance."""
    while True:
        azimuth, elevation = random.uniform(0, 2 * pi), radians(random.uniform(22, 72))
        distance = random.uniform(3.5, 8.0)
        light = distance * np.array([cos(elevation) * cos(azimuth), cos(elevation) * sin(azimuth), sin(elevation)])
        if normal @ light[:2] > wall_offset + 0.5:
            return _triple(light), distance


def _background_albedo(random: np.random.Generator) -> tuple[float, float, float]:
    """A weakly saturated colour, so that the objects are what stands out."""
    tint = random.uniform(0.75, 1.0, 3)
    return _triple(random.uniform(0.2, 0.75) * tint / tint.max())


def _triple(vector: np.ndarray) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])
