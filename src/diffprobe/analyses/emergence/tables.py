"""By how many steps probes are ahead of image models, as rows, sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from diffprobe.analyses.emergence.image_models import IMAGE_MODEL
from diffprobe.backbone.layers import short_names
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP, Step
from diffprobe.probes.score_table import over_steps, select
from diffprobe.probes.summaries import headline_metric
from diffprobe.properties.metrics import Metric, metric_named
from diffprobe.report.choices import LayerChoice, control_curve, curve, metric_name
from diffprobe.report.report import PaperCell, Table
from diffprobe.report.wording import direction, images_text, interval_text, rounded, significant, steps_text, too_few
from diffprobe.statistics.differences import StepInterval, steps_reaching
from diffprobe.statistics.intervals import LEVEL, MINIMUM_IMAGES, mean_intervals

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import ScoreDifference
    from diffprobe.probes.summaries import Summary


OWN, COMMON = "own", "common"
DEFINITIONS = (OWN, COMMON)


@dataclass(frozen=True, slots=True)
class Lead:
    """When the probes of one layer and the image model reach a level of the mean score over the test images.

    `definition` says which level. 'own': `fraction` of what each reaches itself at the last step. 'common': for both,
    `fraction` of what the probe reaches at the last step. `probe_level` and `image_model_level` are these levels, in
    the units of the metric. Steps count from 0, each with its interval over images; empty where the level is not
    reached within the steps, and both ends where there are too few images. `lead` is the image model's step less the
    probe's; its interval goes from the earliest step that the one may have less the latest that the other may have,
    and the other way round, each at the level at which two values differ when their intervals part. Empty where the
    image model does not get there: an empty `lead_high` beside a `lead_low` means at least that. `n` counts images.
    """

    model: str
    layer: str
    property: str
    probe: str
    metric: str
    definition: str
    fraction: float
    probe_level: float | None
    image_model_level: float | None
    probe_step: Step
    probe_low: Step
    probe_high: Step
    image_model_step: Step
    image_model_low: Step
    image_model_high: Step
    lead: float | None
    lead_low: float | None
    lead_high: float | None
    n: int

    def probe_steps(self) -> tuple[int, int, int]:
        """The probe's step with its interval."""
        return self.probe_step, self.probe_low, self.probe_high

    def image_model_steps(self) -> tuple[int, int, int]:
        return self.image_model_step, self.image_model_low, self.image_model_high


def find_leads(scores: pd.DataFrame, fractions: Sequence[float] = (0.95,)) -> list[Lead]:
    """One lead for every layer's probes, property, definition and fraction, by the headline metric on test images.

    With definition 'own' the probe's step and interval are those of `summaries.emergence_step`: each image is compared
    with its own level (`statistics.steps_reaching`). Without a last mean above zero there is no level, and without one
    that is shown to be above zero no interval.

    Raises:
        UserError: there are no scores of image models to compare with, or of other images or steps.
    """
    leads = []
    test = select(scores, split="test")
    real = select(test, control="none")[["model", "layer", "property", "probe"]].drop_duplicates()
    for model, layer, name, probe in real.itertuples(index=False):
        metric = headline_metric(test, name)
        own = select(test, model=model, property=name, probe=probe, metric=metric.name)
        image_model = select(own, layer=IMAGE_MODEL, control=IMAGE_MODEL)
        if not len(image_model):
            raise UserError(f"there are no scores of image models for {name}, so there is nothing to be ahead of.")
        steps, images, values = over_steps(select(own, layer=layer, control="none"))
        other_steps, other_images, others = over_steps(image_model)
        if other_steps != steps or set(other_images) != set(images):
            raise UserError(f"the scores of probes and image models for {name} are of different images or steps.")
        others = others[:, [other_images.index(image) for image in images]]
        for definition, fraction in product(DEFINITIONS, fractions):
            cells = _lead(np.array(steps, float), values, others, definition, fraction, metric)
            row: tuple = (model, layer, name, probe, metric.name, definition, fraction, *cells, len(images))
            leads.append(Lead(*row))
    return leads


def _lead(
    steps: np.ndarray, probe: np.ndarray, image: np.ndarray, definition: str, fraction: float, metric: Metric
) -> tuple:
    """The cells of `Lead` from its levels to its lead, of scores [steps, images]; errors reach a level from above."""
    share = fraction if metric.higher_is_better else 1 / fraction
    image_levels = share * (probe[-1] if definition == COMMON else image[-1])
    last = mean_intervals(np.stack([share * probe[-1], image_levels]))
    if not (last.mean > 0).all():
        return (None, None, *[NO_STEP] * 6, None, None, None)
    above = metric.sign * (probe - share * probe[-1]), metric.sign * (image - image_levels)
    # Two values have intervals that just touch at this level where their difference has one of `LEVEL` that starts at
    # 0: 83 % for 95 % (Goldstein and Healy 1995, JRSS A 158:175). Values of the same images are nearer than that.
    of_each = float(2 * stats.norm.cdf(stats.norm.ppf((1 + LEVEL) / 2) / 2**0.5) - 1)
    by_level = [[steps_reaching(values, at) for values in above] for at in (LEVEL, of_each)]
    if not (last.low > 0).all():
        by_level = [[StepInterval(each.first, None, None) for each in both] for both in by_level]
    places = [place for each in by_level[0] for place in (each.first, each.low, each.high)]
    as_steps = [NO_STEP if place is None or place == len(steps) else int(steps[place]) for place in places]
    return (*last.mean.tolist(), *as_steps, *_between(steps, *by_level[1]))


def _between(
    steps: np.ndarray, probe: StepInterval, image: StepInterval
) -> tuple[float | None, float | None, float | None]:
    """The lead and its interval; what is reached beyond the last step is reached one step after it at the earliest."""
    at = [*steps.tolist(), float(steps[-1]) + 1]
    beyond = len(steps)
    lead = None if image.first == beyond else at[image.first] - at[probe.first]
    if probe.low is None or probe.high is None or image.low is None or image.high is None:
        return lead, None, None
    high = None if image.high == beyond else at[image.high] - at[probe.low]
    return lead, at[image.low] - at[probe.high], high


@dataclass(frozen=True)
class PropertySummary:
    """One property's part of the report: its choice of layer, that layer's leads, and at every step how far its probe
    is above the image model on the same images."""

    choice: LayerChoice
    leads: Sequence[Lead]
    differences: Sequence[ScoreDifference]

    def lead(self, definition: str) -> Lead:
        """The lead by this definition, at the first fraction."""
        return next(lead for lead in self.leads if lead.definition == definition)


def emergence_lines(summaries: pd.DataFrame, property_summaries: Sequence[PropertySummary]) -> dict[str, list[str]]:
    """Three sentences a property, by its name: the lead with each at its own level, with both at one, and who is ahead
    when."""
    return {
        one.choice.property: _lines(curve(summaries, one.choice, one.choice.best), one) for one in property_summaries
    }


def _lines(rows: Sequence[Summary], one: PropertySummary) -> list[str]:
    name, own, common = one.choice.property, one.lead(OWN), one.lead(COMMON)
    if len(rows) < 2:
        return [f"Only one step was probed for {name}, so nothing is said of when it emerges."]
    is_score = metric_named(own.metric).higher_is_better
    share, what = _share(own), "score" if is_score else "error"
    probe, score = f"the probe on {one.choice.best}", f"{metric_name(own.metric)} {interval_text(rows[-1])}"
    if own.probe_level is None:
        lines = [f"{name}: no step is told, since {probe} or the image model has no final {what} above 0 ({score})."]
    else:
        lines = [
            f"{name}: {probe} {'reaches' if is_score else 'comes down to'} {share} of its final {what} ({score}) by "
            f"step {steps_text(*own.probe_steps())} of {rows[-1].step + 1}, the image model {share} of its own by step "
            f"{steps_text(*own.image_model_steps())}: {_verdict(own)}."
        ]
    if common.probe_level is not None:
        lines.append(
            f"{name}: at one level for both, {rounded(common.probe_level)} ({share} of the probe's final {what}), it "
            f"is step {steps_text(*common.probe_steps())} and step {steps_text(*common.image_model_steps())}: "
            f"{_verdict(common)}."
        )
    return [*lines, f"{name}: on the same images{direction(own.metric)} {_ahead(one.differences)}."]


def _share(lead: Lead) -> str:
    """'95 %' of a final score, of a final error '105 %'."""
    error = not metric_named(lead.metric).higher_is_better
    return f"{100 / lead.fraction:.0f} %" if error else f"{100 * lead.fraction:g} %"


def lead_text(lead: Lead) -> str:
    """'6 [5, 8]' steps; 'more' for what is beyond the steps there are, 'not determined' without any."""
    if lead.lead_low is None:
        return "not determined" if lead.lead is None else f"{lead.lead:g}"
    point, *ends = ("more" if value is None else f"{value:g}" for value in (lead.lead, lead.lead_low, lead.lead_high))
    return f"{point} [{', '.join(ends)}]"


def _verdict(lead: Lead) -> str:
    """Who leads and by how much; nobody where the interval holds 0."""
    if lead.n < MINIMUM_IMAGES:
        return f"{images_text(lead.n)} are too few to show a lead, it takes {MINIMUM_IMAGES}"
    if lead.lead_low is None:
        return "no lead was determined"
    if lead.lead_low > 0:
        return f"the probe leads by {lead_text(lead)} steps"
    if lead.lead is not None and lead.lead_high is not None and lead.lead_high < 0:
        return f"the image model leads by {-lead.lead:g} [{-lead.lead_high:g}, {-lead.lead_low:g}] steps"
    return f"no lead is shown ({lead_text(lead)} steps)"


def _ahead(differences: Sequence[ScoreDifference]) -> str:
    """The steps at which one is shown to be above the other, paired, adjusted for the number of steps."""
    parts = []
    for sign, who in ((1, "the probe is above the image model"), (-1, "the image model is above the probe")):
        steps = [row.step for row in differences if significant(row) == sign]
        parts += [f"{who} at step{'s' * (len(steps) > 1)} {_ranges(steps)}"] if steps else []
    needed = [too_few(row, len(differences)) for row in differences]
    if needed and all(needed):
        return f"no step has a verdict: it takes {needed[0]} images to show one of {len(needed)} differences"
    return ", ".join(parts) if parts else "neither is shown to be above the other at any step"


def _ranges(steps: Sequence[int]) -> str:
    """'1 to 7, 9', from 1."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(f"{run[0] + 1} to {run[-1] + 1}" if len(run) > 1 else str(run[0] + 1) for run in runs)


def emergence_tables(summaries: pd.DataFrame, property_summaries: Sequence[PropertySummary]) -> dict[str, Table]:
    """The closing table, of the first fraction; tables/emergence, of all; tables/scores_by_step."""
    first = [one.lead(definition) for one in property_summaries for definition in DEFINITIONS]
    every = [lead for one in property_summaries for lead in one.leads]
    names = short_names(one.choice.best for one in property_summaries)
    layers = f"Probes on {next(iter(names.values()))}"
    if len(names) > 1:
        each = (f"{names[one.choice.best]} ({one.choice.property})" for one in property_summaries)
        layers = f"Probes on {', '.join(each)}"
    caption = (
        "First step whose mean score reaches the level, and the lead of the probe, with 95 % intervals over test "
        "images. Steps count from 1"
    )
    return {
        "closing": _leads_table(first, title=caption, notes=[f"{layers}."], show=["console"]),
        "tables/emergence": _leads_table(every, title=f"{caption}. {layers}", show=["csv", "markup"]),
        "tables/scores_by_step": _scores_table(summaries, [one.choice for one in property_summaries]),
    }


def _leads_table(leads: Sequence[Lead], **options: Any) -> Table:
    rows = []
    for lead in leads:
        whose, level = "of the probe's", rounded(lead.probe_level)
        if lead.definition == OWN:
            what = "score" if metric_named(lead.metric).higher_is_better else "error"
            whose, level = f"of its own final {what}", f"{level}, {rounded(lead.image_model_level)}"
        if lead.probe_level is None:
            level = "none"
        keys = {
            "property": f"{lead.property}, {metric_name(lead.metric)}",
            "level": f"{_share(lead)} {whose}: {level}",
        }
        cells = {
            "probe": _steps_cell(lead.probe_steps()),
            "image model": _steps_cell(lead.image_model_steps()),
            "lead in steps": (lead_text(lead), {"": lead.lead, "low": lead.lead_low, "high": lead.lead_high}),
        }
        rows.append((keys, cells))
    return Table.of_cells(rows, **options)


def _steps_cell(steps: tuple[int, int, int]) -> PaperCell:
    """Steps from 1, as the text has them."""
    numbers = [None if step == NO_STEP else float(step + 1) for step in steps]
    return steps_text(*steps), dict(zip(("", "low", "high"), numbers, strict=True))


def _scores_table(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> Table:
    columns = {}
    for choice in choices:
        columns[f"{choice.property}, probe"] = curve(summaries, choice, choice.best)
        columns[f"{choice.property}, image model"] = control_curve(summaries, choice, IMAGE_MODEL)
    lines = []
    for step in sorted({row.step for rows in columns.values() for row in rows}):
        cells: dict[str, PaperCell] = {}
        for heading, rows in columns.items():
            row = next((row for row in rows if row.step == step), None)
            numbers = {} if row is None else {"": row.mean, "low": row.low, "high": row.high, "n": float(row.n)}
            cells[heading] = interval_text(row), numbers
        lines.append(({"step": str(step + 1)}, cells))
    metrics = ", ".join(f"{choice.property} {metric_name(choice.metric)}" for choice in choices)
    title = f"Mean score on test images after each step, with 95 % intervals over images: {metrics}"
    return Table.of_cells(lines, title=title, show=["csv", "markup"])
