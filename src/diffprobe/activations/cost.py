"""Memory and time of the passes over images, told before they start.

Bytes follow from the networks' architecture, seconds from two steps of the first batch.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from diffprobe.activations.budget import in_units
from diffprobe.activations.progress import duration
from diffprobe.activations.sources import Source
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.load import Backbone

PROGRAM = 1_000_000_000  # bytes of Python, its libraries and what they keep, as measured beside the networks


class _Attention(TorchFunctionMode):
    """Attention gives its output alone: without a device torch would choose the way that keeps the whole matrix."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, value = _query_and_value(*args, **(kwargs or {}))
        return query.new_empty((*query.shape[:-1], value.shape[-1]))


def _query_and_value(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """The first and third argument, by place or name."""
    return query, value


class _Counter(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and not freed yet.

    Args:
        copies: whether convolutions copy input and output, as oneDNN does on CPUs to have its own order of channels.
    """

    def __init__(self, network: nn.Module, copies: bool) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.copies = copies
        weights = (*network.parameters(), *network.buffers())
        self.known = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        made = found if isinstance(found, (tuple, list)) else (found,)
        for tensor in made:
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        if self.copies and func is torch.ops.aten.convolution.default:
            self.peak = max(self.peak, self.held + args[0].nbytes + made[0].nbytes)
        return found

    def _hold(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.held -= size


@torch.no_grad()
def peak_of(network: nn.Module, run: Callable[[], Any], *, copies: bool = False) -> int:
    """The most bytes that a function holds beside the weights of a network which it calls on the meta device."""
    with _Attention(), _Counter(network, copies) as counter:
        run()
    return counter.peak


def denoiser_peak(backbone: Backbone) -> int:
    """Bytes of one row of the denoiser's batch."""
    family, twin = backbone.family, _without_weights(backbone.denoiser)
    with torch.device("meta"):
        latents = torch.empty(1, *backbone.latent_shape)
        conditions = family.example(backbone.denoiser.config)
    return peak_of(twin, lambda: family.evaluate(twin, latents, 0, conditions), copies=backbone.device.type == "cpu")


def decoder_peak(backbone: Backbone) -> int:
    """Bytes of one image that the VAE decodes; 0 in pixel space."""
    if backbone.vae is None:
        return 0
    twin, latents = _without_weights(backbone.vae), torch.empty(1, *backbone.latent_shape, device="meta")
    return peak_of(twin, lambda: backbone.family.decode(twin, latents), copies=backbone.device.type == "cpu")


def _without_weights(network: Any) -> nn.Module:
    """A network of the same configuration on the meta device, in the precision of this one."""
    kind: Any = type(network)
    known = inspect.signature(kind.__init__).parameters
    with torch.device("meta"):
        return kind.from_config({key: network.config[key] for key in network.config if key in known}).eval()


def memory_line(backbone: Backbone, batch: int, captured: int) -> str:
    """For people: the most memory of a pass over images, on the device and in the program.

    Args:
        batch: images at a time.
        captured: bytes of activations that are held beside the networks.
    """
    rows = batch * (2 if backbone.guided else 1)
    share = backbone.dtype.itemsize / torch.float32.itemsize  # the networks without weights are in float32
    working = round(
        share * max(rows * denoiser_peak(backbone), decoder_peak(backbone))
    )  # images are decoded one by one
    weights = sum(tensor.nbytes for tensor in (*backbone.networks.parameters(), *backbone.networks.buffers()))
    return (
        f"about {in_units(PROGRAM + weights + captured + working)} of memory at most in the passes over images: "
        f"weights {in_units(weights)}, networks at work {in_units(working)}, activations {in_units(captured)}, "
        f"the program {in_units(PROGRAM)}"
    )


def time_line(
    backbone: Backbone,
    source: Source,
    layers: Sequence[str],
    steps: Sequence[int],
    batch: int,
    *,
    replays: int,
    decoded: int,
) -> str:
    """For people: the time of the passes over images, by two steps of the first batch and one decoded image.

    Args:
        layers, steps: that are captured.
        batch: images at a time.
        replays: control networks, each evaluated without guidance at every step.
        decoded: images of examples, beside the finished one of every image.
    """
    step, latents = _seconds_of_a_step(backbone, source, layers, steps, batch)
    decoding = _seconds_to_decode(backbone, latents)
    images = len(source.names)
    taken = source.steps_taken(backbone, steps) + replays * len(steps) / (2 if backbone.guided else 1)
    seconds = images / batch * taken * step + (images + decoded) * decoding
    return (
        f"about {duration(seconds)} for the passes over images on {backbone.device}, by two steps of {batch} "
        f"{'image' if batch == 1 else 'images'} ({step:.2g} s each) and one decoded image ({decoding:.2g} s); labels, "
        "training and the report come on top"
    )


def _seconds_of_a_step(
    backbone: Backbone, source: Source, layers: Sequence[str], steps: Sequence[int], batch: int
) -> tuple[float, Tensor]:
    """Seconds of a step after the first, which also reads weights and prompts, and the latents of one image."""
    rows = source.batch(range(batch), backbone.image_size)
    latents, started = None, 0.0
    while True:
        for step in source.run(backbone, rows, layers, list(steps)[:2]):
            before, latents = latents, step.latents.cpu()  # here the device has done the step
            if before is not None:
                return time.perf_counter() - started, latents[:1]
            started = time.perf_counter()


def _seconds_to_decode(backbone: Backbone, latents: Tensor) -> float:
    if backbone.vae is None:
        return 0.0
    started = time.perf_counter()
    with torch.no_grad():
        decode_latents(backbone, latents.to(backbone.device, backbone.dtype)).cpu()
    return time.perf_counter() - started
