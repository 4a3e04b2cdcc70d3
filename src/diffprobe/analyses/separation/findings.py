"""The rows of sets.csv and tests.csv at one layer and step together, and sentences on what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from diffprobe.prototypes.collecting import DistanceKey, ObjectRow
from diffprobe.prototypes.separation import SetRow, TestRow
from diffprobe.prototypes.sets import SETS
from diffprobe.report.wording import interval, is_number, p_text, place_name, rounded
from diffprobe.statistics.intervals import MINIMUM_IMAGES, SIGNIFICANT

MANY = 6  # more layers and steps than these are summed up in one sentence
WHY_EMPTY = {
    "scsi": "no image shows two objects of one class",
    "scdi": "no class has objects in two images",
    "dcsi": "no image shows objects of two classes",
    "dcdi": "all objects are of one class or in one image",
}


@dataclass(frozen=True)
class SeparationCell(DistanceKey):
    """What was found at one layer and step with one measure.

    Attributes:
        sets: the row of each set.
        tests: (statistic, set_a, set_b) -> its row.
    """

    sets: dict[str, SetRow] = field(default_factory=dict)
    tests: dict[tuple[str, str, str], TestRow] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """'encoder16, step 3'."""
        return place_name(self.layer, self.step)

    def test(self, statistic: str, set_a: str = "", set_b: str = "") -> TestRow | None:
        """The row of a statistic; None where it has no value."""
        row = self.tests.get((statistic, set_a, set_b))
        return row if row is not None and is_number(row.value) else None

    @property
    def auc(self) -> TestRow | None:
        """The AUC of scdi < dcdi."""
        return self.test("auc", "scdi", "dcdi")

    @property
    def permutation(self) -> TestRow | None:
        """The block permutation test of scdi < dcdi."""
        return self.test("permutation_between_images", "scdi", "dcdi")

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
        means = [self.mean(name) or 0.0 for name in SETS]
        return None if self.empty else all(first < second for first, second in pairwise(means))

    @property
    def order_p(self) -> float | None:
        """p of the hypothesis that the order does not hold, adjusted for layers and steps; None without a test."""
        return _best_p(self.test("order_holds"))

    @property
    def order_shown(self) -> bool:
        """Whether the order holds by means and `order_p` is significant."""
        return bool(self.in_order) and _significant(self.order_p)

    @property
    def separates(self) -> bool:
        """Whether same-class objects of different images are nearer, by interval and adjusted block permutation."""
        above = self.auc is not None and self.auc.low is not None and self.auc.low > 0.5
        return above and _significant(_best_p(self.permutation))


def _best_p(row: TestRow | None) -> float | None:
    """The adjusted p where there is one."""
    return None if row is None else row.p_holm if is_number(row.p_holm) else row.p


def _significant(p: float | None) -> bool:
    return is_number(p) and p <= SIGNIFICANT


def separation_cells(sets: Sequence[SetRow], tests: Sequence[TestRow] = ()) -> list[SeparationCell]:
    """The rows gathered by model, measure, layer (in the order in which these first appear) and step."""
    found: dict[tuple, SeparationCell] = {}
    for row in (*sets, *tests):
        key = (row.model, row.layer, row.step, row.timestep, row.measure)
        cell = found.setdefault(key, SeparationCell(*key))
        if isinstance(row, SetRow):
            cell.sets[row.set] = row
        else:
            cell.tests[row.statistic, row.set_a, row.set_b] = row
    models, measures, layers = (
        list(dict.fromkeys(getattr(cell, name) for cell in found.values())) for name in ("model", "measure", "layer")
    )
    return sorted(
        found.values(),
        key=lambda cell: (models.index(cell.model), measures.index(cell.measure), layers.index(cell.layer), cell.step),
    )


def grouped_cells(cells: Sequence[SeparationCell]) -> dict[str, list[SeparationCell]]:
    """The cells by model and measure, as far as they differ: '' if there is one of each, else 'pocket, cosine'."""
    several_models = len({cell.model for cell in cells}) > 1
    several_measures = len({cell.measure for cell in cells}) > 1
    groups: dict[str, list[SeparationCell]] = {}
    for cell in cells:
        name = ", ".join([cell.model] * several_models + [cell.measure] * several_measures)
        groups.setdefault(name, []).append(cell)
    return groups


def text_of(row: SetRow | TestRow, digits: int = 2) -> str:
    """'0.86 [0.83, 0.89]'."""
    return interval(row.mean if isinstance(row, SetRow) else row.value, row.low, row.high, digits)


def separation_lines(
    cells: Sequence[SeparationCell],
    objects: Sequence[ObjectRow] = (),
    vanished: Mapping[tuple[int, int], Sequence[str]] | None = None,
) -> list[str]:
    """Sentences on empty sets, the order of the sets, classes across images, retrieval, and vanished objects.

    Args:
        objects: all of them; they give the level of chance.
        vanished: grid (height, width) -> names of the objects that no cell of it belongs to.
    """
    lines = []
    for group, own in grouped_cells(cells).items():
        found = [*_empty_lines(own), *_order_lines(own), *_class_lines(own), *_retrieval_lines(own, objects)]
        lines += [f"{group}: {line}" if group else line for line in found]
    for (height, width), names in (vanished or {}).items():
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
            lines.append(
                f"At {height}\N{MULTIPLICATION SIGN}{width}, {len(names)} of {len(objects)} objects belong to no cell "
                f"and are left out: {shown}."
            )
    return lines


def _empty_lines(cells: Sequence[SeparationCell]) -> list[str]:
    lines = []
    for name in SETS:
        places = [cell.place for cell in cells if name in cell.empty]
        if places:
            # Objects may vanish at one resolution and not at another.
            where = "" if len(places) == len(cells) else f" at {', '.join(places[:3])}{' ...' * (len(places) > 3)}"
            lines.append(
                f"{name} is empty{where}: {WHY_EMPTY[name]}. Nothing is said of it, and the order of all four sets "
                "cannot be judged."
            )
    return lines


def _order_lines(cells: Sequence[SeparationCell]) -> list[str]:
    if len(cells) <= MANY:
        return [_order_line(cell) for cell in cells]
    judged = [cell for cell in cells if cell.in_order is not None]
    if not judged:
        return []
    holding = [cell for cell in judged if cell.in_order]
    shown = sum(cell.order_shown for cell in holding)
    line = (
        f"The order {' < '.join(SETS)} holds by means at {len(holding)} of {len(judged)} (layer, step), and is shown "
        f"at {shown} of these (p at most {SIGNIFICANT} after Holm)"
    )
    tested = [cell for cell in holding if is_number(cell.order_p)]
    if not tested:
        return [f"{line}."]
    best = min(tested, key=lambda cell: cell.order_p or 0)
    p = p_text(best.order_p)
    nearest = f"most surely at {best.place} (p = {p})" if shown else f"the smallest p is {p}, at {best.place}"
    return [f"{line}; {nearest}."]


def _order_line(cell: SeparationCell) -> str:
    filled = [name for name in SETS if name not in cell.empty]
    if len(filled) < 2:
        return f"{cell.place}: fewer than two sets have pairs, so there is no order."
    broken = [
        f"{first} is not below {second}"
        for first, second in pairwise(filled)
        if not (cell.mean(first) or 0.0) < (cell.mean(second) or 0.0)
    ]
    what = "of the sets that are not empty, " if cell.empty else ""
    verdict = f"does not hold by means: {', '.join(broken)}" if broken else "holds by means"
    numbers = ", ".join(f"{name} {text_of(cell.sets[name])}" for name in filled)
    test = ""
    if cell.in_order and is_number(cell.order_p):
        shown = "shown" if cell.order_shown else "not shown"
        test = f"; {shown}, p = {p_text(cell.order_p)} that it does not hold"
    elif cell.in_order:
        test = f"; that is no verdict, since a set has pairs in less than {MINIMUM_IMAGES} images"
    return f"{cell.place}: {what}{' < '.join(filled)} {verdict} ({numbers}){test}."


def _class_lines(cells: Sequence[SeparationCell]) -> list[str]:
    measured = [(cell, cell.auc) for cell in cells if cell.auc]
    if len(measured) <= MANY:
        return [_class_line(*each) for each in measured]
    best = max(measured, key=lambda each: each[1].value or 0)
    return [
        "Objects of one class in different images are shown to be nearer than objects of different classes at "
        f"{sum(cell.separates for cell, _ in measured)} of {len(measured)} (layer, step). The highest AUC is that of "
        f"{_class_line(*best)}"
    ]


def _class_line(cell: SeparationCell, auc: TestRow) -> str:
    verdict = "are nearer than" if cell.separates else "are not shown to be nearer than"
    numbers = f"AUC {text_of(auc)}"
    test = cell.permutation
    if test is not None:
        numbers += f", block permutation p = {p_text(test.p, test.log10_p)}"
        numbers += f", {p_text(test.p_holm)} after Holm" if is_number(test.p_holm) else ""
    few = f"; a set has pairs in less than {MINIMUM_IMAGES} images, so no verdict is given" if auc.low is None else ""
    return (
        f"{cell.place}: objects of one class in different images {verdict} objects of different classes ({numbers})"
        f"{few}."
    )


def _retrieval_lines(cells: Sequence[SeparationCell], objects: Sequence[ObjectRow]) -> list[str]:
    measured = [(cell, row) for cell in cells if (row := cell.test("knn_accuracy"))]
    if not measured:
        return []
    cell, accuracy = max(measured, key=lambda each: each[1].value or 0)
    line = (
        f"The nearest object of another image is of the same class for {text_of(accuracy)} of the objects at "
        f"{cell.place}"
    )
    if len(measured) > 1:
        line += f", the best of {len(measured)} (layer, step)"
    precision = cell.test("mean_average_precision")
    if precision is not None:
        line += f" (mean average precision {text_of(precision)})"
    chance = chance_accuracy(objects)
    if chance is None:
        return [f"{line}."]
    if accuracy.low is None:
        return [f"{line}; less than {MINIMUM_IMAGES} images have objects, so it is not compared with chance."]
    relation = "above" if accuracy.low > chance else "not shown to be above"
    return [f"{line}, {relation} the {rounded(chance)} of always naming the most frequent class."]


def chance_accuracy(objects: Sequence[ObjectRow]) -> float | None:
    """What always naming the most frequent class scores: its share of the objects."""
    counts = Counter(item.label for item in objects)
    return max(counts.values()) / len(objects) if objects else None
