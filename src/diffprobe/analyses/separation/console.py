"""The closing table of an analysis of separation, for a terminal of 100 columns.

Scalars of an analysis over denoising steps, as trackers draw and compare them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffprobe.analyses.separation.findings import Finding, grouped_findings, separation_lines
from diffprobe.prototypes.sets import SETS
from diffprobe.report.choices import number
from diffprobe.report.names import short_names
from diffprobe.report.numbers import interval, p_text, rounded, there
from diffprobe.report.results import STEP
from diffprobe.tables import NO_STEP
from diffprobe.terminal import plain_console

if TYPE_CHECKING:
    from diffprobe.prototypes.tables import ObjectRow, TestRow


WIDTH = 100
CAPTION = """\
Means of the four sets. order: whether scsi < scdi < dcsi < dcdi by means, and p of the
hypothesis that it does not. AUC: chance that a pair of scdi is nearer than one of dcdi, 95 % interval over images.
p: block permutation over images. *: adjusted after Holm. mAP, 1-NN: objects of the same class among
those of other images."""


def print_separation(
    found: Sequence[Finding],
    objects: Sequence[ObjectRow] = (),
    vanished: Mapping[tuple[int, int], Sequence[str]] | None = None,
    console: Console | None = None,
) -> None:
    """Prints a table for each model and measure and, below them, the sentences of `separation_lines`."""
    console = console or plain_console()
    for group, members in grouped_findings(found).items():
        console.print(separation_table(members, group))
    console.print(Text(f"{CAPTION}\n"))
    for line in separation_lines(found, objects, vanished):
        console.print(Text(f"- {line}"))


def separation_text(
    found: Sequence[Finding],
    objects: Sequence[ObjectRow] = (),
    vanished: Mapping[tuple[int, int], Sequence[str]] | None = None,
) -> str:
    """What `print_separation` prints, as plain text of 100 columns, for a file."""
    console = plain_console(file=StringIO(), width=WIDTH, color_system=None)
    print_separation(found, objects, vanished, console)
    return console.file.getvalue()  # type: ignore[union-attr]


def separation_table(found: Sequence[Finding], group: str = "") -> Table:
    """One line a layer and step, of one model and measure, which `group` names where there are others."""
    title = "Distances of object prototypes"
    table = Table(
        title=Text(f"{group}: {title}" if group else title),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    short = short_names(item.layer for item in found)
    table.add_column("layer", overflow="fold")
    for heading in ("step", *SETS, "order", "AUC", "p", "mAP", "1-NN"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in found:
        # Text, since rich would take square brackets in plain strings for markup
        table.add_row(*(Text(cell) for cell in (short[item.layer], *_cells(item))))
    return table


def _cells(item: Finding) -> list[str]:
    auc = item.test("auc", "scdi", "dcdi")
    test = item.test("permutation_between_images", "scdi", "dcdi")
    return [
        "" if item.step == NO_STEP else str(item.step + 1),
        *(rounded(item.mean(name)) or "empty" for name in SETS),
        _order(item),
        interval(auc.value, auc.low, auc.high) if auc else "",
        (f"{p_text(test.p_holm)}*" if there(test.p_holm) else p_text(test.p)) if test else "",
        _value(item.test("mean_average_precision")),
        _value(item.test("knn_accuracy")),
    ]


def _order(item: Finding) -> str:
    if item.in_order is None:
        return ""
    if not item.in_order:
        return "no"
    return f"yes {p_text(item.order_p)}*" if there(item.order_p) else "yes"


def _value(row: TestRow | None) -> str:
    return rounded(row.value) if row else ""


SCALARS = {  # name -> statistic, pair of sets
    "auc": ("auc", "scdi", "dcdi"),
    "knn_accuracy": ("knn_accuracy", "", ""),
    "mean_average_precision": ("mean_average_precision", "", ""),
    "silhouette": ("silhouette", "", ""),
    "order_holds": ("order_holds", "", ""),
}


def separation_scalars(found: Sequence[Finding]) -> list[dict[str, float]]:
    """One row a step: 'denoising_step' (from 1) and '<measure>/<layer>/<what>' with its '_low' and '_high'; of several
    models '<model>/<measure>/...'. <what> is a set (its mean) or one of SCALARS; what is not defined has no key."""
    models = {item.model for item in found}
    rows: dict[int, dict[str, float]] = {}
    for item in found:
        row = rows.setdefault(item.step, {} if item.step == NO_STEP else {STEP: item.step + 1})
        start = "/".join([*[item.model] * (len(models) > 1), item.measure, item.layer])
        means = {name: (of_set.mean, of_set.low, of_set.high) for name, of_set in item.sets.items() if name in SETS}
        tests = {name: test for name, key in SCALARS.items() if (test := item.test(*key))}
        for name, (mean, low, high) in (means | {name: (t.value, t.low, t.high) for name, t in tests.items()}).items():
            values = {f"{start}/{name}": mean, f"{start}/{name}_low": low, f"{start}/{name}_high": high}
            row.update({key: number(value) for key, value in values.items() if math.isfinite(number(value))})
    return [rows[step] for step in sorted(rows)]
