"""Ray casting of pocket scenes in torch: image and exact maps of everything that can be seen.

Objects of one shape are intersected together, each in its own frame, where its shape is a unit solid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.pocket.scenes import COLOURS, SHAPES, Scene, sample_scene

MAX_OBJECTS = 3
FAR = 40.0  # scene units, where rays that meet nothing end
GAMMA = 2.2


@dataclass(frozen=True)
class RenderedScenes:
    """A batch of images and their exact maps.

    Attributes:
        images: [batch, 3, size, size], in [0, 1], display gamma.
        salient: [batch, size, size], bool, the union of the objects.
        instances: [batch, 3, size, size], bool, one mask per object, left to right; empty where there are fewer.
        classes: [batch, 3], index into SHAPES, -1 where there is no object.
        depth: [batch, size, size], inverse distance along the optical axis: larger is nearer, as MiDaS gives it.
        shading: [batch, size, size], irradiance (1 = the light at its reach, facing it).
        normals: [batch, 3, size, size], unit vectors of surfaces: right, up, and towards the camera.
        albedo: [batch, size, size], share of light that a surface reflects, the mean of red, green and blue.
        shapes, colours: [batch, size, size], of the object at a pixel 1 + index into SHAPES or COLOURS, else 0.
        shadow: [batch, size, size], bool, surfaces that face the light and that it does not reach.
        captions: one an image.
    """

    images: Tensor
    salient: Tensor
    instances: Tensor
    classes: Tensor
    depth: Tensor
    shading: Tensor
    normals: Tensor
    albedo: Tensor
    shapes: Tensor
    colours: Tensor
    shadow: Tensor
    captions: list[str]

    def maps(self) -> dict[str, Tensor]:
        """The label maps of every property that the world has, [batch, size, size] or [batch, channels, size, size]."""
        return {
            "saliency": self.salient,
            "depth": self.depth,
            "shading": self.shading,
            "normals": self.normals,
            "albedo": self.albedo,
            "shape": self.shapes,
            "colour": self.colours,
            "shadow": self.shadow,
        }

    def numbered(self) -> Tensor:
        """The object at each pixel, [batch, size, size]: 1, 2 or 3 from left to right, 0 on ground and wall."""
        return (self.instances * torch.arange(1, MAX_OBJECTS + 1)[:, None, None]).sum(1)


def render_indices(indices: list[int] | range, stream: str = "train", size: int = 64) -> RenderedScenes:
    """Renders the scenes with these indices of a stream."""
    return render([sample_scene(index, stream) for index in indices], size)


@torch.no_grad()
def render(scenes: list[Scene], size: int = 64, supersampling: int = 2) -> RenderedScenes:
    """Renders scenes at `size` pixels, each the average of `supersampling` squared rays."""
    fine = size * supersampling
    origin = _stack(scenes, "camera")  # [batch, 3]
    rays = _rays(scenes, fine)  # [batch, pixels, 3], unit length along the optical axis
    objects = _ObjectTable(scenes)

    distance, normal, surface = _first_hit(scenes, objects, origin, rays)
    points = origin[:, None] + distance[..., None] * rays
    shading, shadow = _irradiance(scenes, objects, points, normal)
    palette = torch.cat(
        [objects.albedo, torch.stack([_stack(scenes, "ground_albedo"), _stack(scenes, "wall_albedo")], 1)], 1
    )
    albedo = palette.gather(1, surface[..., None].expand(-1, -1, 3))
    linear = (albedo * shading[..., None]).clamp(0, 1)

    def shrink(values: Tensor) -> Tensor:
        """[batch, fine * fine, channels] -> [batch, channels, size, size], averaged."""
        grid = values.transpose(1, 2).reshape(len(scenes), -1, fine, fine)
        return functional.avg_pool2d(grid, supersampling)

    coverage = shrink(functional.one_hot(surface, MAX_OBJECTS + 2).float())
    owner = coverage.argmax(1)
    instances = torch.stack([owner == slot for slot in range(MAX_OBJECTS)], 1)
    in_camera = normal @ _stack(scenes, "axes").mT * torch.tensor([1.0, 1.0, -1.0])
    return RenderedScenes(
        images=shrink(linear).pow(1 / GAMMA),
        salient=instances.any(1),
        instances=instances,
        classes=objects.classes,
        depth=shrink((1 / distance)[..., None])[:, 0],
        shading=shrink(shading[..., None])[:, 0],
        normals=functional.normalize(shrink(in_camera), dim=1),
        albedo=shrink(albedo.mean(-1, keepdim=True))[:, 0],
        shapes=_of_owner(owner, objects.classes + 1),
        colours=_of_owner(owner, objects.colours + 1),
        shadow=shrink(shadow.float()[..., None])[:, 0] > 0.5,
        captions=[scene.caption for scene in scenes],
    )


def _of_owner(owner: Tensor, values: Tensor) -> Tensor:
    """Values of objects, [batch, 3], at the pixels [batch, size, size] that each owns; 0 on ground and wall."""
    padded = torch.cat([values, values.new_zeros(len(values), 2)], 1)
    return padded.gather(1, owner.flatten(1)).view(owner.shape)


class _ObjectTable:
    """The objects of a batch as tensors, slot by slot ([batch, 3, ...]) and grouped by shape for intersection."""

    def __init__(self, scenes: list[Scene]) -> None:
        self.albedo = torch.zeros(len(scenes), MAX_OBJECTS, 3)
        self.classes = torch.full((len(scenes), MAX_OBJECTS), -1)
        self.colours = torch.full((len(scenes), MAX_OBJECTS), -1)
        rows: dict[str, list[tuple[int, int]]] = {shape: [] for shape in SHAPES}
        values: dict[str, list[list[float]]] = {shape: [] for shape in SHAPES}
        for batch, scene in enumerate(scenes):
            for slot, item in enumerate(scene.objects):
                self.albedo[batch, slot] = torch.tensor(item.albedo)
                self.classes[batch, slot] = SHAPES.index(item.shape)
                self.colours[batch, slot] = COLOURS.index(item.colour)
                rows[item.shape].append((batch, slot))
                values[item.shape].append([*item.position, *item.extent, np.cos(item.yaw), np.sin(item.yaw)])
        self.groups = {
            shape: (torch.tensor(rows[shape]).T, torch.tensor(values[shape], dtype=torch.float32))
            for shape in SHAPES
            if rows[shape]
        }


def _stack(scenes: list[Scene], name: str) -> Tensor:
    return torch.tensor(np.array([getattr(scene, name) for scene in scenes]), dtype=torch.float32)


def _rays(scenes: list[Scene], size: int) -> Tensor:
    ticks = (torch.arange(size) + 0.5) / size * 2 - 1
    v, u = torch.meshgrid(-ticks, ticks, indexing="ij")
    plane = torch.stack([u, v], -1).reshape(-1, 2)
    plane = plane * _stack(scenes, "half_width")[:, None, None]
    camera_rays = torch.cat([plane, torch.ones_like(plane[..., :1])], -1)
    return camera_rays @ _stack(scenes, "axes")


def _first_hit(
    scenes: list[Scene], objects: _ObjectTable, origin: Tensor, rays: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Distance [batch, pixels], normal [batch, pixels, 3] and surface index (0-2 objects, 3 ground, 4 wall)."""
    batch, pixels, _ = rays.shape
    ground = -origin[:, None, 2] / rays[..., 2]
    ground = torch.where(ground > 0, ground, FAR)
    wall_normal, wall_offset = _stack(scenes, "wall_normal"), _stack(scenes, "wall_offset")
    facing = (rays[..., :2] * wall_normal[:, None]).sum(-1)
    wall = (wall_offset - (origin[:, :2] * wall_normal).sum(-1))[:, None] / facing
    wall = torch.where(wall > 0, wall, FAR)

    distance = torch.minimum(ground, wall)
    surface = torch.where(wall < ground, MAX_OBJECTS + 1, MAX_OBJECTS)
    flat_wall = torch.cat([wall_normal, torch.zeros(batch, 1)], 1)[:, None].expand(-1, pixels, -1)
    normal = torch.where((surface == MAX_OBJECTS)[..., None], torch.tensor([0.0, 0.0, 1.0]), flat_wall)
    for shape, (rows, values) in objects.groups.items():
        local_origin, local_rays = _to_local(origin[rows[0]][:, None], rays[rows[0]], values)
        hits = _INTERSECT[shape](local_origin, local_rays)
        normals = _from_local(_NORMAL[shape](local_origin + hits[..., None] * local_rays), values)
        for slot in range(MAX_OBJECTS):  # a scene occurs at most once per slot, so the writes below do not collide
            chosen = rows[1] == slot
            scene = rows[0][chosen]
            nearer = hits[chosen] < distance[scene]
            distance[scene] = torch.where(nearer, hits[chosen], distance[scene])
            normal[scene] = torch.where(nearer[..., None], normals[chosen], normal[scene])
            surface[scene] = torch.where(nearer, slot, surface[scene])
    return distance, normal, surface


def _irradiance(scenes: list[Scene], objects: _ObjectTable, points: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Lambert's cosine law with inverse square fall-off, cast shadows and a sky-like ambient term, and where a shadow
    is cast on a surface that faces the light: [batch, pixels] each."""
    start = points + 1e-3 * normal
    to_light = _stack(scenes, "light")[:, None] - start
    lit = torch.ones(points.shape[:2])
    for shape, (rows, values) in objects.groups.items():
        local_origin, local_rays = _to_local(start[rows[0]], to_light[rows[0]], values)
        clear = (_INTERSECT[shape](local_origin, local_rays) >= 1).float()
        for slot in range(MAX_OBJECTS):
            chosen = rows[1] == slot
            lit[rows[0][chosen]] *= clear[chosen]
    squared = to_light.square().sum(-1)
    cosine = ((to_light * normal).sum(-1) / squared.sqrt()).clamp(min=0)
    direct = cosine * lit * _stack(scenes, "light_reach")[:, None].square() / squared
    ambient = _stack(scenes, "ambient")[:, None] * (0.7 + 0.3 * normal[..., 2])
    return direct.clamp(max=1.5) + ambient, (lit == 0) & (cosine > 0)


def _to_local(origin: Tensor, rays: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Moves rays into the frame of each object, where it is a unit solid: position, extent, cos and sin of yaw."""
    position, extent, c, s = values[:, None, :3], values[:, None, 3:6], values[:, None, 6], values[:, None, 7]

    def rotate(vectors: Tensor) -> Tensor:
        x, y, z = vectors.unbind(-1)
        return torch.stack([c * x + s * y, c * y - s * x, z], -1) / extent

    return rotate(origin - position), rotate(rays)


def _from_local(normals: Tensor, values: Tensor) -> Tensor:
    extent, c, s = values[:, None, 3:6], values[:, None, 6], values[:, None, 7]
    x, y, z = (normals / extent).unbind(-1)
    return functional.normalize(torch.stack([c * x - s * y, s * x + c * y, z], -1), dim=-1)


def _nearest(*roots: tuple[Tensor, Tensor]) -> Tensor:
    """The smallest positive root among (root, valid) pairs, FAR where there is none."""
    best = torch.full_like(roots[0][0], FAR)
    for root, valid in roots:
        best = torch.where(valid & (root > 1e-4) & (root < best), root, best)
    return best


def _quadratic(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roots of a t^2 + 2 b t + c and whether they are real."""
    discriminant = b * b - a * c
    root = discriminant.clamp(min=0).sqrt()
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    return (-b - root) / a, (-b + root) / a, discriminant > 0


def _hit_sphere(origin: Tensor, rays: Tensor) -> Tensor:
    near, far, real = _quadratic(rays.square().sum(-1), (origin * rays).sum(-1), origin.square().sum(-1) - 1)
    return _nearest((near, real), (far, real))


def _hit_cube(origin: Tensor, rays: Tensor) -> Tensor:
    one, other = (-1 - origin) / rays, (1 - origin) / rays
    near, far = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
    return _nearest((near, near < far), (far, near < far))


def _hit_cylinder(origin: Tensor, rays: Tensor) -> Tensor:
    flat_origin, flat_rays = origin[..., :2], rays[..., :2]
    near, far, real = _quadratic(
        flat_rays.square().sum(-1), (flat_origin * flat_rays).sum(-1), flat_origin.square().sum(-1) - 1
    )
    sides = [(t, real & ((origin[..., 2] + t * rays[..., 2]).abs() <= 1)) for t in (near, far)]
    return _nearest(*sides, _disc(origin, rays, -1.0), _disc(origin, rays, 1.0))


def _hit_cone(origin: Tensor, rays: Tensor) -> Tensor:
    """Base of radius 1 at z = -1, apex at z = 1: x^2 + y^2 = ((1 - z) / 2)^2."""
    tip = torch.cat([origin[..., :2], (origin[..., 2:] - 1) / 2], -1)
    slope = torch.cat([rays[..., :2], rays[..., 2:] / 2], -1)
    signs = torch.tensor([1.0, 1.0, -1.0])
    near, far, real = _quadratic(
        (slope * slope * signs).sum(-1), (tip * slope * signs).sum(-1), (tip * tip * signs).sum(-1)
    )
    sides = [(t, real & ((origin[..., 2] + t * rays[..., 2]).abs() <= 1)) for t in (near, far)]
    return _nearest(*sides, _disc(origin, rays, -1.0))


def _disc(origin: Tensor, rays: Tensor, height: float) -> tuple[Tensor, Tensor]:
    root = (height - origin[..., 2]) / rays[..., 2]
    inside = (origin[..., :2] + root[..., None] * rays[..., :2]).square().sum(-1) <= 1
    return root, inside


def _normal_cube(points: Tensor) -> Tensor:
    axis = points.abs().argmax(-1, keepdim=True)
    return torch.zeros_like(points).scatter(-1, axis, points.gather(-1, axis).sign())


def _normal_cylinder(points: Tensor) -> Tensor:
    flat = torch.cat([points[..., :2], torch.zeros_like(points[..., 2:])], -1)
    cap = torch.cat([torch.zeros_like(points[..., :2]), points[..., 2:].sign()], -1)
    return torch.where(points[..., 2:].abs() > 1 - 1e-3, cap, flat)


def _normal_cone(points: Tensor) -> Tensor:
    side = torch.cat([points[..., :2], (1 - points[..., 2:]) / 4], -1)
    base = torch.tensor([0.0, 0.0, -1.0]).expand_as(points)
    return torch.where(points[..., 2:] < -1 + 1e-3, base, side)


_INTERSECT = {"sphere": _hit_sphere, "cube": _hit_cube, "cylinder": _hit_cylinder, "cone": _hit_cone}
_NORMAL = {"sphere": lambda points: points, "cube": _normal_cube, "cylinder": _normal_cylinder, "cone": _normal_cone}
