"""Distance correlation (Székely, Rizzo and Bakirov 2007) of all pairs as one matrix product.

The d x d matrix of distances |x_i - x_j| of a vector's values, centred by rows and columns, is A. The squared distance
correlation of x and y is the cosine between A_x and A_y. So the flattened A of all vectors, multiplied with themselves,
give all pairs. Here that product is summed over tiles of A: tiles above the diagonal are enough, as A is symmetric.

Half of A is what a tile holds, from |x_i - x_j| = 2 max(x_i, x_j) - x_i - x_j:
A_ij / 2 = max(x_i, x_j) - h_i - h_j. Centring before the product is what makes float32 enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffprobe.prototypes.distances.products import CACHE, HEIGHT, row_blocks, runs

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
