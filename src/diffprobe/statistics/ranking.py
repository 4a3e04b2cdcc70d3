"""Which of several means is the best, where some are of fewer images than others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def rank_value(mean: float, n: int, most: int) -> tuple[bool, float]:
    """What a mean over `n` images is ranked by (the larger the better) among others over up to `most` images.

    An image without a score counts as 0, which is what a map that says nothing gets by Dice and by correlation; that
    never makes a mean better. What has no score on half of the images comes behind all that has.
    """
    share = n / most if most else 0.0
    return 2 * n >= most, min(mean, mean * share)


def best_of(items: Iterable[Item], mean: Callable[[Item], float], n: Callable[[Item], int]) -> Item:
    """The item with the best mean by `rank_value`; the first of equals. Raises ValueError without items."""
    found = list(items)
    most = max((n(item) for item in found), default=0)
    return max(found, key=lambda item: rank_value(mean(item), n(item), most))


def well_covered(items: Iterable[Item], n: Callable[[Item], int]) -> list[Item]:
    """The items that are of at least half as many images or objects as the fullest."""
    found = list(items)
    most = max((n(item) for item in found), default=0)
    return [item for item in found if 2 * n(item) >= most]
