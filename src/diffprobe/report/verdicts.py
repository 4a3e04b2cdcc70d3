"""What a score or a difference shows, by its interval and its adjusted p together, and both as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffprobe.report.choices import or_nan
from diffprobe.report.numbers import interval
from diffprobe.statistics import SIGNIFICANT, images_needed

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import Comparison
    from diffprobe.probes.summaries import Summary


def interval_text(row: Summary | None) -> str:
    """'0.86 [0.83, 0.89]'; 'no score' where there is none, '0.86' where it has no interval."""
    return (interval(row.mean, row.low, row.high) if row is not None else "") or "no score"


def difference_text(row: Comparison | None, sign: int = 1) -> str:
    """'0.07 [0.03, 0.11]', of the negative difference if `sign` is -1; '0.07' without an interval, '' where there is
    none."""
    if row is None or row.difference is None:
        return ""
    if row.low is None or row.high is None:
        return interval(sign * row.difference, None, None)
    low, high = sorted((sign * row.low, sign * row.high))
    return interval(sign * row.difference, low, high)


def significant(row: Comparison | None) -> int:
    """1: the first is higher, -1: it is lower, 0: neither is shown; by interval and adjusted p together."""
    if row is None or row.low is None or row.high is None or or_nan(row.p_holm) > SIGNIFICANT:
        return 0
    return 1 if row.low > 0 else -1 if row.high < 0 else 0


def too_few(row: Comparison | None, comparisons: int) -> int:
    """How many images it would take to show any of so many differences, if the row has fewer; else 0."""
    needed = images_needed(comparisons)
    return needed if row is not None and row.n < needed else 0


def images_text(n: int) -> str:
    """'1 image', '3 images'."""
    return f"{n} image" if n == 1 else f"{n} images"
