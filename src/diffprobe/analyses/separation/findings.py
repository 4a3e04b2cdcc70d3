"""What an analysis found at one layer and step with one measure: its rows of sets.csv and tests.csv together.

Plain sentences about the separation of objects: what intervals and permutations support, and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from diffprobe.files import Step
from diffprobe.prototypes.sets import SETS
from diffprobe.report.wording import interval, is_number, p_text, place_name, rounded
from diffprobe.statistics.intervals import MINIMUM_IMAGES, SIGNIFICANT

if TYPE_CHECKING:
    from diffprobe.prototypes.separation import ObjectRow, SetRow, TestRow


@dataclass(frozen=True)
class SeparationCell:
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
        return row if row is not None and is_number(row.value) else None

    def mean(self, name: str) -> float | None:
        """The mean of a set, None where it is empty."""
        row = self.sets.get(name)
        return row.mean if row is not None and is_number(row.mean) else None

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
        p = row.p_holm if is_number(row.p_holm) else row.p
        return p if is_number(p) else None

    @property
    def order_shown(self) -> bool:
        """Whether the order holds by means and `order_p` says that this is no chance."""
        return bool(self.in_order) and is_number(self.order_p) and self.order_p <= SIGNIFICANT


def separation_cells(sets: Sequence[SetRow], tests: Sequence[TestRow] = ()) -> list[SeparationCell]:
    """The rows gathered by model, measure, layer (in the order in which these first appear) and step."""
    gathered: dict[tuple, tuple[dict, dict]] = {}
    for row in sets:
        gathered.setdefault(_key(row), ({}, {}))[0][row.set] = row
    for row in tests:
        gathered.setdefault(_key(row), ({}, {}))[1][row.statistic, row.set_a, row.set_b] = row
    found = [SeparationCell(*key, sets=of_sets, tests=of_tests) for key, (of_sets, of_tests) in gathered.items()]
    place = {
        name: {value: at for at, value in enumerate(dict.fromkeys(getattr(item, name) for item in found))}
        for name in ("model", "measure", "layer")
    }
    return sorted(found, key=lambda item: (*(place[name][getattr(item, name)] for name in place), item.step))


def grouped_separation_cells(found: Sequence[SeparationCell]) -> dict[str, list[SeparationCell]]:
    """The findings of each model and measure, by what tells these apart: '' if there is one, 'pocket, cosine'."""
    models, measures = {item.model for item in found}, {item.measure for item in found}
    groups: dict[str, list[SeparationCell]] = {}
    for item in found:
        telling = [item.model] * (len(models) > 1) + [item.measure] * (len(measures) > 1)
        groups.setdefault(", ".join(telling), []).append(item)
    return groups


def rising(values: Sequence[float]) -> bool:
    return all(first < second for first, second in pairwise(values))


def _key(row: SetRow | TestRow) -> tuple:
    return (row.model, row.layer, row.step, row.timestep, row.measure)


MANY = 6  # more layers and steps than these are told of together
ORDER = " < ".join(SETS)
WHY_EMPTY = {
    "scsi": "no image shows two objects of one class",
    "scdi": "no class has objects in two images",
    "dcsi": "no image shows objects of two classes",
    "dcdi": "all objects are of one class or in one image",
}


def separation_lines(
    found: Sequence[SeparationCell],
    objects: Sequence[ObjectRow] = (),
    vanished: Mapping[tuple[int, int], Sequence[str]] | None = None,
) -> list[str]:
    """Sentences on empty sets, the order of the sets, classes across images, retrieval, and vanished objects.

    Args:
        objects: all of them; they give the level of chance.
        vanished: grid (height, width) -> names of the objects that no cell of it belongs to.
    """
    lines = []
    for group, members in grouped_separation_cells(found).items():
        own = [
            *_empty_lines(members),
            *_order_lines(members),
            *_class_lines(members),
            *_retrieval_lines(members, objects),
        ]
        lines += [f"{group}: {line}" if group else line for line in own]
    return lines + [_vanished_line(grid, names, len(objects)) for grid, names in (vanished or {}).items() if names]


def chance_accuracy(objects: Sequence[ObjectRow]) -> float | None:
    """What always naming the most frequent class scores: its share of the objects."""
    counts = Counter(item.label for item in objects)
    return max(counts.values()) / len(objects) if objects else None


def separates(item: SeparationCell) -> bool:
    """Same-class objects of different images are nearer than others, by interval and adjusted block permutation."""
    auc, test = item.test("auc", "scdi", "dcdi"), item.test("permutation_between_images", "scdi", "dcdi")
    if auc is None or test is None or auc.low is None:
        return False
    p = test.p_holm if is_number(test.p_holm) else test.p
    return auc.low > 0.5 and is_number(p) and p <= SIGNIFICANT


def _empty_lines(members: Sequence[SeparationCell]) -> list[str]:
    lines = []
    for name in SETS:
        where = [item.place for item in members if name in item.empty]
        if where:
            # Objects may vanish at one resolution and not at another.
            places = "" if len(where) == len(members) else f" at {', '.join(where[:3])}{' ...' * (len(where) > 3)}"
            lines.append(
                f"{name} is empty{places}: {WHY_EMPTY[name]}. Nothing is said of it, and the order of all four sets "
                "cannot be judged."
            )
    return lines


def _order_lines(members: Sequence[SeparationCell]) -> list[str]:
    if len(members) <= MANY:
        return [_order_line(item) for item in members]
    judged = [item for item in members if item.in_order is not None]
    if not judged:
        return []
    holding = [item for item in judged if item.in_order]
    sure = [item for item in holding if item.order_shown]
    line = (
        f"The order {ORDER} holds by means at {len(holding)} of {len(judged)} (layer, step), and is shown at "
        f"{len(sure)} of these (p at most {SIGNIFICANT} after Holm)"
    )
    tested = [item for item in holding if is_number(item.order_p)]
    best = min(tested, key=lambda item: item.order_p or 0, default=None)
    if best is None:
        return [f"{line}."]
    p = p_text(best.order_p)
    nearest = f"most surely at {best.place} (p = {p})" if sure else f"the smallest p is {p}, at {best.place}"
    return [f"{line}; {nearest}."]


def _order_line(item: SeparationCell) -> str:
    there_are = [name for name in SETS if name not in item.empty]
    if len(there_are) < 2:
        return f"{item.place}: fewer than two sets have pairs, so there is no order."
    means = [item.mean(name) or 0.0 for name in there_are]
    what = "" if not item.empty else "of the sets that are not empty, "
    verdict = "holds by means" if rising(means) else "does not hold by means"
    broken = [
        f"{names[0]} is not below {names[1]}"
        for names, values in zip(pairwise(there_are), pairwise(means), strict=True)
        if not rising(values)
    ]
    reasons = f": {', '.join(broken)}" if broken else ""
    numbers = ", ".join(
        f"{name} {interval(row.mean, row.low, row.high)}" for name in there_are if (row := item.sets[name])
    )
    return f"{item.place}: {what}{' < '.join(there_are)} {verdict}{reasons} ({numbers}){_order_test(item)}."


def _order_test(item: SeparationCell) -> str:
    """Whether the order is more than that of the means, and why nothing is said of that."""
    if not item.in_order:
        return ""
    if not is_number(item.order_p):
        return f"; that is no verdict, since a set has pairs in less than {MINIMUM_IMAGES} images"
    return f"; {'' if item.order_shown else 'not '}shown, p = {p_text(item.order_p)} that it does not hold"


def _class_lines(members: Sequence[SeparationCell]) -> list[str]:
    measured = [item for item in members if item.test("auc", "scdi", "dcdi")]
    if not measured:
        return []
    if len(measured) <= MANY:
        return [_class_line(item) for item in measured]
    best = max(measured, key=lambda item: item.tests["auc", "scdi", "dcdi"].value or 0)
    count = sum(separates(item) for item in measured)
    return [
        f"Objects of one class in different images are shown to be nearer than objects of different classes at {count} "
        f"of {len(measured)} (layer, step). The highest AUC is that of {_class_line(best)}"
    ]


def _class_line(item: SeparationCell) -> str:
    auc, test = item.tests["auc", "scdi", "dcdi"], item.test("permutation_between_images", "scdi", "dcdi")
    verdict = "are nearer than" if separates(item) else "are not shown to be nearer than"
    numbers = f"AUC {interval(auc.value, auc.low, auc.high)}"
    if test is not None:
        numbers += f", block permutation p = {p_text(test.p, test.log10_p)}"
        numbers += f", {p_text(test.p_holm)} after Holm" if is_number(test.p_holm) else ""
    what = f"objects of one class in different images {verdict} objects of different classes"
    few = (
        "" if auc.low is not None else f"; a set has pairs in less than {MINIMUM_IMAGES} images, so no verdict is given"
    )
    return f"{item.place}: {what} ({numbers}){few}."


def _retrieval_lines(members: Sequence[SeparationCell], objects: Sequence[ObjectRow]) -> list[str]:
    measured = [item for item in members if item.test("knn_accuracy")]
    if not measured:
        return []
    best = max(measured, key=lambda item: item.tests["knn_accuracy", "", ""].value or 0)
    accuracy, precision = best.tests["knn_accuracy", "", ""], best.test("mean_average_precision")
    share = interval(accuracy.value, accuracy.low, accuracy.high)
    line = f"The nearest object of another image is of the same class for {share} of the objects at {best.place}"
    line += f", the best of {len(measured)} (layer, step)" if len(measured) > 1 else ""
    if precision is not None:
        line += f" (mean average precision {interval(precision.value, precision.low, precision.high)})"
    chance = chance_accuracy(objects)
    if chance is None:
        return [f"{line}."]
    if accuracy.low is None:
        return [f"{line}; less than {MINIMUM_IMAGES} images have objects, so it is not compared with chance."]
    relation = "above" if accuracy.low > chance else "not shown to be above"
    return [f"{line}, {relation} the {rounded(chance)} of always naming the most frequent class."]


def _vanished_line(grid: tuple[int, int], names: Sequence[str], total: int) -> str:
    size = f"{grid[0]}\N{MULTIPLICATION SIGN}{grid[1]}"
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
    return f"At {size}, {len(names)} of {total} objects belong to no cell and are left out: {shown}."
