"""What interventions look like and what is said of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from diffprobe.analyses.intervention.report import (
    animation_frames,
    intervention_grid,
    intervention_lines,
    intervention_scores,
    intervention_table,
)
from diffprobe.analyses.intervention.trials import GAIN_COLUMNS, KEYS, InterventionExample
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.properties import property_named
from diffprobe.report.publish import report_text
from diffprobe.report.report import Report

WHAT = ("pocket", "saliency", "translation", "pattern")


def summaries() -> pd.DataFrame:
    means = {"unedited": 0.1, "random": 0.2, "none": 0.7}
    rows = [(*WHAT, control, "dice", mean, mean - 0.05, mean + 0.05, 50) for control, mean in means.items()]
    return pd.DataFrame(rows, columns=[*KEYS, "mean", "low", "high", "n"])


def gains(low: float = 0.4, n: int = 50, p: float = 0.001) -> pd.DataFrame:
    rows = [(*WHAT, "unedited", "dice", 0.6, 0.5, 0.7, n, p), (*WHAT, "random", "dice", 0.5, low, 0.6, n, p)]
    return pd.DataFrame(rows, columns=GAIN_COLUMNS).assign(p_holm=2 * p)


def example() -> InterventionExample:
    mask, picture = torch.zeros(8, 8), torch.full((3, 8, 8), 0.5)
    mask[2:5, 2:5] = 1
    return InterventionExample(Prompt("", 0, ""), (picture, mask), mask.roll(2), None, {"pattern": (picture, mask)})


def test_the_sentence_gives_every_number_with_its_interval():
    (line,) = intervention_lines(summaries(), gains())
    assert "images follow the saliency probe" in line
    assert "0.70 [0.65, 0.75] over 50 images" in line
    assert "0.60 [0.50, 0.70] against no intervention and 0.50 [0.40, 0.60] against random direction" in line


def test_an_edit_no_better_than_a_random_one_moves_nothing():
    (line,) = intervention_lines(summaries(), gains(low=-0.1))
    assert "images are not shown to follow the saliency probe" in line


def test_a_gain_that_is_not_significant_or_of_few_images_is_no_verdict():
    (line,) = intervention_lines(summaries(), gains(p=0.04))  # 0.08 after Holm
    assert "images are not shown to follow" in line
    (line,) = intervention_lines(summaries(), gains(n=6))
    assert "no verdict (6 images, it takes 7) on whether images follow the saliency probe" in line


def test_the_table_has_a_line_for_the_edit_and_each_control():
    text = report_text(Report("", tables={"closing": intervention_table(summaries())}))
    for words in ("no intervention", "random direction", "pattern", "0.10 [0.05, 0.15]"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_grid_has_the_papers_rows_and_a_column_an_image():
    figure = intervention_grid([example()] * 3, property_named("saliency"))
    assert len(figure.axes) == 5 * 3
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == [
        "original", "its label", "target", "edited:\npattern", "its label",
    ]  # fmt: skip
    with pytest.raises(UserError, match="no edited image"):
        intervention_grid([], property_named("saliency"))


def test_bars_are_as_high_as_the_means():
    (axes,) = intervention_scores(summaries(), "dice").axes
    assert [bar.get_height() for bar in axes.patches] == [0.1, 0.2, 0.7]


def test_frames_hold_the_target_beside_the_image_made_for_it():
    images = np.linspace(0, 1, 4)[:, None, None, None] * np.ones((4, 8, 8, 3))
    targets = np.stack([np.roll(example().target.numpy(), at, 1) for at in range(4)])
    frames = animation_frames(images, targets, property_named("saliency"))
    assert frames.shape == (4, 3 * 8, 3 * (8 + 1 + 8), 3)
    assert frames[3, :, -1].tolist() == [[255] * 3] * 24
    assert frames[0, :, -1].tolist() == [[0] * 3] * 24
    assert (frames[0, :, :24] != frames[1, :, :24]).any()
