"""Euclidean, cosine and Pearson distance: squared distances of points from one matrix product.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y loses all its digits where x and y are close, so points are centred first, which
takes care of offsets, and near pairs are computed again from their differences, in float64. Cosine and Pearson
distance are half the squared distance of unit vectors: 1 - u.v = |u - v|^2 / 2.

A matrix of distances in blocks of rows: one triangle computed, the other mirrored, little memory at a time.

Manhattan distance: sums of absolute differences, for which no matrix product stands in.

Distance correlation (Székely, Rizzo and Bakirov 2007) of all pairs as one matrix product.

The d x d matrix of distances |x_i - x_j| of a vector's values, centred by rows and columns, is A. The squared distance
correlation of x and y is the cosine between A_x and A_y. So the flattened A of all vectors, multiplied with themselves,
give all pairs. Here that product is summed over tiles of A: tiles above the diagonal are enough, as A is symmetric.

Half of A is what a tile holds, from |x_i - x_j| = 2 max(x_i, x_j) - x_i - x_j:
A_ij / 2 = max(x_i, x_j) - h_i - h_j. Centring before the product is what makes float32 enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

LONGEST = 4096  # values of a tile: enough for a fast product, few enough to waste little along A's diagonal
ZERO = 1e-12  # share of the uncentred distances' square below which centring has left nothing but rounding


class Centring(NamedTuple):
    """A_ij = |x_i - x_j| - rows (r_i + r_j) + total sum(r), with r_i = sum_j |x_i - x_j|."""

    rows: float
    total: float
    diagonal: bool  # whether A has one, or zeros


class Vectors(NamedTuple):
    """What tiles of A are made of: values and h [n, d], Frobenius norms of A [n] in float64 (0: A is zero)."""

    values: Tensor
    h: Tensor
    norms: Tensor


def product_cosines(a: Tensor, b: Tensor | None, centring: Centring, precision: torch.dtype, budget: int) -> Tensor:
    """`cosines` as products of the centred distances."""
    left = prepare(a, centring, precision)
    right = left if b is None else prepare(b, centring, precision)
    vectors = len(a) + (0 if b is None else len(b))
    longest = max(1, min(LONGEST, budget // (precision.itemsize * vectors)))
    space = a.new_empty(vectors * longest, dtype=precision)
    result = a.new_zeros(len(a), len(right.norms), dtype=precision)
    for i, j in tiles(a.shape[1], longest):
        first = slab(left, i, j, centring, space)
        second = first if b is None else slab(right, i, j, centring, space[first.numel() :])
        for rows, columns in row_blocks(len(a), len(right.norms), HEIGHT, triangle=b is None):
            result[rows, columns].addmm_(first[rows], second[columns].T)
    for rows in runs(len(a), HEIGHT):
        scale = 8 / (left.norms[rows, None] * right.norms)  # two triangles, and halves of both A
        result[rows] *= scale.masked_fill_(scale.isinf(), 0)
    return result


def prepare(vectors: Tensor, centring: Centring, precision: torch.dtype) -> Vectors:
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


def slab(vectors: Vectors, i: slice, j: slice, centring: Centring, space: Tensor) -> Tensor:
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


Points = Callable[[Tensor], Tensor]  # prototypes [k, d] in float64 -> points [k, d] whose distances are wanted

NEAR = 2**20  # times eps: below this share of |x|^2 + |y|^2 a squared distance is computed again
CENTRED_ON = 64  # about as many objects say where the centre is; any point near them serves


def euclidean(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """|x - y|: [n, m]."""
    return squared_distances(a, b, lambda vectors: vectors, precision, budget).sqrt_()


def cosine(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - x.y / (|x| |y|): [n, m] from 0 to 2; 1 where x or y is zero (as scikit-learn has it; scipy: NaN)."""
    distances = squared_distances(a, b, units, precision, budget).mul_(0.5).clamp_(max=2)
    return without_direction(distances, (a == 0).all(1), None if b is None else (b == 0).all(1))


def pearson(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - Pearson correlation over channels (D_corr): [n, m] from 0 to 2; 1 where x or y is constant (scipy: NaN)."""
    distances = squared_distances(a, b, centred_units, precision, budget).mul_(0.5).clamp_(max=2)
    return without_direction(distances, constant(a), None if b is None else constant(b))


def units(vectors: Tensor) -> Tensor:
    """Vectors [k, d] divided by their lengths; a zero vector stays zero."""
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / lengths.masked_fill_(lengths == 0, 1)


def centred_units(vectors: Tensor) -> Tensor:
    """Vectors [k, d] minus their mean over channels, divided by their lengths."""
    return units(vectors - vectors.mean(1, keepdim=True))


def constant(vectors: Tensor) -> Tensor:
    """Which vectors [n, d] have one value in all channels: [n]."""
    return vectors.amax(1) == vectors.amin(1)


def without_direction(distances: Tensor, rows: Tensor, columns: Tensor | None) -> Tensor:
    """Sets distances [n, m] of vectors that correlate with nothing, [n] and [m], to 1, in place."""
    distances[rows] = 1
    distances[:, rows if columns is None else columns] = 1
    return distances


def squared_distances(a: Tensor, b: Tensor | None, points: Points, precision: torch.dtype, budget: int) -> Tensor:
    """Squared Euclidean distances of the points of a [n, d] and of b [m, d]: [n, m].

    Without b those of a with itself; then the lower triangle is left for `mirror`.
    """
    others = a if b is None else b
    centre = points(a[:: len(a) // CENTRED_ON + 1].double()).median(0).values  # the median: outliers do not move it
    left, left_squares = centred(a, points, centre, precision)
    right, right_squares = (left, left_squares) if b is None else centred(b, points, centre, precision)
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


def centred(vectors: Tensor, points: Points, centre: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
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
