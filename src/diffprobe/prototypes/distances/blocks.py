"""A matrix of distances in blocks of rows: one triangle computed, the other mirrored, little memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

HEIGHT = 256  # rows of a block: enough for a fast product, few enough to waste little below the diagonal
CACHE = 2**20  # bytes that stay in a core's cache while several operations pass over them


def runs(size: int, length: int) -> Iterator[slice]:
    """0 ... size in runs of `length` (at least 1)."""
    for start in range(0, size, max(1, length)):
        yield slice(start, min(start + max(1, length), size))


def row_blocks(rows: int, columns: int, height: int, triangle: bool) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each block of at most `height` rows; with `triangle`, columns begin at the diagonal."""
    for block in runs(rows, height):
        yield block, slice(block.start if triangle else 0, columns)


def mirror(matrix: Tensor) -> None:
    """Copies the upper triangle of `matrix` [n, n] onto the lower one and clears the diagonal, in place."""
    for rows in runs(len(matrix), HEIGHT):
        square = matrix[rows, rows].triu(1)
        matrix[rows, rows] = square + square.T
        matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T
