"""Distances of all pairs from matrix products, in blocks, so that little memory is used at a time.

Without a second set of vectors only the upper triangle is computed; `mirror` fills the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

HEIGHT = 256  # rows of a block: enough for a fast product, few enough to waste little below the diagonal
CACHE = 2**20  # bytes that stay in a core's cache while several operations pass over them
LONGEST = 4096  # values of a tile: enough for a fast product, few enough to waste little along A's diagonal
ZERO = 1e-12  # share of the uncentred distances' square below which centring has left nothing but rounding
NEAR = 2**20  # times eps: below this share of |x|^2 + |y|^2 a squared distance is computed again
CENTRED_ON = 64  # about as many objects give the centre; any point near them serves

Points = Callable[[Tensor], Tensor]  # prototypes [k, d] in float64 -> points [k, d] whose distances are wanted


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


def euclidean(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """|x - y|: [n, m]."""
    return squared_distances(a, b, lambda vectors: vectors, precision, budget).sqrt_()


def cosine(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - x.y / (|x| |y|): [n, m] from 0 to 2; 1 where x or y is zero (as scikit-learn has it; scipy: NaN)."""
    return _unit_distances(a, b, _units, lambda vectors: (vectors == 0).all(1), precision, budget)


def pearson(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - Pearson correlation over channels (D_corr): [n, m] from 0 to 2; 1 where x or y is constant (scipy: NaN)."""

    def points(vectors: Tensor) -> Tensor:
        return _units(vectors - vectors.mean(1, keepdim=True))

    return _unit_distances(a, b, points, lambda vectors: vectors.amax(1) == vectors.amin(1), precision, budget)


def _unit_distances(
    a: Tensor, b: Tensor | None, points: Points, undefined: Points, precision: torch.dtype, budget: int
) -> Tensor:
    """1 - u.v = |u - v|^2 / 2 of unit points; 1 for the vectors that `undefined` finds."""
    distances = squared_distances(a, b, points, precision, budget).mul_(0.5).clamp_(max=2)
    rows = undefined(a)
    distances[rows] = 1
    distances[:, rows if b is None else undefined(b)] = 1
    return distances


def _units(vectors: Tensor) -> Tensor:
    """Vectors [k, d] divided by their lengths; a zero vector stays zero."""
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / lengths.masked_fill_(lengths == 0, 1)


def squared_distances(a: Tensor, b: Tensor | None, points: Points, precision: torch.dtype, budget: int) -> Tensor:
    """Squared Euclidean distances of the points of a [n, d] and of b [m, d]: [n, m].

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y loses all its digits where x and y are close, so points are centred first, which
    removes offsets, and near pairs are computed again from their differences, in float64.
    """
    others = a if b is None else b
    centre = points(a[:: len(a) // CENTRED_ON + 1].double()).median(0).values  # the median: outliers do not move it
    left, left_squares = _centred(a, points, centre, precision)
    right, right_squares = (left, left_squares) if b is None else _centred(b, points, centre, precision)
    share = NEAR * torch.finfo(precision).eps
    result = a.new_zeros(len(a), len(others), dtype=precision)
    height = min(HEIGHT, budget // (32 * len(others)))  # bytes of an entry, if its pair is near
    for rows, columns in row_blocks(len(a), len(others), height, triangle=b is None):
        total = left_squares[rows, None] + right_squares[columns]
        block = torch.addmm(total, left[rows], right[columns].T, alpha=-2, out=result[rows, columns])
        near = (block < total.mul_(share)).nonzero()
        for part in runs(len(near), min(budget, 4 * CACHE) // (32 * a.shape[1])):
            i, j = near[part].T
            difference = points(a[rows][i].double()) - points(others[columns][j].double())
            block[i, j] = difference.square_().sum(1).to(precision)
    return result


def _centred(vectors: Tensor, points: Points, centre: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """Points of vectors [n, d] around `centre` [d], rounded once, and their squared lengths [n]."""
    result = vectors.new_empty(vectors.shape, dtype=precision)
    squares = vectors.new_empty(len(vectors), dtype=precision)
    for rows in runs(len(vectors), CACHE // (8 * vectors.shape[1])):
        result[rows] = points(vectors[rows].double()) - centre
        squares[rows] = result[rows].double().square().sum(1)
    return result, squares


def manhattan(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """sum |x - y|: [n, m]. Differences are taken in the wider of the prototypes' and the result's precision."""
    wide = torch.promote_types(a.dtype, precision)
    a = a.to(wide)
    others = a if b is None else b.to(wide)
    if b is None and len(a) ** 2 // 2 * wide.itemsize <= budget:
        result = a.new_zeros(len(a), len(a))
        condensed = torch.nn.functional.pdist(a, p=1)
        for row, values in enumerate(condensed.split(list(range(len(a) - 1, 0, -1)))):
            result[row, row + 1 :] = values
        return result.to(precision)
    result = a.new_zeros(len(a), len(others), dtype=precision)
    pairs = max(1, (budget if a.is_cuda else min(budget, CACHE)) // (a.itemsize * a.shape[1]))
    height = max(1, min(int(pairs**0.5), len(a)))
    for rows, columns in row_blocks(len(a), len(others), height, triangle=b is None):
        for part in runs(columns.stop - columns.start, pairs // height):
            there = slice(columns.start + part.start, columns.start + part.stop)
            result[rows, there] = (a[rows, None] - others[None, there]).abs_().sum(2)
    return result


class Centring(NamedTuple):
    """A_ij = |x_i - x_j| - rows (r_i + r_j) + total sum(r), with r_i = sum_j |x_i - x_j|."""

    rows: float
    total: float
    diagonal: bool  # False: the diagonal of A is 0


class Vectors(NamedTuple):
    """What tiles of A are made of: values and h [n, d], Frobenius norms of A [n] in float64 (0: A is zero)."""

    values: Tensor
    h: Tensor
    norms: Tensor


def product_cosines(a: Tensor, b: Tensor | None, centring: Centring, precision: torch.dtype, budget: int) -> Tensor:
    """Cosines between the centred distances A of a [n, d] and those of b [m, d]: [n, m], 0 where undefined.

    The squared distance correlation of x and y (Székely, Rizzo and Bakirov 2007) is the cosine between A_x and A_y, the
    d x d distances |x_i - x_j| of their values, centred. All pairs are one product of the flattened A, here summed over
    tiles of A above its diagonal. A tile holds A_ij / 2 = max(x_i, x_j) - h_i - h_j, from
    |x_i - x_j| = 2 max(x_i, x_j) - x_i - x_j. Centring before the product makes float32 precise enough.
    """
    left = _prepare(a, centring, precision)
    right = left if b is None else _prepare(b, centring, precision)
    vectors = len(a) + (0 if b is None else len(b))
    longest = max(1, min(LONGEST, budget // (precision.itemsize * vectors)))
    space = a.new_empty(vectors * longest, dtype=precision)
    result = a.new_zeros(len(a), len(right.norms), dtype=precision)
    for i, j in tiles(a.shape[1], longest):
        first = _tile(left, i, j, centring, space)
        second = first if b is None else _tile(right, i, j, centring, space[first.numel() :])
        for rows, columns in row_blocks(len(a), len(right.norms), HEIGHT, triangle=b is None):
            result[rows, columns].addmm_(first[rows], second[columns].T)
    for rows in runs(len(a), HEIGHT):
        scale = 8 / (left.norms[rows, None] * right.norms)  # two triangles, and halves of both A
        result[rows] *= scale.masked_fill_(scale.isinf(), 0)
    return result


def _prepare(vectors: Tensor, centring: Centring, precision: torch.dtype) -> Vectors:
    """Shifts each vector [n, d] by its median and scales it to at most 1, both without effect on dCor; rounds it once.

    The median keeps the zeros of a ReLU exact. Sums of distances come from one sort, in float64.
    """
    count, size = vectors.shape
    values, h = (vectors.new_empty(count, size, dtype=precision) for _ in range(2))
    norms = vectors.new_empty(count, dtype=torch.float64)
    for part in runs(count, 8 * CACHE // (8 * size)):
        x, order = vectors[part].double().sort(1)
        x = x - x[:, size // 2, None]
        widest = x.abs().amax(1, keepdim=True)
        x = (x / widest.masked_fill_(widest == 0, 1)).to(precision).double()
        sums = distance_sums(x)
        norms[part] = norms_of_centred(x, sums, centring)
        values[part] = torch.empty_like(x).scatter_(1, order, x).to(precision)
        half = (x + centring.rows * sums - centring.total / 2 * sums.sum(1, keepdim=True)) / 2
        h[part] = torch.empty_like(x).scatter_(1, order, half).to(precision)
    return Vectors(values, h, norms)


def distance_sums(ascending: Tensor) -> Tensor:
    """r_i = sum_j |x_i - x_j| of vectors [n, d] in ascending order."""
    size = ascending.shape[1]
    ranks = torch.arange(size, device=ascending.device)
    return ascending * (2 * ranks + 2 - size) + ascending.sum(1, keepdim=True) - 2 * ascending.cumsum(1)


def norms_of_centred(values: Tensor, sums: Tensor, centring: Centring) -> Tensor:
    """||A|| of vectors [n, d] and their r, in the same order: [n].

    ||A||^2 = sum |x_i - x_j|^2 - 2 rows sum r_i^2 + total (sum r_i)^2
    """
    squares = 2 * values.shape[1] * values.square().sum(1) - 2 * values.sum(1).square()
    square = squares - 2 * centring.rows * sums.square().sum(1) + centring.total * sums.sum(1).square()
    return square.masked_fill_(square <= ZERO * squares, 0).sqrt_()


def tiles(size: int, longest: int) -> Iterator[tuple[slice, slice]]:
    """Rows i and columns j of tiles of at most `longest` values that cover i <= j < size; the first of a row is square
    at its left end, where it holds both (i, j) and (j, i)."""
    top = 0
    while top < size:
        height = min(max(1, longest // (size - top)), size - top)
        for j in runs(size - top, longest // height):
            yield slice(top, top + height), slice(top + j.start, top + j.stop)
        top += height


def _tile(vectors: Vectors, i: slice, j: slice, centring: Centring, space: Tensor) -> Tensor:
    """The tile (i, j) of A / 2 for all vectors, in `space`: [n, rows * columns]."""
    values, h, count = vectors.values, vectors.h, len(vectors.values)
    rows, columns = i.stop - i.start, j.stop - j.start
    result = space[: count * rows * columns].view(count, rows, columns)
    for part in runs(count, count if space.is_cuda else CACHE // (space.itemsize * rows * columns)):
        torch.maximum(values[part, i, None], values[part, None, j], out=result[part])
        result[part].sub_(h[part, i, None]).sub_(h[part, None, j])
    if i.start == j.start:
        square = result[:, :, :rows]
        square.mul_(0.5**0.5)  # both (i, j) and (j, i) are in it
        if not centring.diagonal:
            square.diagonal(dim1=1, dim2=2).zero_()
    return result.view(count, -1)
