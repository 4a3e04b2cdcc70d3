"""What an analysis found at one layer and step with one measure: its rows of sets.csv and tests.csv together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from diffprobe.prototypes.sets import SETS
from diffprobe.report.numbers import there
from diffprobe.statistics import SIGNIFICANT
from diffprobe.tables import NO_STEP, Step

if TYPE_CHECKING:
    from diffprobe.prototypes.tables import SetRow, TestRow


@dataclass(frozen=True)
class Finding:
    """
    Attributes:
        model, layer, step, timestep, measure: the keys of its rows.
        sets: the row of each set.
        tests: (statistic, set_a, set_b) -> its row.
    """

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str
    sets: Mapping[str, SetRow] = field(default_factory=dict)
    tests: Mapping[tuple[str, str, str], TestRow] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it was found: 'encoder16, step 3'."""
        return place_name(self.layer, self.step)

    def test(self, statistic: str, set_a: str = "", set_b: str = "") -> TestRow | None:
        """The row of a statistic that has a value; None where there is none."""
        row = self.tests.get((statistic, set_a, set_b))
        return row if row is not None and there(row.value) else None

    def mean(self, name: str) -> float | None:
        """The mean of a set, None where it is empty."""
        row = self.sets.get(name)
        return row.mean if row is not None and there(row.mean) else None

    @property
    def empty(self) -> list[str]:
        """The sets without a pair."""
        return [name for name in SETS if self.mean(name) is None]

    @property
    def in_order(self) -> bool | None:
        """Whether scsi < scdi < dcsi < dcdi by means; None where a set is empty."""
        means = [mean for name in SETS if (mean := self.mean(name)) is not None]
        return rising(means) if len(means) == len(SETS) else None

    @property
    def order_p(self) -> float | None:
        """p of the hypothesis that the order does not hold, adjusted for inputs and steps; None without a test."""
        row = self.test("order_holds")
        if row is None:
            return None
        p = row.p_holm if there(row.p_holm) else row.p
        return p if there(p) else None

    @property
    def order_shown(self) -> bool:
        """Whether the order holds by means and `order_p` says that this is no chance."""
        return bool(self.in_order) and there(self.order_p) and self.order_p <= SIGNIFICANT


def findings(sets: Sequence[SetRow], tests: Sequence[TestRow] = ()) -> list[Finding]:
    """The rows gathered by model, measure, layer (in the order in which these first appear) and step."""
    gathered: dict[tuple, tuple[dict, dict]] = {}
    for row in sets:
        gathered.setdefault(_key(row), ({}, {}))[0][row.set] = row
    for row in tests:
        gathered.setdefault(_key(row), ({}, {}))[1][row.statistic, row.set_a, row.set_b] = row
    found = [Finding(*key, sets=of_sets, tests=of_tests) for key, (of_sets, of_tests) in gathered.items()]
    place = {
        name: {value: at for at, value in enumerate(dict.fromkeys(getattr(item, name) for item in found))}
        for name in ("model", "measure", "layer")
    }
    return sorted(found, key=lambda item: (*(place[name][getattr(item, name)] for name in place), item.step))


def grouped_findings(found: Sequence[Finding]) -> dict[str, list[Finding]]:
    """The findings of each model and measure, by what tells these apart: '' if there is one, 'pocket, cosine'."""
    models, measures = {item.model for item in found}, {item.measure for item in found}
    groups: dict[str, list[Finding]] = {}
    for item in found:
        telling = [item.model] * (len(models) > 1) + [item.measure] * (len(measures) > 1)
        groups.setdefault(", ".join(telling), []).append(item)
    return groups


def place_name(layer: str, step: Step) -> str:
    """'encoder16, step 3'; steps count from 1. The layer alone where there is no step."""
    return layer if step == NO_STEP else f"{layer}, step {step + 1}"


def rising(values: Sequence[float]) -> bool:
    return all(first < second for first, second in pairwise(values))


def _key(row: SetRow | TestRow) -> tuple:
    return (row.model, row.layer, row.step, row.timestep, row.measure)
