"""By how many steps probes are ahead of image models, with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from diffprobe.analyses.emergence.image_models import IMAGE_MODEL
from diffprobe.errors import UserError
from diffprobe.probes.properties import property_named
from diffprobe.probes.score_table import over_steps, select
from diffprobe.statistics import StepInterval, mean_intervals, steps_reaching
from diffprobe.tables import NO_STEP, Step

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


def find_leads(
    scores: pd.DataFrame,
    fractions: Sequence[float] = (0.95,),
    *,
    level: float = 0.95,
) -> list[Lead]:
    """One lead for every layer's probes, property, definition and fraction, by the headline metric on test images.

    With definition 'own' the probe's step and interval are those of `summaries.emergence_step`: each image is compared
    with its own level (`statistics.steps_reaching`). Without a last mean above zero there is no level, and without one
    that is shown to be above zero no interval.

    Raises:
        UserError: there are no scores of image models to compare with, or of other images or steps.
    """
    found = []
    test = select(scores, split="test")
    real = select(test, control="none")[["model", "layer", "property", "probe"]].drop_duplicates()
    for model, layer, name, probe in real.itertuples(index=False):
        own = select(test, model=model, property=name, probe=probe, metric=property_named(name).headline)
        other = select(own, layer=IMAGE_MODEL, control=IMAGE_MODEL)
        steps, probe_values, image_values = _aligned(select(own, layer=layer, control="none"), other, name)
        what = (model, layer, name, probe, property_named(name).headline)
        for definition, fraction in product(DEFINITIONS, fractions):
            found_cells = _lead(steps, probe_values, image_values, definition, fraction, level)
            cells: tuple = (*what, definition, fraction, *found_cells, probe_values.shape[1])
            found.append(Lead(*cells))
    return found


def _aligned(probe: pd.DataFrame, image: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and the scores of both [steps, images] in the same order."""
    if not len(image):
        raise UserError(f"there are no scores of image models for {name}, so there is nothing to be ahead of.")
    (steps, images, values), (other_steps, other_images, others) = over_steps(probe), over_steps(image)
    if other_steps != steps or set(other_images) != set(images):
        raise UserError(f"the scores of probes and image models for {name} are of different images or steps.")
    return np.array(steps, float), values, others[:, [other_images.index(image) for image in images]]


def _lead(
    steps: np.ndarray, probe: np.ndarray, image: np.ndarray, definition: str, fraction: float, level: float
) -> tuple:
    """The cells of `Lead` from its levels to its lead, of scores [steps, images]."""
    image_levels = fraction * (probe[-1] if definition == COMMON else image[-1])
    last = mean_intervals(np.stack([fraction * probe[-1], image_levels]), level)
    if not (last.mean > 0).all():
        return (None, None, *[NO_STEP] * 6, None, None, None)
    above = probe - fraction * probe[-1], image - image_levels
    found, compared = ([steps_reaching(values, at) for values in above] for at in (level, _of_each(level)))
    if not (last.low > 0).all():
        found, compared = ([StepInterval(each.first, None, None) for each in several] for several in (found, compared))
    places = [place for each in found for place in (each.first, each.low, each.high)]
    as_steps = [NO_STEP if place is None or place == len(steps) else int(steps[place]) for place in places]
    return (*last.mean.tolist(), *as_steps, *_between(steps, *compared))


def _of_each(level: float) -> float:
    """At which level two values have intervals that just touch where their difference has one of `level` that starts
    at 0: 83 % for 95 % (Goldstein and Healy 1995, JRSS A 158:175). Values of the same images are nearer than that."""
    return float(2 * stats.norm.cdf(stats.norm.ppf((1 + level) / 2) / 2**0.5) - 1)


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
