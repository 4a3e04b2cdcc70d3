"""Distances between object prototypes, all pairs at once, on the device that the prototypes are on.

    euclidean               |x - y|
    manhattan               sum |x - y|
    cosine                  1 - x.y / (|x| |y|)
    pearson                 1 - Pearson correlation over channels: the papers' D_corr
    distance_correlation    1 - dCor, the V-statistic of Székely, Rizzo and Bakirov (2007)
    distance_correlation_u  1 - R, R the bias-corrected dCor^2 of Székely and Rizzo (2013); no root: R may be < 0

A vector without direction (zero for cosine, constant for the correlations) correlates with nothing: its distance to all
others is 1, and never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.precision import float32_products
from diffprobe.prototypes.distances.products import (
    Centring,
    cosine,
    euclidean,
    manhattan,
    mirror,
    pearson,
    product_cosines,
    runs,
)
from diffprobe.ranges import Choice, Items, Number

# Channels for which a CPU sorts values instead of multiplying centred distances, in float32. It is 2.5 times faster at
# 640 channels, 3.9 times at 1280 and 5.8 times at 2560, but 1.5 times at 320 (1000 objects, two cores;
# benchmarks/distances.py prints these ratios).
SORTED = range(640, 2**15 + 1)
BUDGET = 512 * 2**20
PAIRED = 32  # objects in a block of which only the diagonal is used

Measure = Callable[[Tensor, Tensor | None, torch.dtype, int], Tensor]


def distance_correlation(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - dCor (V-statistic): [n, m] from 0 to 1; 1 where x or y is constant, as dCor is 0 there."""
    size = a.shape[1]
    squared = _cosines(a, b, Centring(1 / size, 1 / size**2, diagonal=True), precision, budget)
    return squared.clamp_(0, 1).sqrt_().neg_().add_(1)


def distance_correlation_u(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - R, R the bias-corrected dCor^2 of Székely and Rizzo (2013): [n, m] from 0 to 2, about 1 if independent.

    R is the cosine of U-centred distances, 0 where those of x or y vanish (constant, or all values but one equal).
    """
    size = a.shape[1]
    centring = Centring(1 / (size - 2), 1 / ((size - 1) * (size - 2)), diagonal=False)
    return _cosines(a, b, centring, precision, budget).clamp_(-1, 1).neg_().add_(1)


def _cosines(a: Tensor, b: Tensor | None, centring: Centring, precision: torch.dtype, budget: int) -> Tensor:
    """Cosines between the centred distances of a and b, by the faster way; see `product_cosines`."""
    if not a.is_cuda and precision == torch.float32 and a.shape[1] in SORTED:
        from diffprobe.prototypes.distances import sorted_pass

        return sorted_pass.cosines(a, b, centring, precision, budget)
    return product_cosines(a, b, centring, precision, budget)


MEASURES: dict[str, Measure] = {
    "euclidean": euclidean,
    "manhattan": manhattan,
    "cosine": cosine,
    "pearson": pearson,
    "distance_correlation": distance_correlation,
    "distance_correlation_u": distance_correlation_u,
}


@dataclass(frozen=True)
class DistanceConfig:
    """Which distances are taken, the precision of products, and megabytes of working memory."""

    names: Annotated[Sequence[Annotated[str, Choice(*MEASURES)]], Items(1)]
    precision: Annotated[str, Choice("float32", "float64")] = "float32"
    budget_mb: Annotated[int, Number(1, 1_000_000)] = 512

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.precision)

    @property
    def budget(self) -> int:
        """Bytes of working memory."""
        return self.budget_mb * 2**20


def distance_matrix(
    prototypes: Tensor, measure: str, *, precision: torch.dtype = torch.float32, budget: int = BUDGET
) -> Tensor:
    """Distances of all pairs of prototypes [n, d]: [n, n], exactly symmetric with an exactly zero diagonal.

    `budget` bounds the bytes of working memory (some 10 MiB are the least) beyond the result and at most two copies of
    the prototypes. `precision` is float32 or float64, for the work and the result.
    Raises UserError if the measure is unknown, or if prototypes hold NaN or infinity or have too few channels.
    """
    _check(measure, prototypes)
    if not len(prototypes):
        return prototypes.new_zeros(0, 0, dtype=precision)
    with float32_products():
        result = MEASURES[measure](prototypes, None, precision, budget)
    mirror(result)
    return result


def cross_distances(
    a: Tensor, b: Tensor, measure: str, *, precision: torch.dtype = torch.float32, budget: int = BUDGET
) -> Tensor:
    """Distances of prototypes a [n, d] to b [m, d] on the same device: [n, m]. See `distance_matrix`."""
    _check(measure, a, b)
    if not len(a) or not len(b):
        return a.new_zeros(len(a), len(b), dtype=precision)
    with float32_products():
        return MEASURES[measure](a, b, precision, budget)


def paired_distances(
    a: Tensor, b: Tensor, measure: str, *, precision: torch.dtype = torch.float32, budget: int = BUDGET
) -> Tensor:
    """Distance of each prototype of a [n, d] to the one in the same row of b [n, d]: [n]. See `distance_matrix`."""
    _check(measure, a, b)
    if len(a) != len(b):
        raise ValueError(f"paired distances need as many prototypes on both sides, not {len(a)} and {len(b)}")
    options = {"precision": precision, "budget": budget}
    blocks = [cross_distances(a[rows], b[rows], measure, **options) for rows in runs(len(a), PAIRED)]
    return torch.cat([a.new_zeros(0, dtype=precision), *(block.diagonal() for block in blocks)])


def _check(measure: str, *prototypes: Tensor) -> None:
    if measure not in MEASURES:
        raise UserError(f"unknown distance measure '{measure}': choose from {', '.join(MEASURES)}")
    channels, fewest = prototypes[0].shape[1], 4 if measure == "distance_correlation_u" else 2
    if any(each.shape[1] != channels for each in prototypes):
        raise ValueError(f"prototypes of {' and '.join(str(each.shape[1]) for each in prototypes)} channels")
    if channels < fewest:
        raise UserError(
            f"{measure} needs prototypes of at least {fewest} channels, these have {channels}: choose a wider layer, "
            "several layers, or another measure"
        )
    for each in prototypes:
        bad = (~each.isfinite().all(1)).nonzero()[:, 0].tolist()
        if bad:
            raise UserError(
                f"NaN or infinity in {len(bad)} of {len(each)} prototypes, in rows {', '.join(map(str, bad[:5]))}"
                f"{', ...' if len(bad) > 5 else ''}: leave these objects out, or compute activations in float32"
            )
