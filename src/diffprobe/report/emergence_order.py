"""Which property emerges first, as sentences and a table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from diffprobe.probes.emergence_order import EmergenceDifference, ProbedLayer, compare_emergence
from diffprobe.report.choices import LayerChoice, grouped, or_nan, sign_of
from diffprobe.report.report import Table
from diffprobe.report.wording import images_text, significant
from diffprobe.statistics.differences import images_needed
from diffprobe.statistics.intervals import SIGNIFICANT

FEW = 3  # so many pairs are told with their steps


def emergence_order(
    scores: pd.DataFrame, choices: Sequence[LayerChoice], *, seed: int = 0
) -> tuple[list[str], dict[str, Table]]:
    """Which properties are shown to emerge before others at their best layers: sentences, and 'emergence_order'.

    Nothing of one property, nor of one step, nor where the noise does not fall from step to step. A property that its
    comparisons do not show to be better than all of its controls is left out: a score that never rises has emerged at
    once. The choices are of one fraction.
    """
    choices = [choice for choice in choices if choice.emergence is not None]
    left_out = [choice.property for choice in choices if not _beats_controls(choice)]
    choices = [choice for choice in choices if _beats_controls(choice)]
    probed = [ProbedLayer(choice.model, choice.probe, choice.property, choice.best) for choice in choices]
    rows = compare_emergence(scores, probed, fraction=choices[0].fraction, seed=seed) if choices else []
    lines = []
    for group, members in grouped(choices).items():
        model, probe = members[0].model, members[0].probe
        own = [row for row in rows if (row.model, row.probe) == (model, probe)]
        lines += [f"{group}: {line}" if group else line for line in order_lines(own)]
    if lines and left_out:
        names = _listed(list(dict.fromkeys(left_out)))
        lines.append(f"Not compared in this: {names}, not shown to be better than all controls.")
    table = Table.of(EmergenceDifference, rows, title="Order in which properties emerge")
    return lines, {"emergence_order": table} if rows else {}


def _beats_controls(choice: LayerChoice) -> bool:
    """Whether all comparisons with controls show it to be better; True without any."""
    rows = [row for row in choice.comparisons if row.family == "control"]
    return all(significant(row) == sign_of(choice.metric) for row in rows)


def order_lines(rows: Sequence[EmergenceDifference]) -> list[str]:
    """Sentences on the pairs of one model and probe: which order is shown, and which is not."""
    tested = [row for row in rows if row.difference is not None]
    needed = images_needed(len(tested))
    few = [row for row in tested if row.n < needed]
    enough = [row for row in tested if row.n >= needed]
    shown = [row for row in enough if _shown(row)]
    open_pairs = [row for row in enough if not _shown(row)]
    start = "Paired on the same images,"
    lines = []
    if shown:
        lines.append(f"{start} {_shown_text(shown)}.")
    if open_pairs:
        where = (
            "; ".join(f"{row.property} and {row.other_property}, {_steps(row)}" for row in open_pairs)
            if len(open_pairs) <= FEW
            else f"{len(open_pairs)} {'other ' * bool(shown)}pairs of properties"
        )
        lines.append(f"{start} no order of emergence is shown of {where}.")
    if few:
        lines.append(
            f"No order of emergence is told of {len(few)} pair{'s' * (len(few) > 1)} of properties: "
            f"{images_text(min(row.n for row in few))} cannot show one, it takes {needed}."
        )
    return lines


def _shown(row: EmergenceDifference) -> int:
    """1: the first is shown to emerge earlier, -1: later, 0: neither; by interval and adjusted p together."""
    if row.low is None or row.high is None or row.p_holm is None or row.p_holm > SIGNIFICANT:
        return 0
    return 1 if row.low > 0 else -1 if row.high < 0 else 0


def _shown_text(rows: Sequence[EmergenceDifference]) -> str:
    """'saliency emerges before depth by 6 steps [4, 7]'; of many pairs without numbers, by the earlier one."""
    ordered = [(row, _shown(row)) for row in rows]
    named = [
        (row.property, row.other_property) if sign > 0 else (row.other_property, row.property) for row, sign in ordered
    ]
    if len(rows) <= FEW:
        return "; ".join(
            f"{earlier} emerges before {later}, by {_steps(row, sign)}"
            for (earlier, later), (row, sign) in zip(named, ordered, strict=True)
        )
    later_of: dict[str, list[str]] = {}
    for earlier, later in named:
        later_of.setdefault(earlier, []).append(later)
    return "; ".join(f"{earlier} emerges before {_listed(later)}" for earlier, later in later_of.items())


def _listed(names: Sequence[str]) -> str:
    """'depth', 'depth and albedo', 'depth, albedo and normals'."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _steps(row: EmergenceDifference, sign: int = 1) -> str:
    """'6 steps [4, 7]'."""
    value, low, high = (sign * int(or_nan(end)) for end in (row.difference, row.low, row.high))
    low, high = sorted((low, high))
    return f"{value} step{'s' * (abs(value) != 1)} [{low}, {high}]"
