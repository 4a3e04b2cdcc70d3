"""Sentences say what the scores support, and no more."""

from dataclasses import replace

import pytest

from diffprobe.analyses.probing.findings import controls_at, published_table, score_at, verdict
from diffprobe.analyses.probing.report import closing_tables
from diffprobe.probes.comparisons import compare_run
from diffprobe.probes.summaries import EmergenceStep, summarise
from diffprobe.report.choices import choose, grouped, sign_of
from diffprobe.report.emergence_order import emergence_order
from diffprobe.report.wording import interval_text
from tests.reference.score_rows import Score, summary_table, table_of
from tests.report.made_up_run import BEST, make_choices, make_comparison

DEPTH = make_choices()[1]


def told(summaries, choices):
    """The sentences on all choices."""
    return [line for lines in verdict(summaries, choices).values() for line in lines]


def lines(summaries, choice=DEPTH):
    return told(summary_table(summaries), [choice])


def with_control(summaries, control, low, high):
    """The rows with one control of depth at an interval of our choosing."""
    return [
        replace(row, mean=(low + high) / 2, low=low, high=high)
        if (row.control, row.property) == (control, "depth")
        else row
        for row in summaries
    ]


def test_emergence_is_told_with_its_interval_counted_from_one(summaries):
    assert lines(summaries)[0] == (
        f"By step 5 [4, 7] of 15 the probe on {BEST} reaches 95 % of its final depth score, "
        "rank correlation 0.80 [0.77, 0.83]."
    )


def test_a_score_above_both_controls_is_said_to_be_so(summaries):
    assert lines(summaries)[1] == (
        "At step 15 depth (0.80 [0.77, 0.83], n = 100) is above both controls with separated intervals "
        "(permuted network 0.35 [0.31, 0.39]; pixel position 0.30 [0.26, 0.34])."
    )


@pytest.mark.parametrize("control", ["permuted", "position"])
def test_overlapping_intervals_are_not_called_a_difference(summaries, control):
    line = lines(with_control(summaries, control, 0.70, 0.78))[1]

    assert "is not shown to be above both controls" in line
    assert "0.74 [0.70, 0.78], the intervals overlap" in line
    assert "separated intervals" in line  # the other control's


def test_a_control_that_is_ahead_is_named(summaries):
    line = lines(with_control(summaries, "position", 0.90, 0.95))[1]

    assert "is not shown to be above both controls" in line
    assert "pixel position 0.93 [0.90, 0.95], the control is ahead" in line


def test_intervals_that_touch_overlap(summaries):
    top = next(r.low for r in summaries if (r.property, r.layer, r.step, r.control) == ("depth", BEST, 14, "none"))

    assert "the intervals overlap" in lines(with_control(summaries, "position", 0.5, top))[1]


def test_a_control_without_a_score_at_the_last_step_proves_nothing(summaries):
    rows = [row for row in summaries if (row.control, row.step) != ("permuted", 14)]

    line = lines(rows)[1]
    assert "is not shown to be above both controls" in line
    assert "permuted network no score, no interval to compare" in line


def test_only_controls_that_were_run_are_spoken_of(summaries):
    assert (
        "is above the control with separated intervals (pixel position"
        in lines([row for row in summaries if row.control != "permuted"])[1]
    )
    assert lines([row for row in summaries if row.control == "none"])[1].endswith("was held against no control.")


def test_of_many_controls_only_what_matters_is_told(summaries):
    weak = [replace(row, control="fresh") for row in summaries if row.control == "permuted"]
    weaker = [replace(row, control="latent") for row in weak]
    rows = [*summaries, *weak, *weaker]

    assert (
        "above all 4 controls with separated intervals (the nearest is permuted network 0.35"
        in lines([replace(row, mean=row.mean + 0.001) if row.control == "permuted" else row for row in rows])[1]
    )
    assert (
        "(VAE latent 0.74 [0.70, 0.78], the intervals overlap; 3 others, separated intervals)"
        in lines(with_control(rows, "latent", 0.70, 0.78))[1]
    )


def test_paired_differences_are_told_by_what_they_show(summaries):
    compared = (make_comparison("permuted", 0.45), make_comparison("position", 0.07, half=0.04))

    assert lines(summaries, replace(DEPTH, comparisons=compared))[2] == (
        "Paired on the same images, depth at step 15 is above permuted network by 0.45 [0.43, 0.47]; "
        "pixel position by 0.07 [0.03, 0.11]."
    )


def test_a_paired_difference_that_is_not_shown_is_not_claimed(summaries):
    compared = (make_comparison("permuted", -0.30), make_comparison("position", 0.01))

    assert lines(summaries, replace(DEPTH, comparisons=compared))[2] == (
        "Paired on the same images, depth at step 15 is below permuted network by 0.30 [0.28, 0.32], and "
        "not shown to differ from pixel position, 0.01 [-0.01, 0.03]."
    )


def test_an_interval_above_zero_does_not_outweigh_the_adjusted_p(summaries):
    compared = (make_comparison("permuted", 0.05, p=0.2),)

    assert "not shown to differ from permuted network" in lines(summaries, replace(DEPTH, comparisons=compared))[2]


def test_a_property_there_from_the_first_step_is_not_said_to_emerge(summaries):
    choice = replace(DEPTH, emergence=EmergenceStep(0, 0, 1))

    assert lines(summaries, choice)[0].endswith("already at the first step probed, so nothing is seen to emerge.")


def test_a_score_still_rising_at_the_end_is_said_to(summaries):
    choice = replace(DEPTH, emergence=EmergenceStep(14, 12, 14))

    assert lines(summaries, choice)[0].endswith("not before the last step, so it may still be rising.")


def test_no_emergence_is_said(summaries):
    assert lines(summaries, replace(DEPTH, emergence=EmergenceStep(None, None, None)))[0].startswith("No step was")


def test_a_missing_last_score_gives_no_verdict(summaries):
    rows = [replace(r, mean=None, low=None, high=None) if r.step == 14 else r for r in summaries]

    assert lines(rows) == [f"depth: no test score of {BEST} at the last step, so no verdict."]


def test_interval_text_shows_what_there_is(summaries):
    row = next(row for row in summaries if row.layer == BEST)

    assert interval_text(replace(row, mean=0.8612, low=0.83, high=0.89)) == "0.86 [0.83, 0.89]"
    assert interval_text(replace(row, mean=0.8612, low=None, high=None)) == "0.86"
    assert interval_text(replace(row, mean=None)) == "no score"
    assert interval_text(None) == "no score"


def test_of_a_single_step_nothing_is_said_to_emerge(summaries):
    last = [row for row in summaries if row.step in (14, -1)]

    assert "Only step 15 was probed" in lines(last, DEPTH)[0]


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_no_verdict_is_given_on_fewer_than_five_images(images: int):
    told = told_of(images)
    assert f"it takes 5 images, and there are {images}" in told[0]
    assert "gets no verdict against its controls: with less than 5 images there are no intervals" in told[1]
    assert "cannot show a difference, it takes 6 for 1 comparison" in told[2]
    assert not any("is above" in line or "is below" in line for line in told)


def test_five_images_have_intervals_and_six_can_show_a_difference():
    five, six = told_of(5), told_of(6)
    assert "is above the control with separated intervals" in five[1]
    assert "5 images cannot show a difference, it takes 6" in five[2]
    assert six[2].startswith("Paired on the same images, depth at step 2 is above permuted network by 0.5")


def told_of(images: int):
    """The verdict on a probe far above its control, of few images."""
    scores = [
        Score(
            "m", "up", step, 2.0 - step, "depth", "linear", control, part, str(at), "spearman", value + 0.01 * (at % 3)
        )
        for part in ("validation", "test")
        for at in range(images)
        for step, real in ((0, 0.3), (1, 0.9))
        for control, value in (("none", real), ("permuted", 0.35 + 0.005 * (at % 2)))
    ]
    scores = table_of(scores)
    summaries = summarise(scores)
    return told(summaries, choose(summaries, scores, compare_run(scores, summaries)))


def test_a_control_without_steps_holds_at_every_step(summaries, choices):
    table = summary_table(summaries)

    at_3, at_14 = (controls_at(table, choices[1], step)["position"] for step in (3, 14))
    assert at_3 == at_14
    assert at_3.mean == 0.3
    assert score_at(table, choices[1], BEST, 14).step == 14
    assert score_at(table, choices[1], BEST, 99) is None


def test_choices_are_grouped_by_what_tells_models_and_probes_apart():
    linear, ridge = DEPTH, replace(DEPTH, probe="ridge")

    assert list(grouped([linear, ridge])) == ["linear", "ridge"]
    assert list(grouped([linear, ridge, replace(linear, model="sd14")])) == [
        "pocket, linear",
        "pocket, ridge",
        "sd14, linear",
    ]
    assert list(grouped([ridge])) == [""]


# Errors, of which the lower is the better

ERROR = replace(DEPTH, property="normals", metric="mean_angle")


def scaled(summaries):
    """The rows of depth as angles: the better the score, the smaller the angle."""
    return [
        replace(
            row,
            property="normals",
            metric="mean_angle",
            mean=100 - 80 * row.mean,
            low=100 - 80 * row.high,
            high=100 - 80 * row.low,
        )
        for row in summaries
        if row.property == "depth"
    ]


def test_an_error_is_said_to_come_down(summaries):
    assert lines(scaled(summaries), ERROR)[0] == (
        f"By step 5 [4, 7] of 15 the probe on {BEST} comes down to 105 % of its final normals error, "
        "mean angular error (°) 36.00 [33.60, 38.40]."
    )
    half = lines(scaled(summaries), replace(ERROR, fraction=0.5))[0]
    assert "comes down to 200 % of its final normals error" in half


def test_an_error_below_both_controls_is_said_to_be_so_and_which_way_is_better(summaries):
    assert lines(scaled(summaries), ERROR)[1] == (
        "At step 15 normals (36.00 [33.60, 38.40], n = 100, lower is better) is below both controls with separated "
        "intervals (permuted network 71.97 [68.77, 75.17]; pixel position 76.00 [72.80, 79.20])."
    )


def test_the_nearest_control_of_an_error_is_the_one_with_the_lowest(summaries):
    rows = scaled(summaries)
    for name, shift in (("fresh", -3), ("latent", 9)):
        permuted = [row for row in rows if row.control == "permuted"]
        rows += [
            replace(row, control=name, mean=row.mean + shift, low=row.low + shift, high=row.high + shift)
            for row in permuted
        ]
    line = lines(rows, ERROR)[1]
    assert "is below all 4 controls with separated intervals (the nearest is untrained network 68.97 " in line


def test_a_control_with_the_lower_error_is_ahead_and_one_that_overlaps_is_not(summaries):
    rows = scaled(summaries)

    def placed(low, high):
        return [
            replace(row, mean=(low + high) / 2, low=low, high=high) if row.control == "position" else row
            for row in rows
        ]

    assert "is not shown to be below both controls" in lines(placed(10, 12), ERROR)[1]
    assert "pixel position 11.00 [10.00, 12.00], the control is ahead" in lines(placed(10, 12), ERROR)[1]
    assert "pixel position 40.00 [37.00, 43.00], the intervals overlap" in lines(placed(37, 43), ERROR)[1]


def test_paired_differences_of_errors_are_told_with_the_way_that_is_better(summaries):
    compared = tuple(
        replace(make_comparison(name, value, half=2.0), property="normals", metric="mean_angle")
        for name, value in (("permuted", -30.0), ("position", 12.0))
    )
    assert lines(scaled(summaries), replace(ERROR, comparisons=compared))[2] == (
        "Paired on the same images, normals (lower is better) at step 15 is above pixel position by 12.00 [10.00, "
        "14.00], and below permuted network by 30.00 [28.00, 32.00]."
    )


def test_the_whole_way_from_scores_of_errors_to_sentences():
    scores = table_of(
        Score(
            "m",
            layer,
            step,
            3.0 - step,
            "normals",
            "linear",
            control,
            part,
            str(at),
            "mean_angle",
            value + 0.1 * (at % 3),
        )
        for part in ("validation", "test")
        for at in range(8)
        for layer, end in (("good", 20.0), ("bad", 40.0))
        for step, more in ((0, 50.0), (1, 0.0), (2, 0.0))
        for control, value in (("none", end + more), ("permuted", 70.0 + 0.5 * (at % 2)))
    )
    summaries = summarise(scores)
    (choice,) = choose(summaries, scores, compare_run(scores, summaries))
    assert (choice.best, sign_of(choice.metric), choice.emergence.step) == ("good", -1, 1)
    emerged, held, paired = told(summaries, [choice])
    assert "By step 2 [2, 2] of 3 the probe on good comes down to 105 % of its final normals error" in emerged
    assert "is below the control with separated intervals" in held
    assert paired.startswith("Paired on the same images, normals (lower is better) at step 3 is below permuted network")
    against = choice.against("layer", other_layer="bad")
    assert against is not None
    assert against.difference == pytest.approx(-20)


def test_nothing_is_said_to_emerge_where_the_noise_does_not_fall_from_step_to_step():
    scores = table_of(
        Score("m", "one", step, timestep, name, "linear", "none", part, str(at), "dice", 0.5 + gain * step - 0.01 * at)
        for part in ("validation", "test")
        for at in range(8)
        for name, gain in (("saliency", 0.2), ("shadow", 0.1))
        for step, timestep in ((0, 0.0), (1, 100.0), (2, 261.0))
    )
    summaries = summarise(scores)
    choices = choose(summaries, scores)
    assert [choice.emergence for choice in choices] == [None, None]
    assert emergence_order(scores, choices) == ([], {})
    emerged, _ = verdict(summaries, choices)["saliency"]
    assert emerged.startswith(
        "No step is named by which saliency emerges, since the noise does not fall from step to step (step 1 is "
        "timestep 0, step 3 is timestep 261). Its score on one, Dice, is 0.46 ["
    )
    (table,) = closing_tables(summaries, choices).values()
    told = table.data.set_index("step (timestep)").index.tolist()
    assert told[:4] == ["1 (0)", "2 (100)", "3 (261)", "best layer"]
    assert "emerged by step" not in told
    assert (
        "found by step"
        not in published_table({"saliency": {"step": 5, "dice": 0.8}}, summaries, scores)["published"]
        .data["what"]
        .str.cat()
    )


def test_real_images_with_less_and_less_noise_are_in_the_order_of_denoising():
    falling = table_of(
        Score("m", "one", step, timestep, "depth", "linear", "none", part, str(at), "spearman", 0.4 + 0.1 * step)
        for part in ("validation", "test")
        for at in range(8)
        for step, timestep in ((0, 400.0), (1, 200.0), (2, 0.0))
    )
    (choice,) = choose(summarise(falling), falling)
    assert choice.emergence is not None
    assert choice.emergence.step == 2


def test_sentences_stand_by_what_tells_their_choices_apart(summaries):
    table, choices = summary_table(summaries), make_choices()
    assert list(verdict(table, choices)) == ["saliency", "depth", "shading"]
    several = [*choices, replace(choices[0], model="other"), replace(choices[0], probe="mlp")]
    found = verdict(table, several)
    assert list(found) == [
        "saliency (pocket, linear)", "depth (pocket, linear)", "shading (pocket, linear)", "saliency (other, linear)",
        "saliency (pocket, mlp)",
    ]  # fmt: skip
    assert found["depth (pocket, linear)"] == [f"pocket, linear: {line}" for line in lines(summaries)]
