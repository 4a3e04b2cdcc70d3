from __future__ import annotations

import pytest
import torch

from diffprobe.probes import functional
from diffprobe.probes.metrics import RMSE, BackgroundDice, Dice, Pearson, PerImage, Spearman


def maps(images: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, 4, 4, generator=generator), torch.randn(images, 8, 8, generator=generator)


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (Dice, functional.dice),
        (BackgroundDice, functional.background_dice),
        (Spearman, functional.spearman),
        (Pearson, functional.pearson),
        (RMSE, functional.rmse),
    ],
)
def test_a_metric_is_the_mean_of_the_scores_of_the_images(metric: type[PerImage], function) -> None:
    prediction, target = maps()
    if metric in (Dice, BackgroundDice):
        prediction, target = (prediction > 0).float(), (target > 0).float()
    running = metric()
    running.update(prediction[:4], target[:4])
    running.update(prediction[4:], target[4:])
    torch.testing.assert_close(running.compute(), function(prediction, target).mean())


def test_undefined_images_are_left_out_and_counted() -> None:
    prediction, target = maps()
    prediction[1] = 2.0
    running = Pearson()
    running.update(prediction, target)
    kept = [0, 2, 3, 4]
    torch.testing.assert_close(running.compute(), functional.pearson(prediction[kept], target[kept]).mean())
    assert running.undefined == 1


def test_with_nothing_defined_the_metric_is_nan() -> None:
    running = Spearman()
    running.update(torch.ones(2, 4, 4), maps(2)[1])
    assert running.compute().isnan()
    assert running.undefined == 2


def test_reset_forgets_the_images() -> None:
    prediction, target = maps()
    running = RMSE()
    running.update(prediction + 100, target)
    running.reset()
    running.update(prediction, target)
    torch.testing.assert_close(running.compute(), functional.rmse(prediction, target).mean())
