"""Interventions on a tiny pipeline: probes report what they are told to, and scores are held against controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from diffprobe.analyses.intervention import trials
from diffprobe.analyses.intervention.edits import Editing, TokenMoments, replacements
from diffprobe.analyses.intervention.trials import InterventionStudy, Targets, summarise_interventions
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.editing import readout_at
from diffprobe.probes.score_table import select
from diffprobe.properties.tokens import token_means

LAYER = "up_blocks.3.resnets.1"
PROMPTS = [Prompt(f"picture {number}", number, f"image_{number}") for number in range(3)]
SEEDS = [prompt.seed for prompt in PROMPTS]
TEXTS = [prompt.text for prompt in PROMPTS]


@pytest.fixture
def bank() -> ProbeBank:
    return ProbeBank({LAYER: 8}, [0, 1], ["saliency", "depth"])


def label(images, names, properties):
    grey = images.mean(1)
    middle = grey.flatten(1).median(1).values[:, None, None]
    maps = {"saliency": (grey > middle).float(), "depth": grey}
    return {name: maps[name] for name in properties}


def half_masks() -> torch.Tensor:
    masks = torch.zeros(3, 128, 128)
    masks[0, :64] = masks[1, :, :64] = masks[2, 32:96, 32:96] = 1
    return masks


def test_the_probe_reports_the_target_where_it_was_told_to(tiny_backbone, bank):
    moments, taken = TokenMoments(), {}
    for step in generate(tiny_backbone, TEXTS, SEEDS, steps=2, layers=[LAYER]):
        moments.add(step.index, step.activations)
    for method in ("minimum_norm", "pattern"):
        editing = Editing("saliency", [LAYER], [1], method=method, margin=1.0)
        edits = replacements(tiny_backbone, SEEDS, half_masks(), bank, editing, covariances=moments.covariances())
        taken = {s.index: s for s in generate(tiny_backbone, TEXTS, SEEDS, steps=2, layers=[LAYER], replace=edits)}
        odds = readout_at(bank, "saliency", LAYER, 1).of(taken[1].activations[LAYER])
        wanted = token_means(half_masks(), odds.shape[-2:]) > 0.5
        assert ((odds > 0) == wanted).all()
        assert odds.abs().min() > 0.99


def test_only_the_conditional_half_is_edited_unless_both_are_asked_for(tiny_backbone, bank):
    output = torch.randn(6, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    for half, kept in (("conditional", True), ("both", False)):
        editing = Editing("saliency", [LAYER], [0], method="minimum_norm", half=half)
        edit = replacements(tiny_backbone, SEEDS, half_masks(), bank, editing)[0][LAYER]
        edited = edit(output)
        assert torch.equal(edited[:3], output[:3]) is kept
        assert not torch.allclose(edited[3:], output[3:])


@pytest.mark.parametrize(("method", "half"), [("pattern", "both"), ("gradient", "conditional")])
def test_the_random_control_moves_every_token_as_far_as_the_edit_did(tiny_backbone, method, half, monkeypatch):
    """Also where earlier layers and steps have been disturbed already, by the edit or by the control."""
    layers = [LAYER, "up_blocks.3.resnets.2"]
    several = ProbeBank(dict.fromkeys(layers, 8), [0, 1], ["saliency"])
    runs: list[dict] = []

    def watched(*arguments, replace=None, **options):
        moved: dict = {}
        if replace:
            runs.append(moved)
            replace = {
                step: {layer: _logged(moved, (step, layer), edit) for layer, edit in by_layer.items()}
                for step, by_layer in replace.items()
            }
            options["replace"] = replace
        return generate(*arguments, **options)

    monkeypatch.setattr(trials, "generate", watched)
    editing = Editing("saliency", layers, [0, 1], method=method, half=half, margin=1.0, iterations=3)
    targets = Targets("translation", 5, 9)
    InterventionStudy(tiny_backbone, PROMPTS, label, several, [editing], targets, batch_size=2, sampling_steps=2).run()
    edits, controls = runs[:2], runs[2:]  # two batches each
    assert len(controls) == len(edits) == 2
    for edit, control in zip(edits, controls, strict=True):
        assert list(edit) == [(step, layer) for step in (0, 1) for layer in layers]
        for place, (changed, lengths) in edit.items():
            assert lengths.max() > 1e-3
            torch.testing.assert_close(control[place][1], lengths, rtol=1e-3, atol=1e-5)
            assert not torch.allclose(control[place][0], changed)


def _logged(moved: dict, place: tuple[int, str], edit):
    def run(output):
        edited = edit(output)
        moved[place] = edited, (edited - output).norm(dim=1)
        return edited

    return run


def test_covariances_are_those_of_all_tokens():
    values = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(0)) + 2
    moments = TokenMoments()
    for part in values.split(2):
        moments.add(7, {"layer": part})
    tokens = values.movedim(1, -1).reshape(-1, 5)
    torch.testing.assert_close(moments.covariances()["layer", 7], torch.cov(tokens.T, correction=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["saliency", "depth"])
def test_scores_do_not_depend_on_the_batch_and_start_from_the_image_as_it_is(tiny_backbone, bank, name):
    editing = Editing(name, [LAYER], [0, 1], method="gradient", iterations=2)
    editings = [replace(editing, method="minimum_norm"), editing]
    targets = Targets("translation", 5, 9, trials=2)
    one, other = (
        InterventionStudy(
            tiny_backbone,
            PROMPTS[:2],
            label,
            bank,
            editings,
            targets,
            batch_size=size,
            sampling_steps=2,
            example_count=2,
        ).run()
        for size in (2, 1)
    )
    keys = [name for name in one.scores if name != "value"]
    assert one.scores[keys].equals(other.scores[keys])
    np.testing.assert_allclose(one.scores["value"], other.scores["value"], atol=2e-2)
    unedited = select(one.scores, control="unedited")
    assert set(select(unedited, metric="pixels")["value"]) == {0.0}
    assert set(select(unedited, metric="dice_source")["value"]) == ({1.0} if name == "saliency" else set())
    assert set(one.scores["trial"]) == {0, 1}
    assert set(one.gains[["method", "control"]].itertuples(index=False, name=None)) == {
        (method, control) for method in ("minimum_norm", "gradient") for control in ("unedited", "random")
    }
    assert [list(shown.edited) for shown in one.examples] == [["minimum_norm", "gradient"]] * 2
    assert one.evaluations == 2 * 2 * (1 + 2 * 2 * 2)


def test_probes_that_are_missing_or_do_not_suit_are_refused_before_any_work(tiny_backbone, bank):
    targets = torch.zeros(3, 128, 128)
    with pytest.raises(UserError, match=r"no probes of saliency at steps \[2\]"):
        replacements(tiny_backbone, SEEDS, targets, bank, Editing("saliency", [LAYER], [2]))
    with pytest.raises(UserError, match="no probes of layer mid"):
        replacements(tiny_backbone, SEEDS, targets, bank, Editing("saliency", ["mid"], [0]))
    with pytest.raises(UserError, match="covariance"):
        replacements(tiny_backbone, SEEDS, targets, bank, Editing("saliency", [LAYER], [0]))
    mlp = ProbeBank({LAYER: 8}, [0], ["saliency"], head="mlp")
    with pytest.raises(UserError, match="linear"):
        replacements(tiny_backbone, SEEDS, targets, mlp, Editing("saliency", [LAYER], [0]))
    with pytest.raises(UserError, match="no method"):
        Editing("saliency", [LAYER], [0], method="magic")


def scores_of(*rows: tuple[str, str, int, float]) -> pd.DataFrame:
    """Dice of one method; a row is control, image, trial and value."""
    what = {"model": "m", "property": "saliency", "target": "scale", "method": "pattern", "metric": "dice"}
    return pd.DataFrame(rows, columns=["control", "image", "trial", "value"]).assign(**what)


def test_gains_are_differences_on_the_same_images_with_trials_averaged_first():
    edited = [("none", "a", 0, 0.5), ("none", "a", 1, 0.7), ("none", "b", 0, 0.9), ("none", "b", 1, np.nan)]
    unedited = [("unedited", "a", 0, 0.1), ("unedited", "b", 0, 0.2), ("unedited", "c", 0, 0.0)]
    summaries, gains = summarise_interventions(scores_of(*edited, *unedited))
    means = summaries.set_index("control")
    assert means["mean"].to_dict() == pytest.approx({"none": 0.75, "unedited": 0.1})
    assert means["n"].to_dict() == {"none": 2, "unedited": 3}
    (gain,) = gains.to_dict("records")
    assert (gain["control"], gain["n"], gain["p"]) == ("unedited", 2, 0.5)  # one flip in two
    assert gain["difference"] == pytest.approx(0.6)
    assert np.isnan([gain["low"], gain["high"]]).all()  # two images have no interval


def test_the_gain_of_several_images_has_an_interval_and_a_p_for_all_gains_of_its_metric():
    edited = [("none", str(at), 0, value) for at, value in enumerate([0.6, 0.7, 0.65, 0.8, 0.75, 0.7, 0.6, 0.72])]
    others = [(control, str(at), 0, 0.1 + 0.01 * at) for control in ("unedited", "random") for at in range(8)]
    _, gains = summarise_interventions(scores_of(*edited, *others))
    assert gains["p"].tolist() == pytest.approx([2 / 2**8] * 2, rel=2)
    assert gains["p_holm"].tolist() == pytest.approx([min(1, 2 * gains["p"][0])] * 2)
    assert gains["low"][0] > 0.4


def test_a_metric_without_any_value_has_a_summary_of_no_images_and_no_gain():
    summaries, gains = summarise_interventions(scores_of(("none", "a", 0, np.nan), ("random", "a", 0, np.nan)))
    assert summaries["n"].tolist() == [0, 0]
    assert not len(gains)
