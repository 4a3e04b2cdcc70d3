"""Scores by name: what they are called, their range, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from numpy import inf


@dataclass(frozen=True)
class Metric:
    """A score of one image.

    Attributes:
        name: in tables; of a class of a categorical property, '<name> <class>'.
        label: in sentences and figures.
        low, high: no value and no interval is beyond them.
        higher_is_better: False for errors.
        easy: a map that sees no image and is better than this shows that labels are nearly the same in every image.
    """

    name: str
    label: str
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    easy: float = 0.95

    @property
    def sign(self) -> int:
        """By which a difference is multiplied to be positive where it is an improvement."""
        return 1 if self.higher_is_better else -1


METRICS = {
    metric.name: metric
    for metric in (
        # Of masks
        Metric("dice", "Dice"),
        Metric("dice_background", "Dice of the background"),
        # Of quantities; errors are in standard deviations of the training labels
        Metric("spearman", "rank correlation", low=-1.0),
        Metric("pearson", "Pearson correlation", low=-1.0),
        # An RMSE of 0.3 standard deviations explains 91 % of the variance
        Metric("rmse", "RMSE", high=inf, higher_is_better=False, easy=0.3),
        # Of depth
        Metric("ssi_error", "scale- and shift-invariant error", high=inf, higher_is_better=False),
        Metric("abs_rel", "absolute relative error", high=inf, higher_is_better=False),
        Metric("delta1", "share with a ratio below 1.25"),
        # Of classes
        Metric("mean_iou", "mean IoU"),
        Metric("accuracy", "pixel accuracy"),
        Metric("overlap", "overlap"),
        Metric("union", "union"),
        # Of vectors
        Metric("mean_angle", "mean angular error (°)", high=180.0, higher_is_better=False, easy=5.0),
        Metric("median_angle", "median angular error (°)", high=180.0, higher_is_better=False),
        Metric("within_11.25", "share within 11.25°"),
        Metric("within_22.5", "share within 22.5°"),
        Metric("within_30", "share within 30°"),
        # Of classifiers
        Metric("confidence", "confidence"),
        Metric("top1", "right class first"),
        Metric("top5", "right class among the first five"),
        Metric("same_class", "share of the same class"),
        # Of pictures
        Metric("psnr", "PSNR (dB)", high=inf),
        Metric("ssim", "SSIM", low=-1.0),
        Metric("lpips", "LPIPS", high=inf, higher_is_better=False),
    )
}
_HEADLINES = ("dice", "spearman", "mean_iou", "mean_angle", "rmse", "top1")  # one of each kind of property


def metric_named(name: str) -> Metric:
    """The metric called `name`; of a class by its first word; an unknown one without a range, higher is better."""
    if name in METRICS:
        return METRICS[name]
    first, _, of = name.partition(" ")
    if of and first in METRICS:
        return replace(METRICS[first], name=name, label=f"{METRICS[first].label} of {of}")
    return Metric(name, name, low=-inf, high=inf)


def headline_of(metrics: Iterable[str]) -> str:
    """The metric that layers are chosen by, among those (one at least) that a property has scores of."""
    found = list(metrics)
    return next((name for name in _HEADLINES if name in found), found[0])
