"""Rank correlation per image, ours against scipy image by image: python benchmarks/spearman.py

Maps are 512x512, with and without ties, as of a prediction that follows its target with noise. Three cases, each
checked to give scipy's numbers to 1e-6, each with scipy ranking every pair of 512x512 maps:
- probe: predictions of 64x64 tokens for many probes, the target's ranks shared by all, as a run scores its bank;
- shared: predictions of 512x512 pixels for many probes, the target's ranks shared;
- pair: a prediction and a target of 512x512 pixels, both ranked for this one number.
Uses the GPU if there is one. Prints milliseconds per image and their ratios, measured in this run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from diffprobe.properties.continuous import rank_maps, spearman
from diffprobe.properties.tokens import pool_target

IMAGES, PROBES, SIZE, TOKENS, REPEATS = 4, 8, 512, 64, 5
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def data(ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Targets [images, 512, 512], predictions of 64x64 tokens and of 512x512 pixels [probes, images, h, w]."""
    random = torch.Generator().manual_seed(0)
    target = torch.randn(IMAGES, SIZE, SIZE, generator=random)
    smooth = torch.nn.functional.avg_pool2d(target, SIZE // TOKENS)
    coarse = smooth + 0.1 * torch.randn(PROBES, IMAGES, TOKENS, TOKENS, generator=random)
    fine = target + torch.randn(PROBES, IMAGES, SIZE, SIZE, generator=random)
    if ties:
        target, coarse, fine = (20 * target).round(), (20 * coarse).round(), (20 * fine).round()
    return target, coarse, fine


def fastest(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What the call gives, and the seconds of its fastest repeat."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = call().cpu()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return found, min(seconds)


def shared(target: Tensor, maps: Tensor) -> Tensor:
    """The target is ranked and pooled once for all probes: [probes, images]."""
    ranks = pool_target(rank_maps(target), (maps.shape[-2], maps.shape[-1]))
    return torch.stack([spearman(one, ranks) for one in maps])


def with_scipy(target: Tensor, maps: Tensor) -> tuple[Tensor, float]:
    """scipy for every image of every probe, on pixels."""
    factor = SIZE // maps.shape[-1]
    pixels = maps.repeat_interleave(factor, -2).repeat_interleave(factor, -1).flatten(-2).numpy()
    truths = target.flatten(1).numpy()
    return fastest(
        lambda: torch.tensor([[stats.spearmanr(p, t)[0] for p, t in zip(row, truths, strict=True)] for row in pixels])
    )


def report(case: str, target: Tensor, maps: Tensor, call: Callable[[Tensor, Tensor], Tensor]) -> None:
    few = maps[:1]
    expected, slow = with_scipy(target, few)
    there, predictions = target.to(DEVICE), maps.to(DEVICE)
    found, fast = fastest(lambda: call(there, predictions))
    assert torch.allclose(found[:1].double(), expected, rtol=0, atol=1e-6), (found[:1], expected)
    ours, theirs = 1e3 * fast / maps[..., 0, 0].numel(), 1e3 * slow / few[..., 0, 0].numel()
    print(f"{case}: scipy {theirs:.1f} ms per image, ours {ours:.2f} ms: {theirs / ours:.1f} times faster")


def main() -> None:
    print(f"{IMAGES} images of {SIZE}x{SIZE} on {DEVICE}, {torch.get_num_threads()} threads; equal to scipy to 1e-6")
    for ties in (False, True):
        target, coarse, fine = data(ties)
        kind = "ties" if ties else "no ties"
        report(f"probe,  {PROBES} probes of {TOKENS}x{TOKENS} tokens, {kind}", target, coarse, shared)
        report(f"shared, {PROBES} predictions of {SIZE}x{SIZE} pixels, {kind}", target, fine, shared)
        report(f"pair,   both maps ranked each time, {kind}", target, fine[:2], lambda one, maps: spearman(maps, one))


if __name__ == "__main__":
    main()
