"""Newton's method for many small convex problems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(points [some, n], which problems these are [some]) -> value [some], gradient [some, n], Hessian [some, n, n]."""

SUFFICIENT = 1e-4  # of the decrease that the slope promises (Armijo)
ROUNDING = 1e-13  # of a value
DAMPING = 1e-9  # of the Hessian's mean diagonal, added to it: makes singular ones solvable, and moves no minimum


def minimise(evaluate: Evaluate, start: Tensor, *, tolerance: float = 1e-12, limit: int = 100) -> tuple[Tensor, Tensor]:
    """Minima of convex functions, from `start` [problems, n], and which of them are `converged` [problems].

    Newton's steps, halved until the value decreases enough. A problem has converged when g' H^-1 g / 2, which is the
    gradient's squared norm in the metric of the Hessian and estimates how far the value lies above its minimum, is at
    most `tolerance` (Boyd and Vandenberghe 2004, "Convex Optimization", section 9.5). `limit`: evaluations of each
    problem. float64 throughout.
    """
    point, step = start.double().clone(), torch.zeros_like(start, dtype=torch.float64)
    value = torch.full_like(point[:, 0], torch.inf)
    promised, length = torch.zeros_like(value), torch.ones_like(value)
    converged = torch.zeros_like(value, dtype=torch.bool)
    for _ in range(limit):
        index = (~converged).nonzero()[:, 0]
        if not len(index):
            break
        trial = point[index] + length[index, None] * step[index]
        found, gradient, hessian = evaluate(trial, index)
        enough = value[index] - SUFFICIENT * length[index] * promised[index] + ROUNDING * found.abs()
        better = found <= enough
        length[index] = torch.where(better, 1.0, length[index] / 2)
        index, gradient = index[better], gradient[better]
        factor = torch.linalg.cholesky(_damped(hessian[better]))
        point[index], value[index] = trial[better], found[better]
        step[index] = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        promised[index] = -(gradient * step[index]).sum(-1)
        converged[index] = promised[index] / 2 <= tolerance
    return point, converged


def _damped(hessian: Tensor) -> Tensor:
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    added = DAMPING * diagonal.mean(-1, keepdim=True).expand_as(diagonal)
    return hessian + torch.diag_embed(added.clamp(min=torch.finfo(hessian.dtype).tiny))
