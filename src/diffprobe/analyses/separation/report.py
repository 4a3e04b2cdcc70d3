"""The report of separation: curves, heat maps, and the papers' tables with published numbers beside this run's.

Bonechi et al. 2024 ("Diff-Props"): tables 2 to 4 have mean and standard deviation of the four sets by layer group,
tables 1 and 5 the Kruskal-Wallis p and the Dunn index of the six pairs of sets by measure and by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pandas import DataFrame

from diffprobe.analyses.objects import object_report
from diffprobe.analyses.separation.figures import RetrievalExample, ShownObject, separation_figures
from diffprobe.analyses.separation.findings import (
    SeparationCell,
    grouped_cells,
    separation_cells,
    separation_lines,
    text_of,
)
from diffprobe.analyses.separation.published import (
    MEASURE,
    MODEL,
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
from diffprobe.prototypes.separation import NearestObjects, SeparationResults, SetRow, TestRow
from diffprobe.prototypes.sets import PAIRS, SETS
from diffprobe.report.report import Cell, HeatMap, PaperCell, Report, Table, scalars_over_steps
from diffprobe.report.wording import is_number, p_text, rounded, short_power

if TYPE_CHECKING:
    from diffprobe.analyses.objects import CollectedPrototypes, ObjectTask
    from diffprobe.data.objects import ObjectImages

SCALARS = ("knn_accuracy", "mean_average_precision", "silhouette", "order_holds")  # of all objects
STABLE_DIFFUSION_1 = ((320, 640, 1280, 1280), 768)  # widths of the papers' network, whatever its weights
NOTHING = "\N{EN DASH}"  # not published, or not defined here
CLOSING_COLUMNS = """\
Means of the four sets. order: whether scsi < scdi < dcsi < dcdi by means, and p of the hypothesis that it does not. \
AUC: chance that a pair of scdi is nearer than one of dcdi, 95 % interval over images. p: block permutation over \
images. *: adjusted after Holm. mAP, 1-NN: objects of the same class among those of other images."""


def report(task: ObjectTask, result: CollectedPrototypes, found: SeparationResults) -> Report:
    """The four sets at every layer and step."""
    cells = separation_cells(found.sets, found.tests)
    prototypes = result.unchanged
    config = task.backbone.denoiser.config
    widths = tuple(config.get("block_out_channels") or ())
    published = (widths, config.get("cross_attention_dim")) == STABLE_DIFFUSION_1
    tables = {
        "sets": Table.of(SetRow, found.sets),
        "tests": Table.of(TestRow, found.tests),
        **separation_tables(cells, task.images.kind, published),
    }
    examples = retrieval_examples(found.nearest, task.images, task.backbone.image_size, task.examples)
    heatmaps = [_heat_map(own, group) for group, own in grouped_cells(cells).items()]
    return object_report(
        "separation",
        task,
        result,
        tables,
        findings=separation_lines(cells, prototypes.objects, prototypes.vanished),
        figures=separation_figures(cells, found.histograms, examples, [group.layer for group in task.inputs]),
        heatmaps=[heat for heat in heatmaps if heat.cells],
        scalars=scalars_over_steps(_points(cells)),
    )


def retrieval_examples(
    nearest: NearestObjects | None, images: ObjectImages, size: int, count: int
) -> list[RetrievalExample]:
    """`count` objects, spread evenly over all, with their nearest objects; pictures of `size` pixels."""
    if nearest is None:
        return []
    places = [(row, at) for row in range(len(images)) for at in range(len(images.objects(row)))]

    def shown(place: int) -> ShownObject:
        row, at = places[place]
        picture = images.picture(row, size).permute(1, 2, 0).numpy()
        return ShownObject(picture, images.masks(row)[at].numpy(), images.objects(row)[at].label)

    queries = len(nearest.objects)
    count = min(count, queries)
    return [
        RetrievalExample(
            shown(nearest.objects[query]),
            tuple(shown(place) for place in nearest.neighbours[query]),
            tuple(map(float, nearest.distances[query])),
        )
        for query in (place * queries // count for place in range(count))
    ]


def _points(cells: Sequence[SeparationCell]) -> Iterator[tuple[int, str, float | None, float | None, float | None]]:
    """Of '<measure>/<layer>/<what>', of several models '<model>/<measure>/...'; <what> is a set, 'auc' or a scalar."""
    several_models = len({cell.model for cell in cells}) > 1
    for cell in cells:
        start = "/".join([*[cell.model] * several_models, cell.measure, cell.layer])
        for name, row in cell.sets.items():
            yield cell.step, f"{start}/{name}", row.mean, row.low, row.high
        for name, test in (("auc", cell.auc), *((name, cell.test(name)) for name in SCALARS)):
            if test is not None:
                yield cell.step, f"{start}/{name}", test.value, test.low, test.high


def _heat_map(cells: Sequence[SeparationCell], group: str) -> HeatMap:
    """AUC of scdi < dcdi; a cell opens the means of the sets and the tests at its layer and step."""
    scores = {
        (cell.layer, cell.step): Cell(row.value, row.low, row.high, None, _notes(cell))
        for cell in cells
        if (row := cell.auc)
    }
    title = "Same class against different classes, in different images"
    return HeatMap(f"{title} ({group})" if group else title, "AUC of scdi < dcdi", scores)


def _notes(cell: SeparationCell) -> list[str]:
    means = [f"{name} {text_of(row, 3)}" for name, row in cell.sets.items() if is_number(row.mean)]
    notes = [f"Means of the sets: {', '.join(means)}."]
    if cell.in_order is not None:
        notes.append(f"By means the four sets are {'in order' if cell.in_order else 'not in order'}.")
    if cell.permutation:
        notes.append(f"Block permutation p = {p_text(cell.permutation.p, cell.permutation.log10_p)}.")
    return notes


def separation_tables(cells: Sequence[SeparationCell], dataset: str, published: bool) -> dict[str, Table]:
    """The closing table of each model and measure, for the console, and the papers' two tables.

    Args:
        dataset: 'voc', 'coco' or another; numbers were published for these two.
        published: whether they are printed beside this run's.
    """
    means, tests = (published_means(dataset), published_tests(dataset)) if published else ({}, {})
    closing = {f"closing {group}".strip(): closing_table(own, group) for group, own in grouped_cells(cells).items()}
    last = list(closing)[-1]
    return closing | {
        last: replace(closing[last], notes=[CLOSING_COLUMNS]),
        "tables/means": means_table(cells, dataset, means),
        "tables/pairs": pairs_table(cells, dataset, tests),
    }


def closing_table(cells: Sequence[SeparationCell], group: str = "") -> Table:
    """One line a layer and step, of one model and measure, which `group` names where there are others."""
    short = short_names(cell.layer for cell in cells)
    text = DataFrame([{"layer": short[cell.layer], **_closing_cells(cell)} for cell in cells])
    title = "Distances of object prototypes"
    return Table(text, f"{group}: {title}" if group else title, show=["console"], text=text)


def _closing_cells(cell: SeparationCell) -> dict[str, str]:
    test = cell.permutation
    precision, accuracy = cell.test("mean_average_precision"), cell.test("knn_accuracy")
    order = {None: "", False: "no", True: "yes"}[cell.in_order]
    if cell.in_order and is_number(cell.order_p):
        order += f" {p_text(cell.order_p)}*"
    p = ""
    if test:
        p = f"{p_text(test.p_holm)}*" if is_number(test.p_holm) else p_text(test.p)
    return {
        "step": _step(cell),
        **{name: rounded(cell.mean(name)) or "empty" for name in SETS},
        "order": order,
        "AUC": text_of(cell.auc) if cell.auc else "",
        "p": p,
        "mAP": rounded(precision.value) if precision else "",
        "1-NN": rounded(accuracy.value) if accuracy else "",
    }


def _step(cell: SeparationCell) -> str:
    return "" if cell.step == NO_STEP else str(cell.step + 1)


def means_table(cells: Sequence[SeparationCell], dataset: str, published: PublishedMeans | None = None) -> Table:
    """One row a layer group (and model, measure, step where there are several): 'mean ± std' of the four sets.

    Args:
        dataset: its name, for the caption.
        published: of `published_means`; stands before this run's numbers where these are of `pearson` at t = 0.
    """
    rows, notes = [], []
    for cell, names in zip(cells, _names(cells), strict=True):
        comparable = (cell.measure, cell.timestep) == (MEASURE, TIMESTEP)
        printed = (published or {}).get(cell.layer, {}) if comparable else {}
        rows.append((names, {name: _mean_cell(cell, name, printed.get(name), bool(published)) for name in SETS}))
        notes += [
            f"* printed so, probably {mean.likely[0]:.2f} ± {mean.likely[1]:.2f} ({_heading(names)}: {name})"
            for name, mean in printed.items()
            if mean.likely
        ]
    title = _caption("Mean ± standard deviation of the distances", cells, dataset, published)
    return Table.of_cells(rows, title=title, notes=notes, show=["csv", "markup"])


def pairs_table(cells: Sequence[SeparationCell], dataset: str, published: PublishedTests | None = None) -> Table:
    """Two rows a pair of sets, p of Kruskal-Wallis (uncorrected, as the papers') and their Dunn index; one column a
    layer group, measure, model and step, as far as there are several.

    Args:
        dataset, published: as for `means_table`, of `published_tests`.
    """
    columns = {_heading(names): cell for cell, names in zip(cells, _names(cells), strict=True)}
    printed = {
        column: (published or {}).get((cell.layer, cell.measure), {}) if cell.timestep == TIMESTEP else {}
        for column, cell in columns.items()
    }
    rows = [
        (
            {"sets": f"{pair[0]} vs {pair[1]}", "metric": metric},
            {name: make(cell, pair, printed[name].get(pair), bool(published)) for name, cell in columns.items()},
        )
        for pair in PAIRS
        for metric, make in (("p", _p_cell), ("Dunn index", _dunn_cell))
    ]
    notes = [
        f"* printed so, probably {short_power(f'{test.likely_p:g}')} ({column}: {pair[0]} vs {pair[1]})"
        for column, tests in printed.items()
        for pair, test in tests.items()
        if test.likely_p
    ]
    title = _caption("Kruskal-Wallis p and Dunn index", cells, dataset, published)
    return Table.of_cells(rows, title=title, notes=notes, show=["csv", "markup"])


def _names(cells: Sequence[SeparationCell]) -> list[dict[str, str]]:
    """What tells the cells apart, as it is printed: the layer, and other keys that differ."""
    short = short_names(cell.layer for cell in cells)
    differing = {key for key in ("model", "measure", "step") if len({getattr(cell, key) for cell in cells}) > 1}
    if len(short) > 1 or not differing:
        differing.add("layer")
    found = []
    for cell in cells:
        names = {"layer": short[cell.layer], "model": cell.model, "measure": cell.measure, "step": _step(cell)}
        found.append({key: name for key, name in names.items() if key in differing})
    return found


def _heading(names: Mapping[str, str]) -> str:
    """'down 2.0, step 3'."""
    return ", ".join(f"step {name}" if key == "step" else name for key, name in names.items())


def _caption(what: str, cells: Sequence[SeparationCell], dataset: str, published: Mapping | None) -> str:
    here = f"this run ({', '.join(dict.fromkeys(cell.model for cell in cells))}, {dataset})"
    whose = f"published ({MODEL}) / {here}" if published else here
    layers, measures = {cell.layer for cell in cells}, {cell.measure for cell in cells}
    shared = [*layers] * (len(layers) == 1) + [*measures] * (len(measures) == 1)  # what no heading says
    return f"{', '.join([what, *shared])}: {whose}."


def _mean_cell(cell: SeparationCell, name: str, printed: PublishedMean | None, compare: bool) -> PaperCell:
    row = cell.sets.get(name)
    mean, std = (row.mean, row.std) if row else (None, None)
    here = f"{rounded(mean)} ± {rounded(std)}" if mean is not None else ""
    old = f"{printed.mean:.2f} ± {printed.std:.2f}{'*' * bool(printed.likely)}" if printed else ""
    before = {"published mean": printed and printed.mean, "published std": printed and printed.std} if compare else {}
    return _beside(old, here, compare), {"mean": mean, "std": std} | before


def _p_cell(cell: SeparationCell, pair: tuple[str, str], printed: PublishedTest | None, compare: bool) -> PaperCell:
    row = cell.test("kruskal", *pair)
    here = p_text(row.p, row.log10_p) if row else ""
    old = f"{short_power(f'{printed.p:g}')}{'*' * bool(printed.likely_p)}" if printed else ""
    exact = row and (row.p or here)  # the digits of a p that is 0 as a float
    return _beside(old, here, compare), {"": exact} | ({"published": printed and printed.p} if compare else {})


def _dunn_cell(cell: SeparationCell, pair: tuple[str, str], printed: PublishedTest | None, compare: bool) -> PaperCell:
    row = cell.test("dunn_paper", *pair)
    value = row.value if row else None
    old = f"{printed.dunn:.5f}" if printed else ""
    before = {"published": printed and printed.dunn} if compare else {}
    return _beside(old, rounded(value, 5), compare), {"": value} | before


def _beside(published: str, here: str, compare: bool) -> str:
    return f"{published or NOTHING} / {here or NOTHING}" if compare else here or NOTHING
