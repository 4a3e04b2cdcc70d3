"""Distance correlation of all pairs from sorted values, for many channels on a CPU: O(d^1.5) for a pair, not O(d^2).

The inner product of the centred distances A_x and A_y (`products.product_cosines`) is cheap but for
S = sum_ij |x_i - x_j| |y_i - y_j|, which follows from the channels in which x and y rise together (as in Huo and
Székely 2016, Fast computing for distance covariance):

    T = sum x_i (y_i - y_j)  over i, j with x_j < x_i and y_j < y_i
    S = 8 T + 4 h_x.y - 2 x.r_y,  h_x(i) = sum of x above x_i - rank(i) x_i,  r_y(i) = sum_j |y_i - y_j|

The channels sorted by x are cut into blocks, and T into two parts, each for 16 pairs of vectors at once:

- Within a block (`within_blocks`, 16 y for one x): every j before i in the block.
- Across blocks (`across_blocks`, 16 x for one y): channels enter in the order of y. The gap in y between two of them
  counts for all pairs of an entered j and an i that has not entered, j in an earlier block than i: the entered of all
  blocks before b, times the sum of the x_i left in b, over all b. From the median of y on, which is 0, the channels of
  a block are subtracted from its entered, so that few count at either end, where an outlier's gap may be; the
  difference is a product, with max(y, 0).

Values are 24-bit integers, whose sums over a block are exact in 32 bits: rounding there would not average out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from diffprobe.prototypes.distances import lanes
from diffprobe.prototypes.distances.lanes import BINS, LANES
from diffprobe.prototypes.distances.products import HEIGHT, Centring, distance_sums, norms_of_centred, runs

LONGEST = 128  # channels of a block
RANGE = 2**24 - 1  # of a vector's values: LONGEST of them are less than 2^31
PER_CHANNEL = 200  # bytes of working memory for a channel of one vector


class Sorted(NamedTuple):
    """Vectors in groups of 16, the last filled up with zeros: [groups, ..., 16], flattened from the second axis on."""

    size: int  # channels, d
    length: int  # of a block, a multiple of 4
    values: np.ndarray  # [groups, d * 16] int32
    blocks: np.ndarray  # [groups, d * 16] uint8: of x's order
    totals: np.ndarray  # [groups, blocks * 16] int32: sums of the values of a block, but for the first
    order: np.ndarray  # [groups * 16, d] uint16: channels from the lowest value to the highest
    norms: Tensor  # [n] float64: Frobenius norms of A (0: A is zero)


def cosines(a: Tensor, b: Tensor | None, centring: Centring, precision: torch.dtype, budget: int) -> Tensor:
    """As `products.product_cosines`."""
    height = LANES * max(1, min(HEIGHT, budget // (PER_CHANNEL * a.shape[1])) // LANES)
    left = prepare(a, centring, height)
    right = left if b is None else prepare(b, centring, height)
    result = a.new_zeros(len(left.norms), len(right.norms), dtype=precision)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for rows in runs(len(left.norms), height):
            values, sums, h, steps = products_with(left, rows)
            total = centring.total * sums.sum(1, keepdim=True)
            first = torch.cat([4 * h, -2 * (values + centring.rows * sums), 8 * values * steps, total], 1)
            for columns in runs(len(right.norms), height):
                if b is None and columns.stop <= rows.start:
                    continue
                values, sums, *_ = products_with(right, columns)
                tile = first @ torch.cat([values, sums, values.relu(), sums.sum(1, keepdim=True)], 1).T
                tile += 8 * rising_together(left, rows, right, columns, threads)
                scale = 1 / (left.norms[rows, None] * right.norms[columns])
                result[rows, columns] = tile.mul_(scale.masked_fill_(scale.isinf(), 0))
    return result


def prepare(vectors: Tensor, centring: Centring, height: int) -> Sorted:
    """Shifts each vector [n, d] by its median, which keeps the zeros of a ReLU, and rounds it to integers, once."""
    count, size = vectors.shape
    passes = max(ceil((ceil(size / LONGEST) - 1) / BINS), round(sqrt(size / 500)), 1)
    length = min(LONGEST, 4 * ceil(size / (BINS * passes + 1) / 4))
    groups = ceil(count / LANES)
    values = np.zeros((groups, size * LANES), np.int32)
    blocks = np.zeros((groups, size * LANES), np.uint8)
    totals = np.zeros((groups, BINS * passes * LANES), np.int32)
    order = np.zeros((groups * LANES, size), np.uint16)
    norms = vectors.new_zeros(count, dtype=torch.float64)
    of_rank = torch.arange(size) // length
    for part in runs(count, height):
        x = vectors[part].double()
        x = x - x.median(1, keepdim=True).values
        extent = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
        x = (x * (RANGE / extent.masked_fill_(extent == 0, 1))).round_()
        ascending, channels = x.sort(1)
        norms[part] = norms_of_centred(ascending, distance_sums(ascending), centring)
        by_block = torch.zeros(len(x), BINS * passes + 1, dtype=torch.float64)
        by_block.index_add_(1, of_rank, ascending)
        for start in range(0, len(x), LANES):
            some, group = slice(start, start + LANES), (part.start + start) // LANES
            numbers = torch.empty_like(channels[some]).scatter_(1, channels[some], of_rank.expand_as(channels[some]))
            for target, source in ((values, x[some]), (blocks, numbers), (totals, by_block[some, 1:])):
                target[group].reshape(-1, LANES)[:, : len(source)] = source.T.numpy()
        order[part] = channels.numpy()
    return Sorted(size, length, values, blocks, totals, order, norms)


def products_with(vectors: Sorted, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, sums of distances r, h, and the number of channels in blocks before each's: [part, d], float64."""
    groups = slice(part.start // LANES, ceil(part.stop / LANES))
    values, blocks = (
        torch.from_numpy(each[groups]).view(-1, vectors.size, LANES).mT.reshape(-1, vectors.size).double()
        for each in (vectors.values, vectors.blocks)
    )
    values, blocks = values[: part.stop - part.start], blocks[: part.stop - part.start]
    order = torch.from_numpy(vectors.order[part].astype(np.int64))
    ascending = values.gather(1, order)
    above = ascending.sum(1, keepdim=True) - ascending.cumsum(1) - torch.arange(vectors.size) * ascending
    sums, h = (torch.empty_like(values).scatter_(1, order, each) for each in (distance_sums(ascending), above))
    return values, sums, h, blocks.mul_(vectors.length)


def rising_together(x: Sorted, rows: slice, y: Sorted, columns: slice, threads: ThreadPoolExecutor) -> Tensor:
    """T of rows of x and columns of y, both from a multiple of 16; where x is y, only on and above the diagonal."""
    groups = range(columns.start // LANES, ceil(columns.stop / LANES))
    tops = range(rows.start // LANES, ceil(rows.stop / LANES))
    result = np.zeros((len(tops), LANES * LANES * len(groups)))

    def fill(top: int) -> None:
        first = max(top, groups.start) if x is y else groups.start
        part, order = result[top - tops.start], x.order[LANES * top :][:LANES]
        of_y = (y.values, y.order, first, groups.stop, part)
        across_blocks(x.values[top], x.blocks[top], x.totals[top], x.length, *of_y)
        within_blocks(x.values[top], order, x.length, y.values, first, groups.stop, part)

    list(threads.map(fill, tops))
    whole = torch.from_numpy(result).view(LANES * len(tops), LANES * len(groups))
    return whole[: rows.stop - rows.start, : columns.stop - columns.start]


@njit(nogil=True, cache=True)
def across_blocks(values, blocks, totals, length, y_values, y_order, first, last, result):
    """Adds T across the blocks of 16 x to result [16 * columns], whose columns end with the y of group last - 1."""
    size, width = y_order.shape[1], len(result) // LANES
    for column in range(LANES * first, LANES * last):
        y, total = y_values[column // LANES], lanes.no_doubles()
        for bin in range(0, len(totals) // LANES, BINS):
            below, entered = lanes.no_floats(), lanes.no_counts()
            left = lanes.read_sums(totals, LANES * bin)
            channel = LANES * int(y_order[column, 0])
            for rank in range(1, size):
                if rank == (size - 1) // 2 + 1:
                    below, entered = lanes.lower(below, entered, np.float32(length * (bin + 1)), np.float32(length))
                block = lanes.subtract(lanes.read(blocks, channel), np.int32(bin + 1))
                below, entered, left, weight = lanes.enter(below, entered, left, block, lanes.read(values, channel))
                following = LANES * int(y_order[column, rank])
                lane = column % LANES
                total = lanes.add_product(total, float(y[following + lane]) - float(y[channel + lane]), weight)
                channel = following
        lanes.add_to(result, column - LANES * last + width, width, total)


@njit(nogil=True, cache=True)
def within_blocks(values, order, length, y_values, first, last, result):
    """Adds T within the blocks of 16 x to result, as `across_blocks`."""
    size, width = order.shape[1], len(result) // LANES
    nearby = np.zeros(LANES * length, np.int32)  # a block of 16 y in x's order
    ascending = np.zeros(length * ceil(size / length))
    for lane in range(LANES):
        for rank in range(size):
            ascending[rank] = values[LANES * int(order[lane, rank]) + lane]
        for group in range(first, last):
            y, total = y_values[group], lanes.no_doubles()
            for start in range(0, size, length):
                for rank in range(start, min(start + length, size)):
                    channel = LANES * int(order[lane, rank])
                    lanes.copy(y, channel, nearby, LANES * (rank - start))
                total = add_block(total, nearby, ascending[start : min(start + length, 4 * ceil(size / 4))])
            lanes.add_to(result, (lane + 1) * width + LANES * (group - last), 1, total)


@njit(nogil=True, cache=True)
def add_block(total, y, x):
    """total + sum over i of x_i times the sum over j < i of max(y_i, y_j) - y_j, for x [a multiple of 4]."""
    before = lanes.no_integers()
    for i in range(0, len(x), 4):
        a, b = lanes.read(y, LANES * i), lanes.read(y, LANES * (i + 1))
        c, d = lanes.read(y, LANES * (i + 2)), lanes.read(y, LANES * (i + 3))
        of_a = of_b = of_c = of_d = lanes.no_integers()
        for j in range(i):
            earlier = lanes.read(y, LANES * j)
            of_a, of_b = lanes.add_larger(of_a, a, earlier), lanes.add_larger(of_b, b, earlier)
            of_c, of_d = lanes.add_larger(of_c, c, earlier), lanes.add_larger(of_d, d, earlier)
        of_b = lanes.add_larger(of_b, b, a)
        of_c = lanes.add_larger(lanes.add_larger(of_c, c, a), c, b)
        of_d = lanes.add_larger(lanes.add_larger(lanes.add_larger(of_d, d, a), d, b), d, c)
        for x_i, y_i, larger in ((x[i], a, of_a), (x[i + 1], b, of_b), (x[i + 2], c, of_c), (x[i + 3], d, of_d)):
            total = lanes.add_product(total, x_i, lanes.subtract(larger, before))
            before = lanes.add(before, y_i)
    return total
