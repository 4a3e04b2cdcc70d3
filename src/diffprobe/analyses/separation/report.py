"""What is reported of the distances between objects: the four sets, whether they are apart, and what is nearest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from diffprobe.analyses.objects import TOPICS, object_tables
from diffprobe.analyses.separation.figures import RetrievalExample, ShownObject, separation_figures
from diffprobe.analyses.separation.findings import (
    SeparationCell,
    grouped_separation_cells,
    separation_cells,
    separation_lines,
)
from diffprobe.analyses.separation.tables import separation_tables
from diffprobe.prototypes.collecting import Prototypes, save_prototypes
from diffprobe.prototypes.separation import SetRow, TestRow
from diffprobe.prototypes.sets import SETS
from diffprobe.report.report import Cell, HeatMap, Report, Table, scalars_over_steps
from diffprobe.report.wording import interval, is_number, p_text

if TYPE_CHECKING:
    from diffprobe.analyses.separation.tables import NearestObjects, SeparationResults
    from diffprobe.backbone.layers import Layer
    from diffprobe.data.objects import ObjectImages, Problem

SCALARS = {  # name -> statistic, pair of sets
    "auc": ("auc", "scdi", "dcdi"),
    "knn_accuracy": ("knn_accuracy", "", ""),
    "mean_average_precision": ("mean_average_precision", "", ""),
    "silhouette": ("silhouette", "", ""),
    "order_holds": ("order_holds", "", ""),
}


def report(
    title: str,
    results: SeparationResults,
    prototypes: Prototypes,
    problems: Sequence[Problem] = (),
    *,
    dataset: str,
    published: bool = False,
    examples: Sequence[RetrievalExample] = (),
    layers: Sequence[Layer] = (),
) -> Report:
    """The four sets at every layer and step.

    Args:
        problems: what was left out of the images.
        dataset, published: as for `separation_tables`.
        examples: objects with those that are nearest to them.
        layers: give the heat maps their order and resolutions.
    """
    found = separation_cells(results.sets, results.tests)
    heatmaps = [_heat_map(members, group) for group, members in grouped_separation_cells(found).items()]
    return Report(
        title=title,
        findings=separation_lines(found, prototypes.objects, prototypes.vanished),
        topics=TOPICS,
        tables={
            **object_tables(prototypes, problems),
            "sets": Table.of(SetRow, results.sets),
            "tests": Table.of(TestRow, results.tests),
            **separation_tables(found, dataset, published),
        },
        figures=separation_figures(found, results.histograms, examples, layers),
        heatmaps=[heat for heat in heatmaps if heat.cells],
        scalars=scalars_over_steps(_points(found)),
        artifacts={"prototypes": partial(save_prototypes, prototypes)},
    )


def is_stable_diffusion_1(denoiser: Any) -> bool:
    """Whether the network is the papers', whatever its weights are called."""
    config = denoiser.config
    widths = tuple(config.get("block_out_channels") or ())
    return (widths, config.get("cross_attention_dim")) == ((320, 640, 1280, 1280), 768)


def retrieval_examples(nearest: NearestObjects, images: ObjectImages, size: int, count: int) -> list[RetrievalExample]:
    """`count` objects, spread evenly over all, with those that are nearest to them; pictures of `size` pixels."""
    places = [(row, at) for row in range(len(images)) for at in range(len(images.objects(row)))]

    def shown(place: int) -> ShownObject:
        row, at = places[place]
        picture = images.picture(row, size).permute(1, 2, 0).numpy()
        return ShownObject(picture, images.masks(row)[at].numpy(), images.objects(row)[at].label)

    queries = len(nearest.objects)
    count = min(count, queries)
    chosen = [place * queries // count for place in range(count)]
    return [
        RetrievalExample(
            shown(int(nearest.objects[place])),
            tuple(shown(int(one)) for one in nearest.neighbours[place]),
            tuple(float(value) for value in nearest.distances[place]),
        )
        for place in chosen
    ]


def _points(found: Sequence[SeparationCell]) -> Iterator[tuple[int, str, float | None, float | None, float | None]]:
    """Of '<measure>/<layer>/<what>', of several models '<model>/<measure>/...'; <what> is a set or one of SCALARS."""
    models = {item.model for item in found}
    for item in found:
        start = "/".join([*[item.model] * (len(models) > 1), item.measure, item.layer])
        for name in (name for name in SETS if name in item.sets):
            row = item.sets[name]
            yield item.step, f"{start}/{name}", row.mean, row.low, row.high
        for name, key in SCALARS.items():
            test = item.test(*key)
            if test is not None:
                yield item.step, f"{start}/{name}", test.value, test.low, test.high


def _heat_map(found: Sequence[SeparationCell], group: str) -> HeatMap:
    """AUC of scdi < dcdi; a cell opens the means of the sets and the tests at its layer and step."""
    cells = {}
    for item in found:
        row = item.test("auc", "scdi", "dcdi")
        if row is not None:
            cells[item.layer, item.step] = Cell(row.value, row.low, row.high, None, _notes(item))
    title = "Same class against different classes, in different images"
    return HeatMap(f"{title} ({group})" if group else title, "AUC of scdi < dcdi", cells)


def _notes(item: SeparationCell) -> list[str]:
    means = [
        f"{name} {interval(row.mean, row.low, row.high, 3)}" for name, row in item.sets.items() if is_number(row.mean)
    ]
    notes = [f"Means of the sets: {', '.join(means)}."]
    if item.in_order is not None:
        notes.append(f"By means the four sets are {'in order' if item.in_order else 'not in order'}.")
    test = item.test("permutation_between_images", "scdi", "dcdi")
    return notes + ([f"Block permutation p = {p_text(test.p, test.log10_p)}."] if test is not None else [])
