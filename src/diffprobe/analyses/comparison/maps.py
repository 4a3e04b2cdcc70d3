"""Heat maps of finished runs side by side, with paired differences of every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from diffprobe.analyses.comparison.runs import (
    STATISTICS,
    FinishedRun,
    RunScore,
    by_score,
    labels_of,
    run_labels,
    scores_of,
)
from diffprobe.backbone.layers import network_order
from diffprobe.files import NO_STEP
from diffprobe.probes.comparisons import ScoreDifference, ScoreKey, compare
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import summary_rows
from diffprobe.report.report import Cell, HeatMap, SideBySide
from diffprobe.report.wording import images_text, interval, is_number

MANY = 6  # more differences of one score are only counted, and those of cells are left out
FAMILY = "cell"
ALONE = (
    "The interval of a difference is of its cell alone: of many cells some differ by chance, and the verdict above "
    "adjusts for what it compares."
)

Place = tuple[str, int]


def side_by_side(runs: Sequence[FinishedRun], headlines: Sequence[RunScore], *, seed: int = 0) -> list[SideBySide]:
    """The maps of every score that at least two rows of the headlines are of.

    Args:
        seed: of the random flips of the differences.
    """
    by_name = {run.name: run for run in runs}
    views = []
    for (what, metric), rows in by_score(headlines).items():
        cells = [_cells(by_name[row.run], row) for row in rows]
        kept = [place for place, own in enumerate(cells) if own]
        if len(kept) < 2:
            continue
        rows, cells = [rows[place] for place in kept], [cells[place] for place in kept]
        names = labels_of(rows)
        notes = _notes(runs, rows, cells, names, seed)
        maps = [HeatMap(name, metric, own) for name, own in zip(names, cells, strict=True)]
        views.append(SideBySide(what, maps, notes, ALONE if notes else ""))
    return views


def _cells(run: FinishedRun, row: RunScore) -> dict[Place, Cell]:
    """Of every layer, in the network's order, and step the score that this headline is one of."""
    found = _of_objects(run, row) if row.metric in STATISTICS.values() else _of_probes(run, row)
    order = network_order(layer for layer, _ in found)
    return {place: found[place] for place in sorted(found, key=lambda place: (order.index(place[0]), place[1]))}


def _of_probes(run: FinishedRun, row: RunScore) -> dict[Place, Cell]:
    assert run.summaries is not None
    own = select(run.summaries, control="none", split="test", property=row.what, metric=row.metric)
    rows = summary_rows(select(own, model=row.model, probe=row.probe))
    return {(each.layer, each.step): Cell(each.mean, each.low, each.high, each.n) for each in rows}


def _of_objects(run: FinishedRun, row: RunScore) -> dict[Place, Cell]:
    assert run.tests is not None
    names = {name: key for key, name in STATISTICS.items()}
    wanted = dict(zip(("statistic", "set_a", "set_b"), names[row.metric], strict=True))
    measure = row.what.removeprefix("objects (").removesuffix(")")
    rows = select(run.tests, model=row.model, measure=measure, **wanted)
    columns = rows[["layer", "step", "value", "low", "high"]].astype({"step": "Int64"})
    return {
        (layer, NO_STEP if step != step else int(step)): _cell(*numbers)
        for layer, step, *numbers in columns.itertuples(index=False)
    }


def _cell(*numbers: float) -> Cell:
    value, low, high = (number if is_number(number) else None for number in numbers)
    return Cell(value, low, high)


def _notes(
    runs: Sequence[FinishedRun],
    rows: Sequence[RunScore],
    cells: Sequence[Mapping[Place, Cell]],
    names: Sequence[str],
    seed: int,
) -> dict[Place, list[str]]:
    """The differences of every two runs at every place that both have, paired by image; none of objects, which have no
    scores image by image, and none of more than `MANY` pairs."""
    labels = run_labels(runs)
    scored = [at for at, row in enumerate(rows) if row.probe and (row.run, row.model) in labels]
    couples = list(combinations(scored, 2))
    places = [(one, other, place) for one, other in couples for place in cells[one] if place in cells[other]]
    if not places or len(couples) > MANY:
        return {}

    def key(at: int, place: Place) -> ScoreKey:
        return ScoreKey(labels[rows[at].run, rows[at].model], *place, rows[at].probe)

    what, metric = rows[0].what, rows[0].metric
    pairs = [(key(one, place), key(other, place)) for one, other, place in places]
    scores = scores_of(runs, {place[0] for *_, place in places}, property=what, metric=metric, control="none")
    found = compare(scores, pairs, property=what, metric=metric, family=FAMILY, seed=seed)
    notes: dict[Place, list[str]] = {}
    for (one, other, place), row in zip(places, found, strict=True):
        notes.setdefault(place, []).append(_difference_text(row, names[one], names[other]))
    return notes


def _difference_text(row: ScoreDifference, one: str, other: str) -> str:
    if row.n == 0:
        return f"{one} and {other} have no test images in common, so no difference is paired."
    difference = interval(row.difference, row.low, row.high, 3)
    return f"{one} less {other}, on the {images_text(row.n)} in common: {difference}."
