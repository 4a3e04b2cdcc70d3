"""Manhattan distance: sums of absolute differences, for which no matrix product stands in."""

from __future__ import annotations

import torch
from torch import Tensor

from diffprobe.prototypes.distances.blocks import CACHE, row_blocks, runs


def manhattan(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """sum |x - y|: [n, m]. Differences are taken in the wider of the prototypes' and the result's precision."""
    wide = torch.promote_types(a.dtype, precision)
    first = a.to(wide)
    if b is None and len(a) ** 2 // 2 * wide.itemsize <= budget:
        return from_condensed(torch.nn.functional.pdist(first, p=1), len(a)).to(precision)
    return in_blocks(first, None if b is None else b.to(wide), precision, budget)


def from_condensed(distances: Tensor, size: int) -> Tensor:
    """Distances of pairs a < b in pdist's order as the upper triangle of [size, size]."""
    result = distances.new_zeros(size, size)
    for row, values in enumerate(distances.split(list(range(size - 1, 0, -1)))):
        result[row, row + 1 :] = values
    return result


def in_blocks(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """Blocks of pairs [k, l, d] small enough for the cache (on a GPU: for the budget)."""
    others = a if b is None else b
    result = a.new_zeros(len(a), len(others), dtype=precision)
    pairs = max(1, (budget if a.is_cuda else min(budget, CACHE)) // (a.itemsize * a.shape[1]))
    height = max(1, min(int(pairs**0.5), len(a)))
    for rows, columns in row_blocks(len(a), len(others), height, triangle=b is None):
        for part in runs(columns.stop - columns.start, pairs // height):
            there = slice(columns.start + part.start, columns.start + part.stop)
            result[rows, there] = (a[rows, None] - others[None, there]).abs_().sum(2)
    return result
