"""Every kind of property: its loss is that over the pixels of the image, and its scores are those of the whole map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from diffprobe.errors import UserError
from diffprobe.properties import PROPERTIES, Standardisation, property_from
from diffprobe.properties.base import Property
from diffprobe.properties.categorical import Categorical, class_areas
from diffprobe.properties.vector import WITHIN, Vector
from tests.reference.scores import upsample

CLASSES = Categorical("parts", classes=("ground", "leg", "arm"))
NORMALS = Vector("normals")
FLOW = Vector("flow", channels=2, unit=False)


def random_classes(images: int, height: int, width: int, seed: int = 0, none: float = 0.2) -> Tensor:
    """Class numbers [images, height, width], -1 for a share of the pixels."""
    random = torch.Generator().manual_seed(seed)
    numbers = torch.randint(3, (images, height, width), generator=random).float()
    return numbers.masked_fill(torch.rand(numbers.shape, generator=random) < none, -1)


def random_normals(images: int, height: int, width: int, seed: int = 0, none: float = 0.2) -> Tensor:
    """Unit vectors [images, 3, height, width], 0 for a share of the pixels."""
    random = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(images, 3, height, width, generator=random), dim=1)
    return vectors * (torch.rand(images, 1, height, width, generator=random) >= none)


def standardised_planes(item: Property, labels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Standardisation]:
    target = item.target(labels)
    standardisation = item.standardisation(target)
    return item.standardise(item.planes(target, grid), standardisation), standardisation


@pytest.mark.parametrize("none", [0.0, 0.3])
def test_class_loss_is_the_cross_entropy_over_labelled_pixels_with_its_gradient(none):
    labels = random_classes(2, 16, 16, none=none)
    outputs = torch.randn(5, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    planes, _ = standardised_planes(CLASSES, labels, (4, 4))
    ours = CLASSES.loss(outputs, planes)
    for step in range(5):
        for image in range(2):
            pixels = F.interpolate(outputs[step, image][None], (16, 16), mode="nearest")
            wanted = F.cross_entropy(pixels, labels[image][None].long(), ignore_index=-1)
            torch.testing.assert_close(ours[step, image], wanted)
            gradients = (
                torch.autograd.grad(loss, outputs, retain_graph=True)[0] for loss in (ours[step, image], wanted)
            )
            torch.testing.assert_close(*gradients)


def test_vector_loss_has_the_gradient_of_half_the_squared_distance_over_pixels_with_a_vector():
    labels = random_normals(2, 16, 16)
    outputs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    planes, standardisation = standardised_planes(NORMALS, labels, (4, 4))
    ours = NORMALS.loss(outputs, planes)
    for image in range(2):
        there = labels[image].abs().sum(0) > 0
        wanted = (standardisation.apply(labels[image]) - upsampled(outputs[image], 16)).square().sum(0)[
            there
        ].mean() / 2
        gradients = (torch.autograd.grad(loss, outputs, retain_graph=True)[0] for loss in (ours[image], wanted))
        torch.testing.assert_close(*gradients)


def upsampled(values: Tensor, size: int) -> Tensor:
    return F.interpolate(values[None], (size, size), mode="nearest")[0]


@pytest.mark.parametrize("size", [(12, 12), (10, 14)])  # a multiple of the tokens, and none
def test_class_scores_are_counted_pixel_by_pixel(size):
    labels, predicted = random_classes(3, *size), random_classes(2 * 3, 4, 4, seed=1, none=0).view(2, 3, 4, 4)
    predicted[:, 0][predicted[:, 0] == 1] = 0
    labels[0][labels[0] == 1] = 2  # neither has the second class
    prepared = CLASSES.prepared(CLASSES.target(labels), Standardisation(), [(4, 4)])[4, 4]
    found = CLASSES.scores(predicted, prepared)
    for step in range(2):
        for image in range(3):
            whole = upsample(predicted[step, image].numpy(), size)
            there = labels[image].numpy() >= 0
            mine, true = whole[there], labels[image].numpy()[there]
            accuracy, ious = (mine == true).mean(), []
            for number, name in enumerate(CLASSES.classes):
                both, one, other = (
                    ((mine == number) & (true == number)).sum(),
                    (mine == number).sum(),
                    (true == number).sum(),
                )
                ious += [both / (one + other - both)] if one + other else []
                expected = 2 * both / (one + other) if one + other else np.nan
                assert found[f"dice {name}"][step, image].item() == pytest.approx(expected, nan_ok=True)
                assert found[f"overlap {name}"][step, image].item() == pytest.approx(both / whole.size)
                assert found[f"union {name}"][step, image].item() == pytest.approx((one + other - both) / whole.size)
            assert found["mean_iou"][step, image].item() == pytest.approx(np.mean(ious))
            assert found["accuracy"][step, image].item() == pytest.approx(accuracy)
    assert len(ious) == 3
    assert np.isnan(found["dice leg"][:, 0].numpy()).all()


def test_overlaps_and_unions_add_up_to_torchmetrics_iou_of_a_whole_data_set():
    labels, predicted = random_classes(5, 16, 16), random_classes(5, 4, 4, seed=1, none=0)
    areas = class_areas(predicted, CLASSES.planes(CLASSES.target(labels), (4, 4))).scores(CLASSES.classes)
    metric = MulticlassJaccardIndex(3, average="none", ignore_index=-1)
    metric.update(torch.stack([upsampled(one[None], 16)[0] for one in predicted]).long(), labels.long())
    ours = [(areas[f"overlap {name}"].sum() / areas[f"union {name}"].sum()).item() for name in CLASSES.classes]
    assert ours == pytest.approx(metric.compute().tolist())


def test_an_image_without_a_class_anywhere_has_no_score():
    labels = torch.full((1, 8, 8), -1.0)
    prepared = CLASSES.prepared(CLASSES.target(labels), Standardisation(), [(4, 4)])[4, 4]
    found = CLASSES.scores(torch.zeros(1, 1, 4, 4), prepared)
    assert np.isnan([found[name].item() for name in ("mean_iou", "accuracy", "dice ground")]).all()


@pytest.mark.parametrize("size", [(12, 12), (10, 14)])
def test_angular_errors_are_those_of_every_pixel(size):
    labels = random_normals(3, *size)
    predicted = F.normalize(torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(1)), dim=2)
    prepared = NORMALS.prepared(NORMALS.target(labels), Standardisation((0.0, 0.0, 0.0), 1.0), [(4, 4)])[4, 4]
    found = NORMALS.scores(predicted, prepared)
    for step in range(2):
        for image in range(3):
            whole = np.stack([upsample(channel, size) for channel in predicted[step, image].numpy()])
            there = np.abs(labels[image].numpy()).sum(0) > 0
            cosines = (whole * labels[image].numpy()).sum(0)[there].clip(-1, 1)
            degrees = np.degrees(np.arccos(cosines.astype(np.float64)))
            assert found["mean_angle"][step, image].item() == pytest.approx(degrees.mean(), abs=1e-3)
            assert found["median_angle"][step, image].item() == pytest.approx(np.median(degrees), abs=1e-3)
            for limit in WITHIN:
                share = found[f"within_{limit:g}"][step, image].item()
                assert share == pytest.approx((degrees < limit).mean(), abs=1e-9)


def test_a_perfect_prediction_has_no_error_and_an_opposite_one_180_degrees():
    labels = F.normalize(torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    prepared = NORMALS.prepared(NORMALS.target(labels), Standardisation((0.0, 0.0, 0.0), 1.0), [(4, 4)])[4, 4]
    perfect, opposite = (NORMALS.scores(sign * labels[None], prepared) for sign in (1, -1))
    assert perfect["mean_angle"].item() == pytest.approx(0, abs=0.05)
    assert opposite["median_angle"].item() == pytest.approx(180, abs=0.05)
    assert (perfect["within_11.25"].item(), opposite["within_30"].item()) == (1, 0)


def test_lengths_count_where_vectors_are_no_directions():
    labels = 3 + 2 * torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    standardisation = FLOW.standardisation(FLOW.target(labels))
    assert np.allclose(standardisation.mean, labels.mean((0, 2, 3)).tolist())
    away = labels - labels.mean((0, 2, 3))[:, None, None]
    assert standardisation.std == pytest.approx(away.square().mean().sqrt().item())
    predicted = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    found = FLOW.scores(predicted, FLOW.prepared(FLOW.target(labels), standardisation, [(4, 4)])[4, 4])
    whole = torch.stack([upsampled(one, 8) for one in predicted[0]])
    wanted = (whole - labels).square().mean((1, 2, 3)).sqrt() / standardisation.std
    torch.testing.assert_close(found["rmse"][0].float(), wanted)


@pytest.mark.parametrize("item", [*PROPERTIES.values(), CLASSES, FLOW], ids=lambda item: item.name)
def test_a_property_comes_back_from_its_definition(item):
    assert property_from(item.definition()) == item


@pytest.mark.parametrize("item", [*PROPERTIES.values(), CLASSES, FLOW], ids=lambda item: item.name)
def test_labels_as_their_own_prediction_are_as_good_as_can_be_at_full_resolution(item):
    labels = {
        "binary": lambda: (random_classes(2, 8, 8, none=0) > 1).float(),
        "categorical": lambda: random_classes(2, 8, 8),
        "vector": lambda: random_normals(2, 8, 8)[:, : item.channels],
    }.get(item.kind, lambda: 1 + torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)))()
    target = item.target(labels)
    standardisation = item.standardisation(target)
    prediction = item.of_labels(target, standardisation)[None]
    found = item.scores(prediction, item.prepared(target, standardisation, [(8, 8)])[8, 8], [0.5])
    assert list(found) == list(item.metrics)
    best = 0 if item.metrics[0] in ("mean_angle", "rmse") else 1
    assert found[item.headline].flatten().tolist() == pytest.approx([best, best], abs=0.05)


def test_values_that_are_no_labels_are_refused():
    with pytest.raises(UserError, match="has the value 3; its 3 classes are numbered from 0 to 2"):
        CLASSES.target(torch.full((1, 2, 2), 3.0))
    with pytest.raises(UserError, match=r"has the value 0\.5"):
        CLASSES.target(torch.full((1, 2, 2), 0.5))
    with pytest.raises(UserError, match=r"expected \[images, 3, height, width\]"):
        NORMALS.target(torch.zeros(1, 2, 4, 4))
    with pytest.raises(UserError, match="all training labels are of one class"):
        CLASSES.standardisation(torch.zeros(2, 4, 4))
    with pytest.raises(UserError, match="no pixel of the training labels has a vector"):
        NORMALS.standardisation(torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match="at least two, each once"):
        Categorical("parts", classes=("leg", "leg"))


@pytest.mark.parametrize("item", PROPERTIES.values(), ids=lambda item: item.name)
def test_pictures_are_in_range_and_of_the_size_of_the_map(item):
    shape = (2, item.channels, 4, 4) if isinstance(item, Vector) else (2, 4, 4)
    maps = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
    look = item.picture(maps, maps[0])
    assert look.values.shape[:3] == (2, 4, 4)
    if look.colours is None:
        assert look.values.shape[3] == 3
        assert 0 <= look.values.min() <= look.values.max() <= 1
