"""How much of a score is the activations' own: the score less what the same probe gets with shuffled labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from diffprobe.errors import UserError
from diffprobe.probes.summaries import summarise
from diffprobe.probes.tables import Score, Summary

REAL, SHUFFLED = "none", "labels"  # values of the column `control`
_PAIR = attrgetter("model", "layer", "step", "property", "probe", "split", "image", "metric")


def selectivity(scores: Sequence[Score], *, level: float = 0.95) -> list[Summary]:
    """Real scores less those with shuffled labels: mean over images with a paired interval.

    Selectivity of Hewitt and Liang (2019), each score judged by the labels that its own probe was trained for (see
    `controls.shuffled_targets`). The difference is taken image by image, which takes out how hard an image is.
    `n` counts the images where both scores are defined; rmse is better the lower, so its selectivity is negative.

    Args:
        scores: rows of the real probes and of control 'labels'; others do not matter.

    Returns:
        Rows with control 'selectivity', one for each key of the rows of control 'labels'.

    Raises:
        UserError: no scores with shuffled labels, or some without a real score of the same image beside them.
    """
    shuffled = {_PAIR(row): row.value for row in scores if row.control == SHUFFLED}
    real = {_PAIR(row): row for row in scores if row.control == REAL}
    if not shuffled:
        raise UserError("no scores with shuffled labels to compare with: run with the control 'labels'.")
    alone = [pair for pair in shuffled if pair not in real]
    if alone:
        raise UserError(
            f"{len(alone)} scores with shuffled labels have no real score beside them, "
            f"the first is {' / '.join(map(str, alone[0]))}."
        )
    differences = [
        replace(real[pair], control="selectivity", value=_difference(real[pair].value, value))
        for pair, value in shuffled.items()
    ]
    return summarise(differences, level=level, differences=True)


def _difference(real: float | None, shuffled: float | None) -> float | None:
    return None if real is None or shuffled is None else real - shuffled
