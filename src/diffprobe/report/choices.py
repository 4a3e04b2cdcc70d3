"""What a report speaks of: per property one metric, the best layer, the papers' layer, and when it emerged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from diffprobe.files import NO_STEP
from diffprobe.probes.comparisons import ScoreDifference
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import EmergenceStep, Summary, best_layer, emergence_step, headline_metric, summary_rows
from diffprobe.properties.metrics import metric_named
from diffprobe.report.report import scalars_over_steps

HEADLINE_LAYER = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"
# In the order of sentences and legends.
CONTROL_NAMES = {
    "permuted": "permuted network",
    "fresh": "untrained network",
    "latent": "VAE latent",
    "decoder": "VAE decoder attention",
    "pixels": "raw pixels",
    "labels": "shuffled labels",
    "position": "pixel position",
    "image_model": "image model on the decoded image",
}


@dataclass(frozen=True)
class LayerChoice:
    """One property's part of the report, of one model and one kind of probe.

    Attributes:
        model, probe, property, metric: what was probed how, and the headline metric.
        best: layer with the best validation score at the last step.
        emergence: step by which the best layer's score reaches `fraction` of its last one, see `emergence_step`; None
            where the noise does not fall from step to step, as of real images with more and more noise.
        comparisons: of the best layer at the last step with controls, layers and earlier steps.
        headline: the layer the papers show; it need not be among the probed ones.
    """

    model: str
    probe: str
    property: str
    metric: str
    best: str
    emergence: EmergenceStep | None
    comparisons: tuple[ScoreDifference, ...] = ()
    fraction: float = 0.95
    headline: str = HEADLINE_LAYER

    def against(self, family: str, **other: str) -> ScoreDifference | None:
        """The comparison of this family with what has these fields, such as other_control='permuted'."""
        wanted = {"family": family, **other}
        rows = (row for row in self.comparisons if all(getattr(row, key) == value for key, value in wanted.items()))
        return next(rows, None)


def choose(
    summaries: pd.DataFrame,
    scores: pd.DataFrame,
    comparisons: Sequence[ScoreDifference] = (),
    fraction: float = 0.95,
) -> list[LayerChoice]:
    """One choice for each model, probe and property among the summaries, in their order.

    comparisons: of `compare_run`; each choice keeps its own.

    Raises:
        UserError: a property has no validation rows to choose its layer by, or no test scores there.
    """
    choices = []
    kinds = summaries[["model", "probe", "property"]].drop_duplicates()
    for model, probe, name in kinds.itertuples(index=False):
        best = best_layer(summaries, name, model=model, probe=probe)
        emergence = None
        if noise_falls(select(summaries, model=model, probe=probe, property=name, control="none")):
            emergence = emergence_step(scores, best, name, model=model, probe=probe, fraction=fraction)
        key = (model, probe, name, best)
        own = tuple(row for row in comparisons if (row.model, row.probe, row.property, row.layer) == key)
        metric = headline_metric(summaries, name).name
        choices.append(LayerChoice(model, probe, name, metric, best, emergence, own, fraction))
    return choices


def noise_falls(rows: pd.DataFrame) -> bool:
    """Whether no step of rows with `step` and `timestep` has more noise than the one before, as in denoising.

    Samplers that round their timesteps may have one twice.
    """
    steps = rows[["step", "timestep"]].dropna().drop_duplicates().sort_values("step")
    return bool((steps["timestep"].diff().iloc[1:] <= 0).all())


def grouped(choices: Sequence[LayerChoice]) -> dict[str, list[LayerChoice]]:
    """The choices of each model and probe, by what tells these apart: '' if there is one alone, 'pocket, ridge'."""
    models, probes = {choice.model for choice in choices}, {choice.probe for choice in choices}
    groups: dict[str, list[LayerChoice]] = {}
    for choice in choices:
        names = [choice.model] * (len(models) > 1) + [choice.probe] * (len(probes) > 1)
        groups.setdefault(", ".join(names), []).append(choice)
    return groups


CurvesByLayer = dict[tuple[str, str], list[Summary]]
"""Scores over the steps, in step order, by (layer, control)."""


def curves(summaries: pd.DataFrame, choice: LayerChoice) -> CurvesByLayer:
    """Test scores of every layer and control; rows without a score are kept."""
    found: CurvesByLayer = {}
    for row in summary_rows(select(_of(summaries, choice), metric=choice.metric, split="test")):
        found.setdefault((row.layer, row.control), []).append(row)
    return {key: sorted(rows, key=lambda row: row.step) for key, rows in found.items()}


def curve(summaries: pd.DataFrame, choice: LayerChoice, layer: str, control: str = "none") -> list[Summary]:
    """Test scores of one layer (or control) over the steps, in step order; rows without a score are kept."""
    return curves(select(summaries, layer=layer, control=control), choice).get((layer, control), [])


def _of(summaries: pd.DataFrame, choice: LayerChoice) -> pd.DataFrame:
    return select(summaries, model=choice.model, probe=choice.probe, property=choice.property)


def controls(summaries: pd.DataFrame, choice: LayerChoice) -> list[str]:
    """The controls that were run for this choice, in the order of `CONTROL_NAMES`, others after them."""
    present = [name for name in _of(summaries, choice)["control"].unique() if name != "none"]
    known = [name for name in CONTROL_NAMES if name in present]
    return known + [name for name in present if name not in CONTROL_NAMES]


def control_curve(summaries: pd.DataFrame, choice: LayerChoice, control: str) -> list[Summary]:
    """As `curve_beside`, at the best layer."""
    return curve_beside(curves(select(summaries, control=control), choice), choice.best, control)


def curve_beside(found: CurvesByLayer, layer: str, control: str) -> list[Summary]:
    """A control's rows over the steps: at a layer, or at the only layer it has, such as 'pixels'.

    A control without steps has one row, with step `NO_STEP`.
    """
    own = [rows for (_, name), rows in found.items() if name == control]
    return found.get((layer, control)) or (own[0] if len(own) == 1 else [])


def metric_name(metric: str) -> str:
    """What a metric is called in sentences and figures."""
    return metric_named(metric).label


def sign_of(metric: str) -> int:
    """1 where higher scores are better, -1 of an error."""
    return metric_named(metric).sign


def control_name(control: str) -> str:
    """What a control is called in sentences and legends."""
    return CONTROL_NAMES.get(control, control)


def or_nan(value: float | None) -> float:
    """A missing value as NaN, so that plots and comparisons can take it."""
    return math.nan if value is None else float(value)


def curve_scalars(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> pd.DataFrame:
    """'<property>/<metric>/<curve>' of test images, as of `scalars_over_steps`.

    The curves are best, headline and every control by its name (one without steps is the same at every step). The
    choices are of one model and probe.
    """
    points = []
    for choice in choices:
        best = curve(summaries, choice, choice.best)
        curves = {"best": best, "headline": curve(summaries, choice, choice.headline)}
        curves |= {name: control_curve(summaries, choice, name) for name in controls(summaries, choice)}
        for name, line in curves.items():
            key = f"{choice.property}/{choice.metric}/{name}"
            for row in line:
                steps = [at.step for at in best] if row.step == NO_STEP else [row.step]
                points += [(step, key, row.mean, row.low, row.high) for step in steps]
    return scalars_over_steps(points)
