"""Sentences and figures of a classification."""

from dataclasses import replace

import numpy as np
import pandas as pd

from diffprobe.analyses.classification.report import class_curves, class_example, class_lines
from diffprobe.files import NO_STEP
from diffprobe.probes.summaries import EmergenceStep, Summary
from diffprobe.report.report import Example, Frames
from diffprobe.statistics.intervals import Interval, Stratified
from tests.reference.score_rows import summary_table

BLANK = Summary("pocket", "decoded image", 0, 1.0, "class", "resnet", "none", "test", "", 0.0, 0.0, 0.0, 40)


def summaries(steps=15):
    rows = [
        replace(BLANK, metric=metric, step=step, mean=step / steps, low=step / steps - 0.05, high=step / steps + 0.05)
        for metric in ("confidence", "top1", "top5", "stable")
        for step in range(steps)
    ]
    real = replace(BLANK, control="real", metric="confidence", step=NO_STEP, mean=0.9, low=0.8, high=0.95)
    return [*rows, real]


def test_the_step_and_the_last_scores_are_told_with_their_intervals():
    lines = class_lines(summary_table(summaries()), EmergenceStep(8, 7, 10))
    assert lines[0].startswith("Half of the images are named right for good from step 9 [8, 11] of 15 on (n = 40;")
    assert "At step 15 resnet names the right class first for 0.93 [0.88, 0.98] of the images (n = 40)" in lines[1]
    assert len(lines) == 2


def test_an_interval_that_ends_beyond_the_last_step_says_so_and_no_step_is_made_up():
    assert "[8, after the last]" in class_lines(summary_table(summaries()), EmergenceStep(14, 7, None))[0]
    assert "no step is named" in class_lines(summary_table(summaries()), EmergenceStep(None, 9, None))[0]


def test_a_difference_from_photos_is_claimed_only_where_its_interval_leaves_zero_out():
    def told(*difference):
        found = Stratified(0.7, 0.8, Interval(*difference), 3, 38, 36)
        return class_lines(summary_table(summaries()), EmergenceStep(8, 7, 10), found, "rendered scenes")[2]

    assert "less sure of generated images than of rendered scenes" in told(-0.1, -0.2, -0.05)
    assert "surer of generated images than of rendered scenes" in told(0.1, 0.05, 0.2)
    assert "not shown to be surer" in told(0.1, -0.05, 0.2)
    assert "0.70 (n = 38) against 0.80 (n = 36), each the mean over the 3 classes" in told(0.1, 0.05, 0.2)
    assert "too few images for an interval" in told(0.1, None, None)


def test_without_a_common_class_nothing_is_said_of_photos():
    found = Stratified(None, None, Interval(None, None, None), 0, 0, 0)
    line = class_lines(summary_table(summaries()), EmergenceStep(8, 7, 10), found, "rendered scenes")[2]
    assert line.startswith("Nothing is said of rendered scenes: none of them is of a class")


def test_a_step_of_few_images_is_no_verdict():
    line = class_lines(summary_table(summaries()), EmergenceStep(8, None, None, 4))[0]
    assert "of 4: too few for an interval, so that is no verdict" in line


def test_the_curves_have_every_measure_the_level_of_photos_and_the_step():
    figure = class_curves(summary_table(summaries()), EmergenceStep(8, 7, None), "real photos")
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"right class first", "mean confidence in real photos", "half of the images right for good"} <= labels
    assert len(labels) == 6


def test_an_example_names_the_first_answers_under_each_shown_step():
    names = ["lemon, citrus", "tench", "tiger", "crane", "house"]
    answers = pd.DataFrame(
        {"step": step, "label": name, "right": "tench", "confidence": 0.5 / rank}
        for step in (0, 1)
        for rank, name in enumerate(names, 1)
    )
    example = Example("a tench $", (0, 1), {"decoded image": Frames(np.zeros((2, 8, 8, 3)))})
    figure = class_example(example, answers)
    texts = [text.get_text() for text in figure.axes[2].texts]
    assert texts == ["lemon", "tench", "tiger", "crane", "house"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["step 1", "step 2"]
