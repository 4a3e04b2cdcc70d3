"""Which layer and step a report speaks of."""

from dataclasses import replace

import pandas as pd
import pytest

from diffprobe.errors import UserError
from diffprobe.probes.summaries import EmergenceStep
from diffprobe.report.choices import choose, control_curve, controls, curve, noise_falls, or_nan
from tests.reference.score_rows import Score, summary_table, table_of
from tests.report.made_up_run import BEST, LAYERS, make_comparison, make_summaries


def make_scores(values, layer=BEST, property="depth", metric="spearman"):
    """Four images with the same score at each step."""
    return [
        Score("pocket", layer, step, None, property, "linear", "none", "test", f"image {image}", metric, value)
        for step, value in enumerate(values)
        for image in range(4)
    ]


def test_choose_takes_the_best_validation_layer_and_its_emergence():
    summaries = [row for row in make_summaries(steps=range(4)) if row.property == "depth"]

    (choice,) = choose(summary_table(summaries), table_of(make_scores([0.2, 0.5, 0.77, 0.8])))

    assert (choice.property, choice.metric, choice.best) == ("depth", "spearman", BEST)
    assert choice.emergence == EmergenceStep(step=2, low=None, high=None, n=4)


def test_test_scores_have_no_say_in_the_choice_of_the_layer():
    rows = [row for row in make_summaries(steps=range(2)) if row.property == "depth"]
    tempting = [replace(row, mean=0.99) if row.layer == LAYERS[0] and row.split == "test" else row for row in rows]

    (choice,) = choose(summary_table(tempting), table_of(make_scores([0.5, 0.8])))

    assert choice.best == BEST


def test_choose_without_validation_rows_is_refused():
    only_test = [row for row in make_summaries(steps=range(2)) if row.split == "test"]

    with pytest.raises(UserError, match="validation"):
        choose(summary_table(only_test), table_of(make_scores([0.5, 0.8])))


def test_curve_is_in_step_order_and_holds_one_control_only(summaries, choices):
    rows = curve(summary_table(reversed(summaries)), choices[0], BEST, control="permuted")

    assert [row.step for row in rows] == list(range(15))
    assert {(row.control, row.split, row.layer) for row in rows} == {("permuted", "test", BEST)}


def test_controls_are_those_that_were_run_in_one_order(summaries, choices):
    assert controls(summary_table(reversed(summaries)), choices[0]) == ["permuted", "position"]
    assert controls(summary_table([row for row in summaries if row.control == "none"]), choices[0]) == []


def test_a_control_with_a_layer_of_its_own_is_found_beside_the_best_layer(summaries, choices):
    pixels = [
        replace(row, layer="pixels", control="pixels") for row in curve(summary_table(summaries), choices[0], BEST)
    ]

    assert control_curve(summary_table([*summaries, *pixels]), choices[0], "pixels") == pixels
    assert {row.layer for row in control_curve(summary_table(summaries), choices[0], "permuted")} == {BEST}


def test_probes_and_models_of_one_table_are_kept_apart():
    summaries = [row for row in make_summaries(steps=range(2)) if row.property == "depth"]
    scores = make_scores([0.5, 0.8])
    both = [*summaries, *(replace(row, probe="ridge", mean=row.mean + 1) for row in summaries)]

    choices = choose(summary_table(both), table_of([*scores, *(replace(row, probe="ridge") for row in scores)]))

    assert [(choice.model, choice.probe) for choice in choices] == [("pocket", "linear"), ("pocket", "ridge")]
    assert [row.mean > 1 for row in curve(summary_table(both), choices[0], BEST)] == [False, False]
    assert [row.mean > 1 for row in curve(summary_table(both), choices[1], BEST)] == [True, True]


def test_a_run_whose_probes_have_another_name_is_chosen_from_too():
    summaries = [replace(row, probe="mlp") for row in make_summaries(steps=range(2)) if row.property == "depth"]

    (choice,) = choose(
        summary_table(summaries), table_of([replace(row, probe="mlp") for row in make_scores([0.5, 0.8])])
    )

    assert (choice.probe, choice.best) == ("mlp", BEST)


def test_a_choice_keeps_the_comparisons_that_are_its_own():
    summaries = [row for row in make_summaries(steps=range(2)) if row.property == "depth"]
    own, foreign = make_comparison("permuted", 0.4), make_comparison("permuted", 0.4, property="saliency")

    (choice,) = choose(summary_table(summaries), table_of(make_scores([0.5, 0.8])), [own, foreign])

    assert choice.comparisons == (own,)
    assert choice.against("control", other_control="permuted") == own
    assert choice.against("control", other_control="position") is None


@pytest.mark.parametrize(
    ("timesteps", "falls"),
    [
        ([900, 500, 100], True),
        ([900, 500, 500], True),  # a sampler that rounds its timesteps
        ([0, 100, 261], False),
        ([900, 100, 500], False),
        ([None, None, None], True),  # a table without timesteps
        ([500], True),
    ],
)
def test_noise_falls_where_no_timestep_is_above_the_one_before(timesteps, falls):
    rows = pd.DataFrame({"step": range(len(timesteps)), "timestep": timesteps}, dtype=float)
    assert noise_falls(rows.sample(frac=1, random_state=0)) == falls


def test_a_missing_value_is_nan_and_not_zero():
    assert or_nan(None) != or_nan(None)
    assert or_nan(0.0) == 0.0
