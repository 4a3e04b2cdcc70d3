"""The papers' tables of separation, with what was published beside what this run found.

Bonechi et al. 2024 ("Diff-Props"): tables 2 to 4 have mean and standard deviation of the four sets by setup, tables 1
and 5 the Kruskal-Wallis p and the Dunn index of the six pairs of sets by measure and by layer.

Are objects of one class nearer to each other than objects of two? For every input, step and measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame
from torch import Tensor

from diffprobe.analyses.separation.findings import SeparationCell, grouped_separation_cells
from diffprobe.analyses.separation.published import (
    MEASURE,
    MODEL,
    PAIRS,
    TIMESTEP,
    PublishedMean,
    PublishedMeans,
    PublishedTest,
    PublishedTests,
    published_means,
    published_tests,
)
from diffprobe.backbone.layers import short_names
from diffprobe.files import NO_STEP
from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.matrices import DistanceConfig, PrototypeMatrix, all_distances
from diffprobe.prototypes.retrieval import neighbours
from diffprobe.prototypes.separation import DistanceKey, Resampling, SetRow, TestRow, separate
from diffprobe.prototypes.sets import SETS, SetHistogram
from diffprobe.report.report import PaperCell, Table
from diffprobe.report.wording import interval, is_number, p_text, rounded, short_power
from diffprobe.statistics.differences import holm

if TYPE_CHECKING:
    from diffprobe.prototypes.separation import TestRow


@dataclass(frozen=True)
class NearestObjects:
    """The objects of other images that are nearest to every object, at one input, step and measure.

    Attributes:
        objects: [queries], which objects of all.
        neighbours: [queries, k], nearest first; distances: the same shape.
    """

    key: DistanceKey
    objects: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray


@dataclass
class SeparationResults:
    """Plain tables; `nearest` is that of the input at which the nearest objects tell the class best."""

    sets: list[SetRow] = field(default_factory=list)
    tests: list[TestRow] = field(default_factory=list)
    histograms: list[SetHistogram] = field(default_factory=list)
    nearest: NearestObjects | None = None


def study_separation(
    prototypes: Prototypes,
    model: str,
    distance_config: DistanceConfig,
    resampling: Resampling,
    *,
    shown: int = 5,
    log: Callable[[str], None] = lambda line: None,
) -> SeparationResults:
    """Everything that is asked of the distances between prototypes, for each input, step and measure.

    Args:
        shown: how many nearest objects are looked up for each.

    Raises:
        UserError: fewer than two objects, or a measure that a prototype has no distance by.
    """
    findings, best = SeparationResults(), -np.inf
    for matrix, distances in all_distances(prototypes, model, distance_config):
        found = separate(matrix.key, distances, matrix.classes, matrix.images, resampling)
        findings.sets += found.sets
        findings.tests += found.tests
        findings.histograms += found.histograms
        score = next((row.value for row in found.tests if row.statistic == "mean_average_precision"), None)
        if score is not None and score > best:
            findings.nearest, best = _nearest(matrix, distances, shown), score
        log(f"{matrix.key.layer}, t = {matrix.key.timestep:g}, {matrix.key.measure}: {len(matrix.rows)} objects")
    findings.tests = _with_holm_over_inputs(findings.tests)
    return findings


def _nearest(matrix: PrototypeMatrix, distances: Tensor, shown: int) -> NearestObjects:
    """Of the objects that have so many in other images."""
    found = neighbours(distances, matrix.images, shown)
    queries = np.flatnonzero((found >= 0).all(1))
    found = found[queries]
    near = np.take_along_axis(distances[queries].numpy(), found, 1)
    return NearestObjects(matrix.key, matrix.rows[queries], matrix.rows[found], near)


def _with_holm_over_inputs(tests: Sequence[TestRow]) -> list[TestRow]:
    """The rows with Holm's p of each permutation test, and of the order, over all inputs and steps of a measure."""
    families: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(tests):
        if (row.statistic.startswith("permutation_") or row.statistic == "order_holds") and row.p is not None:
            families.setdefault((row.measure, row.statistic), []).append(place)
    adjusted = list(tests)
    for places in families.values():
        for place, p in zip(places, holm([tests[at].p or 0.0 for at in places]), strict=True):
            adjusted[place] = replace(tests[place], p_holm=p)
    return adjusted


NOTHING = "\N{EN DASH}"  # not published, or not defined here
COLUMNS_OF_CLOSING_TABLE = """\
Means of the four sets. order: whether scsi < scdi < dcsi < dcdi by means, and p of the hypothesis that it does not. \
AUC: chance that a pair of scdi is nearer than one of dcdi, 95 % interval over images. p: block permutation over \
images. *: adjusted after Holm. mAP, 1-NN: objects of the same class among those of other images."""


def separation_tables(found: Sequence[SeparationCell], dataset: str, published: bool) -> dict[str, Table]:
    """The closing table of each model and measure, for the console, and the papers' two tables.

    Args:
        dataset: 'voc', 'coco' or another; numbers were published for these two.
        published: whether the model is of the family that they were published for, Stable Diffusion.
    """
    means, tests = (published_means(dataset), published_tests(dataset)) if published else ({}, {})
    closing = {
        f"closing {group}".strip(): closing_table(own, group) for group, own in grouped_separation_cells(found).items()
    }
    last = list(closing)[-1]
    return closing | {
        last: replace(closing[last], notes=[COLUMNS_OF_CLOSING_TABLE]),
        "tables/means": means_table(found, dataset, means),
        "tables/pairs": pairs_table(found, dataset, tests),
    }


def closing_table(found: Sequence[SeparationCell], group: str = "") -> Table:
    """One line a layer and step, of one model and measure, which `group` names where there are others."""
    short = short_names(item.layer for item in found)
    text = DataFrame([{"layer": short[item.layer], **_closing_cells(item)} for item in found])
    title = "Distances of object prototypes"
    title = f"{group}: {title}" if group else title
    return Table(text, title, show=["console"], text=text)


def _closing_cells(item: SeparationCell) -> dict[str, str]:
    auc = item.test("auc", "scdi", "dcdi")
    test = item.test("permutation_between_images", "scdi", "dcdi")
    means = {name: rounded(item.mean(name)) or "empty" for name in SETS}
    return (
        {"step": "" if item.step == NO_STEP else str(item.step + 1)}
        | means
        | {
            "order": _order(item),
            "AUC": interval(auc.value, auc.low, auc.high) if auc else "",
            "p": (f"{p_text(test.p_holm)}*" if is_number(test.p_holm) else p_text(test.p)) if test else "",
            "mAP": _value(item.test("mean_average_precision")),
            "1-NN": _value(item.test("knn_accuracy")),
        }
    )


def _order(item: SeparationCell) -> str:
    if item.in_order is None:
        return ""
    if not item.in_order:
        return "no"
    return f"yes {p_text(item.order_p)}*" if is_number(item.order_p) else "yes"


def _value(row: TestRow | None) -> str:
    return rounded(row.value) if row else ""


def means_table(found: Sequence[SeparationCell], dataset: str, published: PublishedMeans | None = None) -> Table:
    """One row a setup (and model, measure, step where there are several): 'mean ± std' of the four sets.

    Args:
        dataset: its name, for the caption.
        published: of `published_means`; stands before this run's numbers where these are of `pearson` at t = 0.
    """
    rows, notes = [], []
    for item, names in zip(found, _names(found), strict=True):
        alike = (item.measure, item.timestep) == (MEASURE, TIMESTEP)
        printed = (published or {}).get(item.layer, {}) if alike else {}
        cells = {name: _mean_cell(item, name, printed.get(name), bool(published)) for name in SETS}
        rows.append((names, cells))
        notes += [
            f"* printed so, probably {mean.likely[0]:.2f} ± {mean.likely[1]:.2f} ({_heading(names)}: {name})"
            for name, mean in printed.items()
            if mean.likely
        ]
    title = _caption("Mean ± standard deviation of the distances", found, dataset, published)
    return Table.of_cells(rows, title=title, notes=notes, show=["csv", "markup"])


def pairs_table(found: Sequence[SeparationCell], dataset: str, published: PublishedTests | None = None) -> Table:
    """Two rows a pair of sets, p of Kruskal-Wallis (uncorrected, as the papers') and their Dunn index; one column a
    setup, measure, model and step, as far as there are several.

    Args:
        dataset, published: as for `means_table`, of `published_tests`.
    """
    columns = {_heading(names): item for item, names in zip(found, _names(found), strict=True)}
    printed = {
        column: (published or {}).get((item.layer, item.measure), {}) if item.timestep == TIMESTEP else {}
        for column, item in columns.items()
    }
    rows = []
    for pair in PAIRS:
        sets = f"{pair[0]} vs {pair[1]}"
        p = {name: _p_cell(item, pair, printed[name].get(pair), bool(published)) for name, item in columns.items()}
        dunn = {
            name: _dunn_cell(item, pair, printed[name].get(pair), bool(published)) for name, item in columns.items()
        }
        rows += [({"sets": sets, "metric": "p"}, p), ({"sets": sets, "metric": "Dunn index"}, dunn)]
    notes = [
        f"* printed so, probably {short_power(f'{test.likely_p:g}')} ({column}: {pair[0]} vs {pair[1]})"
        for column, tests in printed.items()
        for pair, test in tests.items()
        if test.likely_p
    ]
    title = _caption("Kruskal-Wallis p and Dunn index", found, dataset, published)
    return Table.of_cells(rows, title=title, notes=notes, show=["csv", "markup"])


def _names(found: Sequence[SeparationCell]) -> list[dict[str, str]]:
    """What tells the findings apart, as it is printed: the layer, and other keys that differ."""
    short = short_names(item.layer for item in found)
    several = [key for key in ("model", "measure", "step") if len({getattr(item, key) for item in found}) > 1]
    if len({item.layer for item in found}) > 1 or not several:
        several.insert(0, "layer")
    shown = {
        "model": lambda item: item.model,
        "layer": lambda item: short[item.layer],
        "measure": lambda item: item.measure,
        "step": lambda item: "" if item.step == NO_STEP else str(item.step + 1),
    }
    return [{key: shown[key](item) for key in several} for item in found]


def _heading(names: Mapping[str, str]) -> str:
    """'down 2.0, step 3'."""
    return ", ".join(f"step {name}" if key == "step" else name for key, name in names.items())


def _caption(what: str, found: Sequence[SeparationCell], dataset: str, published: Mapping | None) -> str:
    here = f"this run ({', '.join(dict.fromkeys(item.model for item in found))}, {dataset})"
    whose = f"published ({MODEL}) / {here}" if published else here
    layers, measures = (list(dict.fromkeys(getattr(item, key) for item in found)) for key in ("layer", "measure"))
    alike = layers * (len(layers) == 1) + measures * (len(measures) == 1)  # what no heading says
    return f"{', '.join([what, *alike])}: {whose}."


def _mean_cell(item: SeparationCell, name: str, printed: PublishedMean | None, compare: bool) -> PaperCell:
    row = item.sets.get(name)
    mean, std = (row.mean, row.std) if row else (None, None)
    here = f"{rounded(mean)} ± {rounded(std)}" if mean is not None else ""
    old = f"{printed.mean:.2f} ± {printed.std:.2f}{'*' * bool(printed.likely)}" if printed else ""
    before = {"published mean": printed and printed.mean, "published std": printed and printed.std} if compare else {}
    return _beside(old, here, compare), {"mean": mean, "std": std} | before


def _p_cell(item: SeparationCell, pair: tuple[str, str], printed: PublishedTest | None, compare: bool) -> PaperCell:
    row = item.test("kruskal", *pair)
    here = p_text(row.p, row.log10_p) if row else ""
    old = f"{short_power(f'{printed.p:g}')}{'*' * bool(printed.likely_p)}" if printed else ""
    exact = row and (row.p or here)  # the digits of a p that is 0 as a float
    return _beside(old, here, compare), {"": exact} | ({"published": printed and printed.p} if compare else {})


def _dunn_cell(item: SeparationCell, pair: tuple[str, str], printed: PublishedTest | None, compare: bool) -> PaperCell:
    row = item.test("dunn_paper", *pair)
    value = row.value if row else None
    old = f"{printed.dunn:.5f}" if printed else ""
    before = {"published": printed and printed.dunn} if compare else {}
    return _beside(old, rounded(value, 5), compare), {"": value} | before


def _beside(published: str, here: str, compare: bool) -> str:
    return f"{published or NOTHING} / {here or NOTHING}" if compare else here or NOTHING
