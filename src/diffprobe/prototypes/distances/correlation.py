"""Distance correlation of all pairs: which way it is computed, by number of channels, device and precision.

As products of centred distances it takes d^2 steps for a pair of d channels. With many channels, on a CPU and in
float32, `sorted_pass` is faster: 2.5 times at 640 channels, 3.9 times at 1280 and 5.8 times at 2560, but 1.5 times at
320 (1000 objects, two cores; `benchmarks/distances.py` prints these ratios). It is 420 lines of its own, so it is used
only where it is at least twice as fast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffprobe.prototypes.distances.centred_distances import Centring, product_cosines

SORTED = range(640, 2**15 + 1)  # channels for which a CPU takes sorted values, not products, in float32


def distance_correlation(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - dCor (V-statistic): [n, m] from 0 to 1; 1 where x or y is constant, as dCor is 0 there."""
    size = a.shape[1]
    squared = cosines(a, b, Centring(1 / size, 1 / size**2, diagonal=True), precision, budget)
    return squared.clamp_(0, 1).sqrt_().neg_().add_(1)


def distance_correlation_u(a: Tensor, b: Tensor | None, precision: torch.dtype, budget: int) -> Tensor:
    """1 - R, R the bias-corrected dCor^2 of Székely and Rizzo (2013): [n, m] from 0 to 2, about 1 if independent.

    R is the cosine of U-centred distances, 0 where those of x or y vanish (constant, or all values but one equal).
    """
    size = a.shape[1]
    centring = Centring(1 / (size - 2), 1 / ((size - 1) * (size - 2)), diagonal=False)
    return cosines(a, b, centring, precision, budget).clamp_(-1, 1).neg_().add_(1)


def cosines(a: Tensor, b: Tensor | None, centring: Centring, precision: torch.dtype, budget: int) -> Tensor:
    """Cosines between the centred distances of a [n, d] and those of b [m, d]: [n, m], 0 where undefined.

    Without b those of a with itself; then the lower triangle is left for `mirror`.
    """
    if not a.is_cuda and precision == torch.float32 and a.shape[1] in SORTED:
        from diffprobe.prototypes.distances import sorted_pass  # numba takes a second to load

        return sorted_pass.cosines(a, b, centring, precision, budget)
    return product_cosines(a, b, centring, precision, budget)
