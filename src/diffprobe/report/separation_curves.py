"""Scalars of an analysis over denoising steps, as trackers draw and compare them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffprobe.prototypes.sets import SETS
from diffprobe.report.choices import number
from diffprobe.report.findings import Finding
from diffprobe.report.results import STEP
from diffprobe.tables import NO_STEP

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
