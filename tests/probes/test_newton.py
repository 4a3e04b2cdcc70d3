from __future__ import annotations

import torch
from torch import Tensor

from diffprobe.probes.exact import minimise


def test_a_quadratic_takes_one_step() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    hessian, bottom = root @ root.mT + torch.eye(3), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    asked = []

    def evaluate(points: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        asked.append(index.tolist())
        gradient = (hessian[index] @ (points - bottom[index])[..., None])[..., 0]
        return (gradient * (points - bottom[index])).sum(-1) / 2, gradient, hessian[index]

    found, converged = minimise(evaluate, torch.zeros(4, 3))
    torch.testing.assert_close(found, bottom)
    assert converged.all()
    assert asked == [[0, 1, 2, 3]] * 2  # at the start and at the minimum


def pseudo_huber(points: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sqrt(1 + (x - index)^2): from further away than 1, full steps of Newton's method run off."""
    x = points - index[:, None]
    root = (1 + x.square()).sqrt()
    return root[:, 0], x / root, (1 / root**3)[..., None]


def test_steps_that_would_run_off_are_shortened() -> None:
    found, converged = minimise(pseudo_huber, torch.tensor([[5.0], [1.5], [1.0]]))
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 1, 2], dtype=torch.float64), atol=1e-6, rtol=0)
    assert converged.all()


def test_a_direction_that_changes_nothing_does_not_matter() -> None:
    def flat(points: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = torch.tensor([1.0, 0], dtype=torch.float64)
        return points[:, 0].square() / 2, points * first, torch.diag_embed(first).expand(len(points), 2, 2)

    found, converged = minimise(flat, torch.tensor([[3.0, 7.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 7.0]], dtype=torch.float64), atol=1e-6, rtol=0)
    assert converged.all()


def test_what_does_not_converge_in_the_limit_says_so() -> None:
    _, converged = minimise(pseudo_huber, torch.tensor([[5.0], [1.0]]), limit=2)
    assert converged.tolist() == [False, True]
