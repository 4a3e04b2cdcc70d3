"""What an analysis of objects leaves in its run folder, prints, and hands to its tracker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffprobe.tables import write_rows

if TYPE_CHECKING:
    import numpy as np

    from diffprobe.doors.prototyping import Task
    from diffprobe.prototypes.collecting import Prototypes
    from diffprobe.prototypes.tables import DriftRow, VanishedRow
    from diffprobe.report.retrieval_grid import RetrievalExample, ShownObject
    from diffprobe.report.tracking import Tracker
    from diffprobe.studies.drift import Changed
    from diffprobe.studies.separation import Nearest, SeparationFindings


@dataclass
class AnalysisFindings:
    """Prototypes of the images as they are and after every change, and what a study made of them."""

    prototypes: Prototypes
    changed: list[Changed]
    separation: SeparationFindings | None = None
    drift: list[DriftRow] = field(default_factory=list)


def leave(task: Task, found: AnalysisFindings, folder: Path, tracker: Tracker) -> None:
    """Writes the run folder, prints the closing tables, hands all to the tracker."""
    from diffprobe.prototypes.saving import save_prototypes
    from diffprobe.report.drift_verdict import drift_lines
    from diffprobe.report.files import write_text
    from diffprobe.report.findings import findings
    from diffprobe.report.page.reproduce import reproduce
    from diffprobe.report.page.separation import separation_page
    from diffprobe.report.page.writing import write_page
    from diffprobe.report.separation_console import print_separation, separation_text
    from diffprobe.report.separation_curves import separation_scalars
    from diffprobe.report.separation_folder import draw_separation_figures, write_separation_tables
    from diffprobe.report.separation_verdict import separation_lines

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
    from diffprobe.data.object_images import Problem
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
    from diffprobe.report.retrieval_grid import RetrievalExample

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
    from diffprobe.report.retrieval_grid import ShownObject

    images = task.images
    places = [(row, at) for row in range(len(images)) for at in range(len(images.objects(row)))]
    row, at = places[int(place)]
    picture = images.picture(row, task.backbone.image_size).permute(1, 2, 0).numpy()
    return ShownObject(picture, images.masks(row)[at].numpy(), images.objects(row)[at].label)
