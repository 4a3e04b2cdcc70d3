"""What an analysis of objects leaves in its run folder, prints, and hands to its tracker.

The page of an analysis of objects: the four sets, and how far objects drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffprobe.analyses.separation.findings import Finding, grouped_findings
from diffprobe.report.html.asked import asked
from diffprobe.report.numbers import interval, p_text, there
from diffprobe.report.page.page import Cell, HeatMap, Page, captioned
from diffprobe.tables import write_rows

if TYPE_CHECKING:
    import numpy as np

    from diffprobe.analyses.drift.drift import Changed
    from diffprobe.analyses.separation.analysis import Task
    from diffprobe.analyses.separation.retrieval_grid import RetrievalExample, ShownObject
    from diffprobe.analyses.separation.separation import Nearest, SeparationFindings
    from diffprobe.prototypes.collecting import Prototypes
    from diffprobe.prototypes.tables import DriftRow, VanishedRow
    from diffprobe.report.tracking import Tracker


TOPICS = ("analysis", "model", "objects", "layers", "steps", "measure", "seed")


def separation_page(
    config: Mapping[str, Any],
    found: Sequence[Finding],
    tables: Mapping[str, Sequence[Any]],
    verdict: Sequence[str],
    figures: Mapping[str, Path],
) -> Page:
    """All but how to reproduce it; `found` is empty for analyses of drift."""
    kind, model = config["analysis"]["kind"], config["model"]["path"]
    groups = grouped_findings(found).items()
    heat_maps = [_heat_map(members, group) for group, members in groups]
    return Page(
        title=f"Objects in {model}: {kind}",
        asked=asked(config, TOPICS),
        verdict=verdict,
        tables={name: rows for name, rows in tables.items() if rows},
        figures=captioned(figures),
        heat_maps=[heat for heat in heat_maps if heat.cells],
    )


def _heat_map(found: Sequence[Finding], group: str) -> HeatMap:
    """AUC of scdi < dcdi; a cell opens the means of the sets and the tests at its layer and step."""
    cells = {}
    for item in found:
        row = item.test("auc", "scdi", "dcdi")
        if row is not None:
            cells[item.layer, item.step] = Cell(row.value, row.low, row.high, None, _notes(item))
    title = "Same class against different classes, in different images"
    return HeatMap(f"{title} ({group})" if group else title, "AUC of scdi < dcdi", cells)


def _notes(item: Finding) -> list[str]:
    means = [f"{name} {interval(row.mean, row.low, row.high, 3)}" for name, row in item.sets.items() if there(row.mean)]
    notes = [f"Means of the sets: {', '.join(means)}."]
    if item.in_order is not None:
        notes.append(f"By means the four sets are {'in order' if item.in_order else 'not in order'}.")
    test = item.test("permutation_between_images", "scdi", "dcdi")
    return notes + ([f"Block permutation p = {p_text(test.p, test.log10_p)}."] if test is not None else [])


@dataclass
class AnalysisFindings:
    """Prototypes of the images as they are and after every change, and what a study made of them."""

    prototypes: Prototypes
    changed: list[Changed]
    separation: SeparationFindings | None = None
    drift: list[DriftRow] = field(default_factory=list)


def leave(task: Task, found: AnalysisFindings, folder: Path, tracker: Tracker) -> None:
    """Writes the run folder, prints the closing tables, hands all to the tracker."""
    from diffprobe.analyses.drift.findings import drift_lines
    from diffprobe.analyses.separation.console import print_separation, separation_scalars, separation_text
    from diffprobe.analyses.separation.figures import draw_separation_figures, write_separation_tables
    from diffprobe.analyses.separation.findings import findings, separation_lines
    from diffprobe.prototypes.collecting import save_prototypes
    from diffprobe.report.page.writing import write_page
    from diffprobe.runs.environment import reproduce
    from diffprobe.writing import write_text

    separation, prototypes = found.separation, found.prototypes
    tables = _tables(task, found)
    files = [folder / f"{name}.csv" for name in tables]
    for path, (kind, rows) in zip(files, tables.values(), strict=True):
        write_rows(path, kind, rows)
    kept = save_prototypes(prototypes, folder / "prototypes")
    judged = findings(separation.sets, separation.tests) if separation else []
    if separation:
        published = _is_that_of_the_paper(task.backbone.denoiser)
        written = write_separation_tables(folder / "tables", judged, task.images.kind, published)
        files += [path for paths in written.values() for path in paths.values()]
    examples = _examples(task, separation.nearest) if separation and separation.nearest else []
    figures = draw_separation_figures(
        folder / "figures",
        judged,
        separation.histograms if separation else (),
        found.drift,
        examples,
        [group.layer for group in task.inputs],
    )
    lines = drift_lines(found.drift)
    text = separation_text(judged, prototypes.objects, prototypes.vanished) if separation else ""
    write_text(folder / "report.txt", text + "".join(f"- {line}\n" for line in lines))
    rows = {name: rows for name, (_, rows) in tables.items()}
    verdict = [*separation_lines(judged, prototypes.objects, prototypes.vanished), *lines] if separation else lines
    config: Any = OmegaConf.to_container(task.settings, resolve=True)
    page = separation_page(config, judged, rows, verdict, figures)
    write_page(folder, replace(page, reproduce=reproduce(folder, {"seed": task.settings.seed})))
    tracker.log_tables(rows, figures, {"tables": files, "prototypes": kept}, separation_scalars(judged))
    if separation:
        print_separation(judged, prototypes.objects, prototypes.vanished, task.console)
    for line in lines:
        task.console.print(f"- {line}", soft_wrap=True, markup=False, highlight=False)
    task.tell(tracker.describe())


def _is_that_of_the_paper(denoiser: Any) -> bool:
    """Whether the network is of Stable Diffusion 1, whatever its weights are called."""
    config = denoiser.config
    widths = tuple(config.get("block_out_channels") or ())
    return (widths, config.get("cross_attention_dim")) == ((320, 640, 1280, 1280), 768)


def _tables(task: Task, found: AnalysisFindings) -> dict[str, tuple[type, Sequence[Any]]]:
    """The tables that there are, by name: their class of rows, and the rows."""
    from diffprobe.data.objects import Problem
    from diffprobe.prototypes.tables import DriftRow, ObjectRow, SetRow, TestRow, VanishedRow

    tables: dict[str, tuple[type, Sequence[Any]]] = {
        "objects": (ObjectRow, found.prototypes.objects),
        "vanished": (VanishedRow, list(_vanished(found))),
        "problems": (Problem, task.problems),
    }
    if found.separation:
        tables |= {"sets": (SetRow, found.separation.sets), "tests": (TestRow, found.separation.tests)}
    if found.drift:
        tables["drift"] = (DriftRow, found.drift)
    return tables


def _vanished(found: AnalysisFindings) -> Iterator[VanishedRow]:
    from diffprobe.prototypes.tables import VanishedRow

    for (height, width), names in found.prototypes.vanished.items():
        yield from (VanishedRow(name, height, width, "", None) for name in names)
    for each in found.changed:
        for (height, width), names in each.prototypes.vanished.items():
            yield from (VanishedRow(name, height, width, each.change, each.strength) for name in names)


def _examples(task: Task, nearest: Nearest) -> list[RetrievalExample]:
    """Some objects, spread evenly over all, with those that are nearest to them."""
    from diffprobe.analyses.separation.retrieval_grid import RetrievalExample

    queries = len(nearest.objects)
    wanted = min(task.settings.report.examples, queries)
    chosen = [place * queries // wanted for place in range(wanted)]
    return [
        RetrievalExample(
            _shown(task, nearest.objects[place]),
            tuple(_shown(task, one) for one in nearest.neighbours[place]),
            tuple(float(value) for value in nearest.distances[place]),
        )
        for place in chosen
    ]


def _shown(task: Task, place: np.integer) -> ShownObject:
    """An object of all, in its picture."""
    from diffprobe.analyses.separation.retrieval_grid import ShownObject

    images = task.images
    places = [(row, at) for row in range(len(images)) for at in range(len(images.objects(row)))]
    row, at = places[int(place)]
    picture = images.picture(row, task.backbone.image_size).permute(1, 2, 0).numpy()
    return ShownObject(picture, images.masks(row)[at].numpy(), images.objects(row)[at].label)
