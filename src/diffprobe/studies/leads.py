"""By how many steps probes are ahead of image models, with intervals over images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from diffprobe.errors import UserError
from diffprobe.probes.properties import property_named
from diffprobe.probes.summaries import resampled_means
from diffprobe.probes.tables import Score
from diffprobe.statistics import resampling_counts
from diffprobe.studies.image_models import IMAGE_MODEL
from diffprobe.tables import NO_STEP, Step

OWN, COMMON = "own", "common"
DEFINITIONS = (OWN, COMMON)
_NEVER = 1e9  # the step of what is not reached; a finite number, since quantiles of infinities are not numbers


@dataclass(frozen=True, slots=True)
class Lead:
    """When the probes of one layer and the image model reach a level of the mean score over the test images.

    `definition` says which level. 'own': `fraction` of what each reaches itself at the last step. 'common': for both,
    `fraction` of what the probe reaches at the last step. `probe_level` and `image_model_level` are these levels, in
    the units of the metric. Steps count from 0, each with its interval over resamples of images; empty where the level
    is not reached within the steps. `lead` is the image model's step less the probe's, and its interval is of the
    difference in each resample, so both are judged by the same images. Empty where the image model does not get there:
    an empty `lead_high` beside a `lead_low` means at least that. `n` counts images.
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


Curve = dict[int, dict[str, float]]  # step -> image -> score, NaN where undefined


def find_leads(
    scores: Iterable[Score],
    fractions: Sequence[float] = (0.95,),
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Lead]:
    """One lead for every layer's probes, property, definition and fraction, by the headline metric on test images.

    With definition 'own' the probe's step and interval are those of `summaries.emergence_step`. Resamples whose last
    mean is not above zero have no level and are left out. Percentile bootstrap over images (Efron and Tibshirani 1993,
    chapter 13).

    Raises:
        UserError: there are no scores of image models to compare with, or of other images or steps.
    """
    curves = _curves(scores)
    found = []
    for key, curve in curves.items():
        model, layer, name, probe, control = key
        if control != "none":
            continue
        other = curves.get((model, IMAGE_MODEL, name, probe, IMAGE_MODEL))
        steps, probe_values, image_values = _aligned(curve, other, name)
        images = probe_values.shape[1]
        # The first row is the sample itself, so that it is treated as its resamples are.
        counts = np.concatenate([np.ones((1, images)), resampling_counts(images, resamples, seed)])
        means = resampled_means(probe_values, counts), resampled_means(image_values, counts)
        what = (model, layer, name, probe, property_named(name).headline)
        for definition, fraction in product(DEFINITIONS, fractions):
            cells: tuple = (*what, definition, fraction, *_lead(steps, *means, definition, fraction, level), images)
            found.append(Lead(*cells))
    return found


def _curves(scores: Iterable[Score]) -> dict[tuple[str, str, str, str, str], Curve]:
    """Headline scores on test images by (model, layer, property, probe, control)."""
    curves: dict[tuple[str, str, str, str, str], Curve] = {}
    for row in scores:
        if row.split == "test" and row.metric == property_named(row.property).headline:
            curve = curves.setdefault((row.model, row.layer, row.property, row.probe, row.control), {})
            curve.setdefault(row.step, {})[row.image] = np.nan if row.value is None else row.value
    return curves


def _aligned(curve: Curve, other: Curve | None, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and the scores of both [steps, images] in the same order."""
    if other is None:
        raise UserError(f"there are no scores of image models for {name}, so there is nothing to be ahead of.")
    steps = sorted(curve)
    images = list(curve[steps[0]])
    if sorted(other) != steps or set(other[steps[0]]) != set(images):
        raise UserError(f"the scores of probes and image models for {name} are of different images or steps.")
    both = [np.array([[values[step][image] for image in images] for step in steps]) for values in (curve, other)]
    return np.array(steps, float), both[0], both[1]


def _lead(
    steps: np.ndarray, probe: np.ndarray, image: np.ndarray, definition: str, fraction: float, level: float
) -> tuple:
    """The cells of `Lead` from its levels to its lead, of means [1 + resamples, steps]."""
    probe_levels = fraction * probe[:, -1]
    image_levels = probe_levels if definition == COMMON else fraction * image[:, -1]
    usable = (probe_levels > 0) & (image_levels > 0)
    probe_steps = _first_reaching(probe, probe_levels, steps)
    image_steps = _first_reaching(image, image_levels, steps)
    columns = probe_steps, image_steps, image_steps - probe_steps
    cells = [_with_interval(column, usable, level) for column in columns]
    as_steps = [NO_STEP if cell is None else int(cell) for column in cells[:2] for cell in column]
    levels = [float(values[0]) if usable[0] else None for values in (probe_levels, image_levels)]
    return (*levels, *as_steps, *cells[2])


def _first_reaching(means: np.ndarray, levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The first step at which means [resamples, steps] reach their level [resamples]; _NEVER where they do not."""
    reached = means >= levels[:, None]
    return np.where(reached.any(1), steps[reached.argmax(1)], _NEVER)


def _with_interval(values: np.ndarray, usable: np.ndarray, level: float) -> list[float | None]:
    """The first of the values and the interval of the others, of those that are usable; None for what never is."""
    drawn = values[1:][usable[1:]]
    if not usable[0] or not len(drawn):
        return [None, None, None]
    bounds = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return [float(value) if abs(value) < _NEVER / 2 else None for value in (values[0], *bounds)]
