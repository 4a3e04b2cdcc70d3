"""By how many steps probes are ahead, on scores whose emergence is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffprobe.analyses.emergence.image_models import IMAGE_MODEL
from diffprobe.analyses.emergence.tables import find_leads
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.probes.summaries import emergence_step
from tests.reference.score_rows import Score, table_of

STEPS = 15


def rows(values: np.ndarray, control: str = "none", steps: list[int] | None = None) -> list[Score]:
    """Test scores of depth from values [images, steps]; the layer of the image model is called as the control is."""
    layer = "layer" if control == "none" else control
    what = ("depth", "linear", control, "test")
    return [
        Score("model", layer, step, None, *what, f"image_{image}", "spearman", None if np.isnan(value) else value)
        for image, line in enumerate(values.tolist())
        for step, value in zip(steps or range(len(line)), line, strict=True)
    ]


def from_step(first: int | np.ndarray, high: float = 1.0, low: float = 0.1, images: int = 20) -> np.ndarray:
    """Scores [images, steps] that are high from a step on."""
    return np.where(np.arange(STEPS) >= np.broadcast_to(first, images)[:, None], high, low)


def gradual(seed: int, last: float, speed: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, (20, STEPS))
    return last * (1 - np.exp(-np.arange(STEPS) / speed)) + noise


def both(probe: np.ndarray, image_model: np.ndarray) -> list[Score]:
    return [*rows(probe), *rows(image_model, IMAGE_MODEL)]


def test_a_planted_lead_is_found():
    own, common = find_leads(table_of(both(from_step(2, 0.8), from_step(9))))
    for lead in (own, common):
        assert (lead.probe_step, lead.image_model_step) == (2, 9)
        assert (lead.lead, lead.lead_low, lead.lead_high) == (7, 7, 7)
        assert lead.n == 20
    assert own.definition == "own"
    assert (own.probe_level, own.image_model_level) == pytest.approx((0.95 * 0.8, 0.95))
    assert common.definition == "common"
    assert common.probe_level == common.image_model_level == pytest.approx(0.95 * 0.8)


@pytest.mark.parametrize("errors", [False, True])
def test_the_steps_at_ones_own_level_are_those_of_emergence_step(errors):
    scores = both(gradual(0, 0.7, 2), gradual(1, 0.9, 4))
    if errors:
        scores = as_errors(both(90 - 80 * gradual(0, 0.7, 2), 90 - 80 * gradual(1, 0.9, 4)))
    for fraction in (0.95, 0.5):
        (own, _) = find_leads(table_of(scores), [fraction])
        probe = emergence_step(table_of(scores), "layer", "depth", fraction=fraction)
        image = emergence_step(table_of(scores), IMAGE_MODEL, "depth", fraction=fraction, control=IMAGE_MODEL)
        assert (own.probe_step, own.probe_low, own.probe_high) == (probe.step, probe.low, probe.high)
        assert (own.image_model_step, own.image_model_low, own.image_model_high) == (image.step, image.low, image.high)
        assert own.lead == image.step - probe.step
    assert probe.step < image.step  # else this test could not tell them apart


def test_a_weak_probe_that_is_early_at_its_own_level_may_have_no_lead_at_a_common_one():
    rising = np.tile(np.linspace(0, 1, STEPS), (20, 1))
    own, common = find_leads(table_of(both(from_step(3, high=0.2), rising)))
    assert own.lead > 8
    assert common.lead <= 0


def test_a_lead_is_between_what_the_two_steps_can_be():
    first = np.random.default_rng(0).integers(0, 5, 20)
    own, _ = find_leads(table_of(both(from_step(first), from_step(first + 8))))
    assert own.probe_high > own.probe_low
    assert own.lead == 8
    assert 0 < own.lead_low <= 8 <= own.lead_high
    assert (
        own.lead_high - own.lead_low < own.probe_high - own.probe_low + own.image_model_high - own.image_model_low + 1
    )


def test_no_lead_is_claimed_where_there_is_none():
    claimed = 0
    for seed in range(60):
        own, common = find_leads(table_of(both(gradual(2 * seed, 0.8, 3)[:8], gradual(2 * seed + 1, 0.8, 3)[:8])))
        claimed += any(lead.lead_low is not None and lead.lead_low > 0 for lead in (own, common))
    assert claimed <= 4


def test_few_images_have_a_lead_and_no_interval():
    for lead in find_leads(table_of(both(from_step(2, images=4), from_step(9, images=4)))):
        assert (lead.probe_step, lead.image_model_step, lead.lead) == (2, 9, 7)
        assert (lead.lead_low, lead.lead_high, lead.probe_low, lead.image_model_high) == (None, None, NO_STEP, NO_STEP)


def test_a_level_that_the_image_model_never_reaches_leaves_a_lower_bound():
    late = from_step(STEPS, low=0.3)  # never
    late[:2] = 0.9
    _, common = find_leads(table_of(both(from_step(5, 0.8), late)))
    assert common.image_model_step == NO_STEP
    assert common.lead is None
    assert common.lead_high is None
    assert common.probe_step == 5


def test_a_lead_that_only_some_resamples_have_is_at_least_that():
    sometimes = from_step(STEPS, low=0.1)
    sometimes[:, 8:] = np.where(np.arange(20) < 12, 1.0, 0.0)[:, None]  # mean 0.6 from step 8 on, more or less
    _, common = find_leads(table_of(both(from_step(2, 0.6), sometimes)))
    assert (common.lead, common.lead_low, common.lead_high) == (6, 6, None)


def test_scores_that_end_at_or_below_zero_have_no_lead():
    for lead in find_leads(table_of(both(from_step(2, high=-0.1, low=0), from_step(9)))):
        assert (lead.probe_step, lead.lead, lead.probe_level) == (NO_STEP, None, None)


def test_images_without_a_score_at_a_step_do_not_count_there():
    image_model = from_step(9)
    image_model[:10, :5] = np.nan
    own, _ = find_leads(table_of(both(from_step(2), image_model)))
    assert own.lead == 7


def test_steps_far_apart_are_counted_as_steps_of_the_trajectory():
    values = np.tile([0.1, 1.0, 1.0], (20, 1)), np.tile([0.1, 0.1, 1.0], (20, 1))
    scores = [*rows(values[0], steps=[0, 4, 14]), *rows(values[1], IMAGE_MODEL, steps=[0, 4, 14])]
    assert find_leads(table_of(scores))[0].lead == 10


def test_image_models_on_other_images_or_none_at_all_are_refused():
    scores = both(from_step(2), from_step(9))
    with pytest.raises(UserError, match="no scores of image models for depth"):
        find_leads(table_of(row for row in scores if row.control == "none"))
    other = [replace(row, image=f"other_{row.image}") if row.control == IMAGE_MODEL else row for row in scores]
    with pytest.raises(UserError, match="different images"):
        find_leads(table_of(other))


# Errors, of which the lower is the better


def as_errors(scores: list[Score]) -> list[Score]:
    return [replace(row, metric="mean_angle") for row in scores]


def test_an_error_reaches_its_level_from_above_and_the_earlier_one_leads():
    scores = as_errors(both(from_step(2, high=20.0, low=80.0), from_step(9, high=10.0, low=80.0)))
    own, common = find_leads(table_of(scores))
    for lead in (own, common):
        assert (lead.metric, lead.probe_step, lead.image_model_step) == ("mean_angle", 2, 9)
        assert (lead.lead, lead.lead_low, lead.lead_high) == (7, 7, 7)
    assert (own.probe_level, own.image_model_level) == pytest.approx((20 / 0.95, 10 / 0.95))
    assert common.probe_level == common.image_model_level == pytest.approx(20 / 0.95)


def test_an_image_model_that_never_comes_down_to_the_probes_error_is_later_than_all_steps():
    _, common = find_leads(table_of(as_errors(both(from_step(5, 20.0, 80.0), from_step(2, 60.0, 80.0)))))
    assert (common.probe_step, common.image_model_step, common.lead) == (5, NO_STEP, None)
    assert common.lead_low == STEPS - 5
    _, common = find_leads(table_of(as_errors(both(from_step(5, 60.0, 80.0), from_step(2, 20.0, 80.0)))))
    assert (common.probe_step, common.image_model_step, common.lead) == (5, 2, -3)
