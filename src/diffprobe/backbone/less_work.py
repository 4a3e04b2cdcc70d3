"""Ways to do less from a step of a trajectory on: larger steps, and deep features of a U-Net that are reused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffprobe.backbone.load import is_compiled
from diffprobe.errors import UserError


def check_larger_steps(scheduler: Any) -> None:
    """Raises UserError for a sampler that cannot leave out steps of a trajectory it has begun.

    It can where it goes from one noise level of a list to the next. DDIM finds its next timestep by a fixed distance,
    and single-step solvers have planned their orders in groups of steps.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None or len(sigmas) != len(scheduler.timesteps) + 1 or hasattr(scheduler, "order_list"):
        raise UserError(
            f"{type(scheduler).__name__} cannot leave out steps of a trajectory that it has begun; "
            "model.scheduler=lms, euler and dpm++ can"
        )


def with_larger_steps(scheduler: Any, taken: int, times: int) -> Any:
    """A copy of a scheduler after its first `taken` steps, with every `times`-th of the remaining ones.

    The noise levels of the steps that were taken stay, since multistep samplers look back at them; so does the last.

    Raises:
        UserError: as `check_larger_steps`.
    """
    check_larger_steps(scheduler)
    thinned = copy.deepcopy(scheduler)
    sigmas, timesteps = scheduler.sigmas, scheduler.timesteps
    thinned.timesteps = torch.cat([timesteps[:taken], timesteps[taken::times]])
    thinned.sigmas = torch.cat([sigmas[:taken], sigmas[taken:-1:times], sigmas[-1:]])
    thinned.num_inference_steps = len(thinned.timesteps)
    return thinned


class DeepFeatures:
    """What enters a U-Net's outermost upward block from below: kept by one evaluation, reused by later ones.

    DeepCache (Ma, Fang and Wang 2024, arXiv 2312.00858), block by block: while features are reused, only the first
    downward and the last upward block are computed, with the skip connections between them; the blocks inside are not
    run. All evaluations have the same batch.

    Raises:
        UserError: a denoiser without such blocks (a transformer), or with compiled ones.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        down, up = (getattr(denoiser, name, ()) for name in ("down_blocks", "up_blocks"))
        if len(down) < 2 or len(up) < 2 or any(hasattr(block, "skip_conv") for block in (*down, *up)):
            raise UserError(
                f"{type(denoiser).__name__} is no U-Net with blocks inside its outermost ones, whose output could be "
                "reused"
            )
        if any(is_compiled(module) for module in (denoiser, *down, *up)):
            raise UserError("the blocks of a compiled U-Net cannot be left out; use model.compile=false")
        self._down, self._up, self._middle = list(down[1:]), list(up[:-1]), getattr(denoiser, "mid_block", None)
        self._kept: Tensor | None = None

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Evaluations in this context are whole; the latest one's features are kept."""

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._kept = output

        handle = self._up[-1].register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def reusing(self) -> Iterator[None]:
        """Evaluations in this context take the features that were kept."""
        kept = self._kept
        assert kept is not None  # an evaluation was made within `keeping`
        forwards: list[tuple[nn.Module, Callable[..., Any]]] = [(block, _down_forward(block)) for block in self._down]
        forwards += [(block, lambda *inputs, **named: kept) for block in self._up]
        if self._middle is not None:
            forwards.append((self._middle, lambda sample, *inputs, **named: sample))
        for module, forward in forwards:
            module.forward = forward  # hides the method of the class
        try:
            yield
        finally:
            for module, _ in forwards:
                del module.forward


def _down_forward(block: nn.Module) -> Callable[..., tuple[Tensor, tuple[Tensor, ...]]]:
    """In place of a downward block's: its input, also for each of its skip connections, which nobody reads."""
    blocks: Any = block
    outputs = len(blocks.resnets) + (getattr(blocks, "downsamplers", None) is not None)

    def forward(hidden_states: Tensor, *inputs: Any, **named: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        return hidden_states, (hidden_states,) * outputs

    return forward


@torch.no_grad()
def operations(run: Callable[[], Any]) -> int:
    """Floating point operations of the matrix products and convolutions in a function's networks."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
