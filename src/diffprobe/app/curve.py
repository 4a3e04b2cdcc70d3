"""The emergence curves of the page as an SVG, which takes the colour of the text around it, light or dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from diffprobe.properties.metrics import metric_named
from diffprobe.report.style import BLUE, GREEN, PURPLE, VERMILION, spread_ticks
from diffprobe.report.wording import direction, is_number, rounded

COLOURS = (BLUE, VERMILION, GREEN, PURPLE)  # of the images, in their order
WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 40, 450, 10, 222  # edges of the panel


@dataclass(frozen=True)
class Curve:
    """The scores of one image, one a step; NaN where there is none."""

    name: str
    scores: Sequence[float]


def curves_html(curves: Sequence[Curve], steps: Sequence[int], metric: str, step: int, current: int = 0) -> str:
    """The curves with a line at a step, and below them each image's score there.

    Args:
        steps, step: from 0; people see them from 1.
        current: the image whose curve is the thick one.
    """
    low, high = _range(curves, metric)
    label = metric_named(metric).label + direction(metric)
    shown = "; ".join(f"{curve.name}: {', '.join(map(_text, curve.scores))}" for curve in curves)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="width:100%;max-width:36rem" fill="currentColor" '
        f'font-size="12" aria-label="{escape(f"{label} at steps {_listed(steps)}. {shown}")}">',
        *_axes(steps, low, high, f"{label} with the label of the finished image"),
    ]
    if steps[0] <= step <= steps[-1]:
        x = _across(step, steps)
        parts.append(f'<path d="M{x:.1f} {TOP}V{BOTTOM}" stroke="currentColor" stroke-dasharray="4 3" opacity="0.7"/>')
    for at, curve in sorted(enumerate(curves), key=lambda item: item[0] == current):  # the current one on top
        parts += _line(curve, steps, COLOURS[at], low, high, 3.0 if at == current else 1.5)
    legend = "".join(
        f'<li><span style="color:{COLOURS[at]}">\N{BLACK SQUARE}</span> {escape(curve.name)}: '
        f"<b>{_text(curve.scores[steps.index(step)]) if step in steps else 'no probe'}</b></li>"
        for at, curve in enumerate(curves)
    )
    return f'{"".join(parts)}</svg><p>At step {step + 1}:</p><ul style="list-style:none;padding:0">{legend}</ul>'


def _text(score: float) -> str:
    return rounded(score) or "no score"


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(str(step + 1) for step in steps)


def _range(curves: Sequence[Curve], metric: str) -> tuple[float, float]:
    """The metric's whole range, of errors from 0 to the largest."""
    scores = [score for curve in curves for score in curve.scores if is_number(score)]
    if metric_named(metric).higher_is_better:
        return min(0.0, *scores, 0.0), 1.0
    return 0.0, max(*scores, 0.0, 1e-6)


def _across(step: int, steps: Sequence[int]) -> float:
    return LEFT + (RIGHT - LEFT) * (step - steps[0] + 0.5) / (steps[-1] - steps[0] + 1)


def _up(score: float, low: float, high: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * (score - low) / (high - low)


def _axes(steps: Sequence[int], low: float, high: float, label: str) -> Iterator[str]:
    yield f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="currentColor" opacity="0.5"/>'
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * (high - low)
        y = _up(value, low, high)
        yield f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="currentColor" opacity="0.15"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{rounded(value)}</text>'
    for step in spread_ticks(steps):
        yield f'<text x="{_across(step, steps):.1f}" y="{BOTTOM + 15}" text-anchor="middle">{step + 1}</text>'
    yield f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">denoising step; {escape(label)}</text>'


def _line(curve: Curve, steps: Sequence[int], colour: str, low: float, high: float, width: float) -> Iterator[str]:
    """Dots, and lines between those of neighbouring steps that have a score."""
    moves, joined = [], False
    for step, score in zip(steps, curve.scores, strict=True):
        if is_number(score):
            x, y = _across(step, steps), _up(score, low, high)
            moves.append(f"{'L' if joined else 'M'}{x:.1f} {y:.1f}")
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width:.1f}" fill="{colour}"/>'
        joined = is_number(score)
    yield f'<path d="{"".join(moves)}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
