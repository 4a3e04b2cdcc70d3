"""Numbers as text, and what a score or a difference shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeGuard

from diffprobe.files import NO_STEP, Step
from diffprobe.properties.metrics import metric_named
from diffprobe.report.choices import or_nan
from diffprobe.statistics.differences import images_needed
from diffprobe.statistics.intervals import SIGNIFICANT

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import ScoreDifference
    from diffprobe.probes.summaries import Summary

SMALL = -300.0  # log10 p from here on is written from the logarithm, since p itself loses digits or is 0


def place_name(layer: str, step: Step) -> str:
    """'encoder16, step 3'; steps count from 1. The layer alone where there is no step."""
    return layer if step == NO_STEP else f"{layer}, step {step + 1}"


def interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """'0.86 [0.83, 0.89]', '0.86' without an interval, '' without a value."""
    if not (is_number(low) and is_number(high)):
        return rounded(value, digits)
    return f"{rounded(value, digits)} [{rounded(low, digits)}, {rounded(high, digits)}]" if is_number(value) else ""


def rounded(value: float | None, digits: int = 2) -> str:
    """Fixed decimals, no minus before a zero; '' without a value."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if is_number(value) else ""


def p_text(p: float | None, log10_p: float | None = None) -> str:
    """Two digits of p: '0.00029', '1.5e-31', and '3.1e-436' from its logarithm where p underflows; '' without p."""
    if is_number(log10_p) and log10_p < SMALL:
        exponent = math.floor(log10_p)
        mantissa = round(10 ** (log10_p - exponent), 1)
        return f"1.0e{exponent + 1}" if mantissa >= 10 else f"{mantissa:.1f}e{exponent}"
    return short_power(f"{p:.2g}") if is_number(p) else ""


def short_power(text: str) -> str:
    """'1e-05' as '1e-5'."""
    number, sign, exponent = text.partition("e")
    return f"{number}e{int(exponent)}" if sign else text


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether it is a number: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def steps_text(step: int | None, low: int | None, high: int | None, missing: str = "later") -> str:
    """'4 [3, 5]': a step and its interval, counted from 1; '4' where there is no `low`.

    Args:
        step, low, high: from 0; None or NO_STEP where there is none.
        missing: what is written for these.
    """
    point, *ends = (missing if value in (None, NO_STEP) else str(value + 1) for value in (step, low, high))
    return point if low in (None, NO_STEP) else f"{point} [{', '.join(ends)}]"


def interval_text(row: Summary | None) -> str:
    """'0.86 [0.83, 0.89]'; 'no score' where there is none, '0.86' where it has no interval."""
    return (interval(row.mean, row.low, row.high) if row is not None else "") or "no score"


def difference_text(row: ScoreDifference | None, sign: int = 1) -> str:
    """'0.07 [0.03, 0.11]', of the negative difference if `sign` is -1; '0.07' without an interval, '' where there is
    none."""
    if row is None or row.difference is None:
        return ""
    if row.low is None or row.high is None:
        return interval(sign * row.difference, None, None)
    low, high = sorted((sign * row.low, sign * row.high))
    return interval(sign * row.difference, low, high)


def direction(metric: str) -> str:
    """' (lower is better)' of an error, '' of a score."""
    return "" if metric_named(metric).higher_is_better else " (lower is better)"


def significant(row: ScoreDifference | None) -> int:
    """1: the first is higher, -1: it is lower, 0: neither is shown; by interval and adjusted p together."""
    if row is None or row.low is None or row.high is None or or_nan(row.p_holm) > SIGNIFICANT:
        return 0
    return 1 if row.low > 0 else -1 if row.high < 0 else 0


def too_few(row: ScoreDifference | None, comparisons: int) -> int:
    """How many images it would take to show any of so many differences, if the row has fewer; else 0."""
    needed = images_needed(comparisons)
    return needed if row is not None and row.n < needed else 0


def images_text(n: int) -> str:
    """'1 image', '3 images'."""
    return f"{n} image" if n == 1 else f"{n} images"
