"""The renderer against geometry that can be worked out by hand, and against itself in other batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from diffprobe.pocket.render import _INTERSECT, _NORMAL, FAR, render, render_indices
from diffprobe.pocket.scenes import SHAPES, Scene, SceneObject, sample_scene
from diffprobe.pocket.training.card import measure_position
from diffprobe.pocket.training.fit import load_scenes

# Camera at height 10 looking straight down: right is x, up in the picture is y.
DOWN = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, -1.0]])


def scene_from_above(*objects: SceneObject, light=(0.0, 0.0, 1000.0)) -> Scene:
    return Scene(
        objects=objects,
        camera=(0.0, 0.0, 10.0),
        axes=DOWN,
        half_width=0.5,
        wall_normal=(0.0, -1.0),
        wall_offset=-50.0,
        light=light,
        light_reach=float(np.linalg.norm(light)),
        ambient=0.0,
        ground_albedo=(0.5, 0.5, 0.5),
        wall_albedo=(0.5, 0.5, 0.5),
        caption="",
    )


def ball(x: float, y: float, radius: float = 1.0) -> SceneObject:
    return SceneObject("sphere", "red", (x, y, radius), (radius,) * 3, 0.0, (0.8, 0.1, 0.1))


def inside(shape: str, points: torch.Tensor) -> torch.Tensor:
    """Whether points [..., 3] are in the unit solid."""
    x, y, z = points.unbind(-1)
    return {
        "sphere": x**2 + y**2 + z**2 <= 1,
        "cube": points.abs().amax(-1) <= 1,
        "cylinder": (x**2 + y**2 <= 1) & (z.abs() <= 1),
        "cone": (x**2 + y**2 <= ((1 - z) / 2) ** 2) & (z.abs() <= 1),
    }[shape]


def test_a_scene_is_the_same_in_any_batch():
    alone = render_indices([5], size=16)
    among = render_indices([3, 5, 8], size=16)
    assert torch.allclose(alone.images[0], among.images[1], atol=1e-6)
    assert torch.equal(alone.instances[0], among.instances[1])
    assert torch.allclose(alone.depth[0], among.depth[1], atol=1e-6)
    assert torch.allclose(alone.shading[0], among.shading[1], atol=1e-5)
    assert alone.captions[0] == among.captions[1]


def test_depth_of_flat_ground_from_above_is_one_over_the_height():
    scene = render([scene_from_above()], 16)
    assert torch.allclose(scene.depth, torch.full((1, 16, 16), 0.1), atol=1e-6)


def test_a_ball_is_seen_where_it_stands_and_as_high_as_it_is():
    scene = render([scene_from_above(ball(2.5, 2.5))], 64)
    rows, columns = torch.nonzero(scene.instances[0, 0], as_tuple=True)
    assert rows.float().mean() < 24  # up
    assert columns.float().mean() > 40  # right
    assert scene.depth[0].max() == pytest.approx(1 / 8, rel=0.02)  # the top of the ball is 8 away


def test_a_nearer_object_hides_what_is_behind_it():
    low, high = ball(0, 0, 1.0), replace(ball(0, 0, 1.0), position=(0.0, 0.0, 5.0))
    scene = render([scene_from_above(low, high)], 32)
    assert scene.instances[0, 1].sum() > 0
    assert scene.instances[0, 0].sum() == 0


def test_light_from_above_makes_irradiance_one_on_the_ground():
    scene = render([scene_from_above()], 8)
    assert torch.allclose(scene.shading, torch.ones(1, 8, 8), atol=1e-3)


def test_irradiance_falls_with_the_cosine_of_the_angle():
    slanted = scene_from_above(light=(600.0, 0.0, 800.0))
    assert render([slanted], 8).shading[0, 4, 4] == pytest.approx(0.8, abs=0.01)


def test_an_object_casts_a_shadow_away_from_the_light():
    scene = render([scene_from_above(ball(0, 0), light=(1000.0, 0.0, 1000.0))], 64)
    shaded = (scene.shading[0] < 1e-6) & ~scene.salient[0]
    assert shaded.sum() > 10
    assert torch.nonzero(shaded)[:, 1].float().mean() < 32  # the light is at the right


def test_pictures_are_albedo_times_shading_in_display_gamma():
    scene = render([scene_from_above(light=(600.0, 0.0, 800.0))], 8)
    assert scene.images[0, :, 4, 4].tolist() == pytest.approx([(0.5 * 0.8) ** (1 / 2.2)] * 3, abs=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_enter_solids_at_their_surface_with_outward_normals(shape):
    random = torch.Generator().manual_seed(0)
    origin = torch.nn.functional.normalize(torch.randn(1, 4000, 3, generator=random), dim=-1) * 4
    rays = torch.randn(1, 4000, 3, generator=random) * 0.6 - origin
    hits = _INTERSECT[shape](origin, rays)
    hit = hits < FAR
    marched = inside(shape, origin[..., None, :] + torch.linspace(0, 2, 400)[:, None] * rays[..., None, :]).any(-1)
    assert (hit == marched).float().mean() > 0.99  # the march misses what a ray only grazes
    points = (origin + hits[..., None] * rays)[hit]
    assert inside(shape, points * 0.999).all()
    normals = torch.nn.functional.normalize(_NORMAL[shape](points), dim=-1)
    assert not inside(shape, points + 0.01 * normals).any()
    assert ((normals * rays[hit]).sum(-1) < 0.05).all()


def test_masks_classes_and_captions_agree():
    scenes = render_indices(range(20), size=32)
    for number in range(20):
        truth = sample_scene(number)
        present = scenes.classes[number] >= 0
        assert present.sum() == len(truth.objects)
        assert [SHAPES[c] for c in scenes.classes[number][present]] == [item.shape for item in truth.objects]
        assert not scenes.instances[number][~present].any()
        assert torch.equal(scenes.salient[number], scenes.instances[number].any(0))


@pytest.mark.slow
def test_pixel_position_alone_predicts_little(tmp_path, monkeypatch):
    monkeypatch.setattr("diffprobe.pocket.training.fit.SHARD", 300)
    scenes = load_scenes(tmp_path, "train", 300, size=32)
    found = measure_position(scenes, load_scenes(tmp_path, "test", 300, size=32))
    assert found["depth_rank_correlation"] <= 0.6
    assert found["shading_rank_correlation"] <= 0.35
    assert found["saliency_dice"] <= 0.4


def test_shards_are_the_rendered_scenes_and_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr("diffprobe.pocket.training.fit.SHARD", 4)
    monkeypatch.setattr("diffprobe.pocket.training.fit.BATCH", 2)
    arrays = load_scenes(tmp_path, "test", 6, size=16, workers=1)
    direct = render_indices(range(6), "test", 16)
    assert torch.equal(arrays.images, (direct.images * 255).round().to(torch.uint8))
    assert torch.equal(arrays.salient, direct.salient)
    assert spearmanr(arrays.depth.flatten(), direct.depth.flatten()).statistic > 0.9999
    assert arrays.captions == direct.captions
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    load_scenes(tmp_path, "test", 6, size=16, workers=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_damaged_shards_and_those_of_other_scenes_are_rendered_again(tmp_path, monkeypatch):
    monkeypatch.setattr("diffprobe.pocket.training.fit.SHARD", 2)
    monkeypatch.setattr("diffprobe.pocket.training.fit.BATCH", 2)
    whole = load_scenes(tmp_path, "test", 6, size=16, workers=1)
    first, second, third = sorted(tmp_path.iterdir())
    data = second.read_bytes()
    second.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    third.write_bytes(first.read_bytes())
    again = load_scenes(tmp_path, "test", 6, size=16, workers=1)
    for name in ("images", "salient", "depth", "shading", "classes", "colours"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
    assert second.read_bytes()[-5:] == data[-5:]
