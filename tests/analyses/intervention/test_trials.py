"""Interventions on a tiny pipeline: probes report what they are told to, and scores are held against controls."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffprobe.analyses.intervention import edits as intervening
from diffprobe.analyses.intervention.edits import Editing, TokenMoments, intervene, replacements
from diffprobe.analyses.intervention.tables import InterventionScore, summarise_interventions
from diffprobe.analyses.intervention.trials import InterventionExecution, Targets, study_intervention
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.editing import readout_at
from diffprobe.probes.scoring import token_means

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

    monkeypatch.setattr(intervening, "generate", watched)
    editing = Editing("saliency", layers, [0, 1], method=method, half=half, margin=1.0, iterations=3)
    running = InterventionExecution(batch_size=2, sampling_steps=2)
    study_intervention(tiny_backbone, PROMPTS, label, several, [editing], Targets("translation", 5, 9), running)
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
    editing = Editing(name, [LAYER], [0, 1], method="gradient", iterations=3)
    editings = [replace(editing, method="minimum_norm"), editing]
    targets = Targets("translation", 5, 9, trials=2)
    found = [
        study_intervention(
            tiny_backbone,
            PROMPTS,
            label,
            bank,
            editings,
            targets,
            InterventionExecution(batch_size=size, sampling_steps=2, example_count=2),
        )
        for size in (3, 1)
    ]
    for one, other in zip(found[0].scores, found[1].scores, strict=True):
        assert replace(one, value=None) == replace(other, value=None)
        assert one.value == pytest.approx(other.value, abs=2e-2)
    unedited = [row for row in found[0].scores if row.control == "unedited"]
    assert {row.value for row in unedited if row.metric == "pixels"} == {0.0}
    assert {row.value for row in unedited if row.metric == "dice_source"} == ({1.0} if name == "saliency" else set())
    assert {row.trial for row in found[0].scores} == {0, 1}
    assert {(row.method, row.control) for row in found[0].gains} == {
        (method, control) for method in ("minimum_norm", "gradient") for control in ("unedited", "random")
    }
    assert [list(shown.edited) for shown in found[0].examples] == [["minimum_norm", "gradient"]] * 2
    assert found[0].evaluations == 3 * 2 * (1 + 2 * 2 * 2)


def test_probes_that_are_missing_or_do_not_suit_are_refused_before_any_work(tiny_backbone, bank):
    targets = torch.zeros(3, 128, 128)
    with pytest.raises(UserError, match=r"no probes of saliency at steps \[2\]"):
        intervene(tiny_backbone, TEXTS, SEEDS, targets, bank, Editing("saliency", [LAYER], [2]))
    with pytest.raises(UserError, match="no probes of layer mid"):
        intervene(tiny_backbone, TEXTS, SEEDS, targets, bank, Editing("saliency", ["mid"], [0]))
    with pytest.raises(UserError, match="covariance"):
        intervene(tiny_backbone, TEXTS, SEEDS, targets, bank, Editing("saliency", [LAYER], [0]))
    mlp = ProbeBank({LAYER: 8}, [0], ["saliency"], head="mlp")
    with pytest.raises(UserError, match="linear"):
        intervene(tiny_backbone, TEXTS, SEEDS, targets, mlp, Editing("saliency", [LAYER], [0]))
    with pytest.raises(UserError, match="no method"):
        Editing("saliency", [LAYER], [0], method="magic")


def test_gains_are_differences_on_the_same_images_with_trials_averaged_first():
    def row(control: str, image: str, trial: int, value: float | None) -> InterventionScore:
        return InterventionScore("m", "saliency", "scale", "pattern", control, image, trial, "dice", value)

    scores = [row("none", "a", 0, 0.5), row("none", "a", 1, 0.7), row("none", "b", 0, 0.9), row("none", "b", 1, None)]
    scores += [row("unedited", "a", 0, 0.1), row("unedited", "b", 0, 0.2), row("unedited", "c", 0, 0.0)]
    summaries, (gain,) = summarise_interventions(scores)
    means = {summary.control: (summary.mean, summary.n) for summary in summaries}
    assert means["none"] == (pytest.approx(0.75), 2)
    assert means["unedited"] == (pytest.approx(0.1), 3)
    assert (gain.control, gain.n) == ("unedited", 2)
    assert gain.difference == pytest.approx(0.6)
    assert (gain.low, gain.high, gain.p) == (None, None, 0.5)  # of two images no interval, and one flip in two


def test_the_gain_of_several_images_has_an_interval_and_a_p_for_all_gains_of_its_metric():
    def row(control: str, at: int, value: float) -> InterventionScore:
        return InterventionScore("m", "saliency", "scale", "pattern", control, f"image {at}", 0, "dice", value)

    edited = [0.6, 0.7, 0.65, 0.8, 0.75, 0.7, 0.6, 0.72]
    scores = [row("none", at, value) for at, value in enumerate(edited)]
    scores += [row(control, at, 0.1 + 0.01 * at) for control in ("unedited", "random") for at in range(8)]
    _, gains = summarise_interventions(scores)
    assert [gain.p for gain in gains] == pytest.approx([2 / 2**8] * 2, rel=2)
    assert [gain.p_holm for gain in gains] == pytest.approx([min(1, 2 * gains[0].p)] * 2)
    assert gains[0].low > 0.4
