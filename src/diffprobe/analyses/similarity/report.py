"""What is reported of similarity: the two matrices, what their intervals support, and the probes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from diffprobe.analyses.similarity.figures import shown_better, similarity_figures
from diffprobe.analyses.similarity.findings import CkaPair, cka_lines, cka_rows, closing_tables, transfer_lines
from diffprobe.analyses.similarity.transfer import Transfer, transfer_rows
from diffprobe.probes.bank import save_bank
from diffprobe.report.choices import choose, control_name, metric_name
from diffprobe.report.grid import PredictionExample, example_over_steps, prediction_grid
from diffprobe.report.report import Cell, HeatMap, Plot, Report, Table, scalars_over_steps, with_headings
from diffprobe.report.wording import interval

if TYPE_CHECKING:
    from pandas import DataFrame

    from diffprobe.analyses.similarity.cka import Similarities
    from diffprobe.analyses.similarity.transfer import TransferScores
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.study.study import ProbingResults

TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "control", "seed")
COLUMNS = {
    "other_layer": "the layer that it is compared with",
    "other_step": "the step that it is compared with, counted from 1",
    "height": "of the grid on which both were compared",
    "width": "of this grid",
    "biased": "CKA of all pairs of tokens, as if these were independent samples",
    "tested_step": "the step whose activations the probe was given, counted from 1",
    "native": "mean score of the probe that was trained at the tested step",
    "share": "the score in shares of the native one, with its 95 % interval",
    "floor": "mean score of pixel position, a map that sees no image",
    "above_floor": "mean difference to pixel position on the same images, with its 95 % interval",
}


def report(
    model: str,
    layers: Sequence[Layer],
    steps: Sequence[int],
    probing: ProbingResults,
    found: Similarities,
    transfer: Sequence[TransferScores],
    *,
    probe: str,
    captions: Sequence[str],
    seed: int = 0,
) -> Report:
    """Which layers and steps know the same.

    Args:
        layers: in the order of the conditions of `found`; steps: the same, from 0.
        probing: the probes, with their scores at their own steps.
        captions: of all images.
        seed: of the paired comparisons.
    """
    pairs = cka_rows(model, layers, steps, found)
    rows = transfer_rows(model, probe, transfer)
    choices = choose(probing.summaries, probing.scores)
    findings = {"layers and steps": cka_lines(layers, steps, found)}
    for choice in choices:
        (own,) = (one for one in transfer if (one.property, one.layer) == (choice.property, choice.best))
        there = [row for row in rows if (row.property, row.layer) == (choice.property, choice.best)]
        findings[choice.property] = transfer_lines(own, there, seed=seed)
    best = {choice.property: choice.best for choice in choices}
    examples = [
        PredictionExample.of_image(each, captions[each.row], steps, best, probing.bank.properties)
        for each in probing.examples
    ]
    return Report(
        title=f"Which layers and steps of {model} know the same",
        findings=with_headings(findings, probing.warnings),
        topics=TOPICS,
        tables={
            **closing_tables(layers, steps, found, rows, choices),
            "cka": Table.of(CkaPair, pairs, title="CKA of every two layers and steps", columns=COLUMNS),
            "transfer": Table.of(Transfer, rows, title="Probes at every step of their layer", columns=COLUMNS),
            "summary": Table(probing.summaries, title="Scores of every probe at its own step"),
            "scores": Table(probing.scores, show=["parquet"]),
        },
        figures=similarity_figures(layers, steps, found, rows) | _example_figures(examples),
        heatmaps=_heat_maps(pairs, rows, steps),
        examples=[example_over_steps(each) for each in examples],
        scalars=_scalars(pairs, rows, steps),
        artifacts={"probes": partial(save_bank, probing.bank)},
    )


def _example_figures(examples: Sequence[PredictionExample]) -> dict[str, Plot]:
    caption = "One test image as it is denoised, and what the best layer's probes see of it, each at its own step."
    return {
        f"example_{number}": Plot(partial(prediction_grid, each), caption) for number, each in enumerate(examples, 1)
    }


def _with_last(pairs: Sequence[CkaPair], last: int) -> list[CkaPair]:
    """Each step of a layer with its last one."""
    return [pair for pair in pairs if pair.layer == pair.other_layer and pair.other_step == last]


def _heat_maps(pairs: Sequence[CkaPair], rows: Sequence[Transfer], steps: Sequence[int]) -> list[HeatMap]:
    """Of every layer and step what it has in common with the last step: CKA, and the share that its probes keep."""
    last = steps[-1]
    if len(steps) == 1:
        return []
    cells = {(pair.layer, pair.step): Cell(pair.value, pair.low, pair.high, pair.n) for pair in _with_last(pairs, last)}
    maps = [HeatMap(f"CKA with step {last + 1} of the layer", "debiased CKA", cells)]
    for name in dict.fromkeys(row.property for row in rows):
        own = [row for row in rows if row.property == name and row.tested_step == last]
        cells = {
            (row.layer, row.step): Cell(row.share, row.share_low, row.share_high, row.n, [_beside_floor(row)])
            for row in own
        }
        maps.append(HeatMap(f"{name}: each step's probe at step {last + 1}", "share of the native score", cells))
    return maps


def _beside_floor(row: Transfer) -> str:
    score, floor = interval(row.mean, row.low, row.high) or "no score", interval(row.floor, None, None)
    position = f"{control_name('position')} has {floor}"
    better = "" if shown_better(row) else ", than which it is not shown to be better"
    return f"{metric_name(row.metric)} {score}; {position}{better}."


def _scalars(pairs: Sequence[CkaPair], rows: Sequence[Transfer], steps: Sequence[int]) -> DataFrame:
    """'cka/<layer>' and 'transfer/<property>/<layer>' over steps: with the last step, and at the last step."""
    points = [
        (pair.step, f"cka/{pair.layer}", pair.value, pair.low, pair.high) for pair in _with_last(pairs, steps[-1])
    ]
    points += [
        (row.step, f"transfer/{row.property}/{row.layer}", row.share, row.share_low, row.share_high)
        for row in rows
        if row.tested_step == steps[-1]
    ]
    return scalars_over_steps(points)
