"""From which step on the right class is named for good, and generated images against real photos."""

import numpy as np
import pytest
import torch

from diffprobe.analyses.classification.classes import (
    ClassifierOutputs,
    Photos,
    against_photos,
    class_scores,
    classify_photos,
    classify_steps,
    half_stable,
    stable_steps,
    top_answers,
)
from diffprobe.data.prompts import Prompt
from diffprobe.files import NO_STEP
from diffprobe.probes.score_table import score_table, select
from tests.reference.score_rows import rows_of

CLASSES = ["dark", "middle", "bright"]


class Brightness:
    """The class of an image is its mean brightness, in thirds."""

    name, classes = "brightness", CLASSES

    def check(self, image_size):
        pass

    def __call__(self, images):
        distance = (images.mean((1, 2, 3))[:, None] - torch.tensor([0.2, 0.5, 0.8])).abs()
        return (-10 * distance).softmax(1)


def watched(right_steps):
    """Of images whose right class is named with 0.8 where `right_steps` is 1, with 0.1 elsewhere."""
    hits = np.array(right_steps)
    probabilities = np.where(hits[..., None] == 1, [0.8, 0.1, 0.1], [0.1, 0.7, 0.2])
    steps = dict(enumerate(np.linspace(999, 0, hits.shape[1]).tolist()))
    names = [f"image{at}" for at in range(len(hits))]
    return ClassifierOutputs(
        names, np.zeros(len(hits), int), probabilities, steps, torch.zeros(0, hits.shape[1], 3, 1, 1)
    )


def test_an_answer_is_stable_from_the_first_step_after_which_it_is_never_wrong():
    found = watched([[0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 0]])
    prompts = [Prompt("a", 0, name) for name in found.names]
    rows = stable_steps(found, prompts, "tiny", Brightness())
    assert rows["step"].fillna(NO_STEP).tolist() == [1, 3, 0, NO_STEP]


def test_half_of_the_images_being_right_is_what_the_median_step_says():
    few, many = half_stable(watched([[0, 0, 1]] * 5)), half_stable(watched([[0, 0, 1]] * 50))
    assert (few.step, few.low, few.high) == (2, None, None)
    assert (many.step, many.low, many.high) == (2, 2, 2)
    mixed = half_stable(watched([[1, 1, 1]] * 10 + [[0, 1, 1]] * 15 + [[0, 0, 1]] * 15))
    assert mixed.step == 1
    assert mixed.low is not None
    assert mixed.high is not None
    assert mixed.low <= 1 <= mixed.high


def test_where_most_images_are_wrong_in_the_end_there_is_no_step():
    mostly_wrong = half_stable(watched([[0, 1, 1]] * 2 + [[1, 1, 0]] * 30))
    assert (mostly_wrong.step, mostly_wrong.high) == (None, None)


def test_a_class_that_is_as_probable_as_the_right_one_does_not_make_it_the_first():
    found = watched([[1]])
    found.probabilities[:] = [[[0.4, 0.4, 0.2]]]
    assert found.rank.tolist() == [[2]]


def test_scores_hold_confidence_and_ranks_image_by_image():
    scores = rows_of(score_table(class_scores(watched([[0, 1], [1, 0]]), "tiny", "brightness")))
    values = {(row.metric, row.step, row.image): row.value for row in scores}
    assert values["confidence", 1, "image0"] == pytest.approx(0.8)
    assert (values["top1", 0, "image1"], values["stable", 0, "image1"]) == (1, 0)
    assert {row.value for row in scores if row.metric == "top5"} == {1}  # of three classes


def test_generated_images_are_held_against_photos_with_an_interval_around_the_difference():
    generated, real = watched([[0, 1]] * 30 + [[0, 0]] * 10), watched([[1]] * 25)
    found = against_photos(generated, real).difference
    assert found.value == pytest.approx(0.8 * 0.75 + 0.1 * 0.25 - 0.8)
    assert found.low < found.value < found.high < 0
    same = against_photos(real, real).difference
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_mix_of_classes_is_no_difference_to_photos():
    random = np.random.default_rng(0)

    def sure(dark, bright, steps):
        """Of `dark` images of class 0, sure by 0.9, and `bright` ones of class 2, sure by 0.5."""
        right = np.array([0] * dark + [2] * bright)
        sure = np.where(right == 0, 0.9, 0.5) + 0.02 * random.normal(size=len(right))
        probabilities = np.repeat(np.array([[0.0, 1, 0]]), len(right), 0) * (1 - sure)[:, None]
        probabilities[np.arange(len(right)), right] = sure
        films = torch.zeros(0, 1, 3, 1, 1)
        return ClassifierOutputs([str(at) for at in range(len(right))], right, probabilities[:, None], steps, films)

    generated, photos = sure(36, 4, {0: 0.0}), sure(4, 36, {NO_STEP: None})
    assert generated.confidence.mean() - photos.confidence.mean() > 0.3
    found = against_photos(generated, photos)
    assert found.difference.low < 0 < found.difference.high
    assert (found.first, found.second) == pytest.approx((0.7, 0.7), abs=0.02)


def test_the_classifier_sees_what_the_latents_decode_to_after_each_chosen_step(tiny_backbone):
    from diffprobe.backbone.trajectory import generate

    prompts = [Prompt("a dark lemon", 3, "one"), Prompt("a bright lemon", 4, "two"), Prompt("lemon", 5, "three")]
    found = classify_steps(
        tiny_backbone, prompts, [0, 2, 1], Brightness(), sampling_steps=3, steps=[0, 2], batch_size=2, shown=1
    )
    steps = list(generate(tiny_backbone, [each.text for each in prompts], [3, 4, 5], steps=3, decode=True))
    wanted = torch.stack([Brightness()(steps[at].images) for at in (0, 2)], 1)
    np.testing.assert_allclose(found.probabilities, wanted.numpy(), atol=1e-5)
    assert found.timesteps == {at: steps[at].timestep for at in (0, 2)}
    torch.testing.assert_close(found.example_images[0, 1], steps[2].images[0], atol=1e-4, rtol=0)
    assert len(found.example_images) == 1


def test_the_first_answers_are_in_order_and_photos_have_no_step():
    pictures = torch.tensor([0.8, 0.8, 0.1])[:, None, None, None].expand(-1, 3, 4, 4)
    photos = Photos(["a", "b", "c"], [2, 2, 1], lambda rows: pictures[list(rows)])
    found = classify_photos(photos, Brightness(), batch_size=2)
    rows = select(top_answers(found, "tiny", Brightness()), image="c")
    assert rows[["rank", "label", "right"]].to_numpy().tolist() == [
        [1, "dark", "middle"],
        [2, "middle", "middle"],
        [3, "bright", "middle"],
    ]
    assert rows["step"].isna().all()
