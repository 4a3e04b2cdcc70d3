"""The rows of the tables that analyses of prototypes leave; docs/statistics.md says what each statistic is."""

from __future__ import annotations

from dataclasses import dataclass

from diffprobe.tables import Step


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """objects.csv: an object with a prototype. `area` is its share of the image's pixels."""

    object: str
    image: str
    label: str
    area: float
    dataset: str
    sequence: str
    frame: int
    instance: int


@dataclass(frozen=True, slots=True)
class SetRow:
    """sets.csv: the distances of one set of pairs. Values are None where the set is empty.

    `std` is of the population (ddof 0), `radius` the largest deviation from the mean; `low` and `high` bound the mean
    over images.
    """

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str
    set: str
    n: int
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    radius: float | None
    shapiro_w: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class TestRow:
    """tests.csv: one statistic of a pair of sets, or of all objects (`set_a` and `set_b` empty)."""

    __test__ = False  # for pytest, which would take it for one of its own

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str
    set_a: str
    set_b: str
    statistic: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    log10_p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class DriftRow:
    """drift.csv: distances of objects to themselves after a change ('self'), beside other sets of pairs.

    `auc` is the chance that an object is nearer to its changed self than a pair of the set is to each other.
    """

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str
    change: str
    strength: float
    set: str
    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    auc: float | None


@dataclass(frozen=True, slots=True)
class VanishedRow:
    """vanished.csv: an object without a prototype, since no cell of a grid belongs to it (`change` made it so)."""

    object: str
    height: int
    width: int
    change: str
    strength: float | None
