"""Memory and operations of a pass over images, estimated from the networks' architecture before it starts."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from diffprobe.activations.budget import in_units
from diffprobe.backbone.load import Backbone

PROGRAM = 600_000_000  # bytes of Python and the libraries, as measured without a network


@dataclass(frozen=True)
class Cost:
    """Of one row through a network: operations, two a multiply-add, and the most bytes held beside weights."""

    operations: int
    peak: int


class _Attention(TorchFunctionMode):
    """Attention gives its output alone: without a device torch would choose the way that keeps the whole matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = _attended(*args, **(kwargs or {}))
        *heads, queries, width = query.shape
        self.operations += 2 * math.prod(heads) * queries * key.shape[-2] * (width + value.shape[-1])
        return query.new_empty((*heads, queries, value.shape[-1]))


def _attended(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The first three arguments, by place or name."""
    return query, key, value


class _Counter(TorchDispatchMode):
    """Counts operations, and the bytes of the tensors that are made and not freed yet."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.operations = self.held = self.peak = 0
        weights = (*network.parameters(), *network.buffers())
        self.known = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.operations += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=found)
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
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
def cost_of(network: nn.Module, run: Callable[[], Any]) -> Cost:
    """The cost of a function that calls a network without weights, on the meta device."""
    with _Attention() as attention, _Counter(network) as counter:
        run()
    return Cost(counter.operations + attention.operations, counter.peak)


def denoiser_cost(backbone: Backbone) -> Cost:
    """Of one row of the denoiser's batch."""
    family, twin = backbone.family, _without_weights(backbone.denoiser)
    with torch.device("meta"):
        latents = torch.empty(1, *backbone.latent_shape)
        conditions = family.example(backbone.denoiser.config)
    return cost_of(twin, lambda: family.evaluate(twin, latents, 0, conditions))


def decoder_cost(backbone: Backbone) -> Cost:
    """Of one image that the VAE decodes; nothing in pixel space."""
    if backbone.vae is None:
        return Cost(0, 0)
    twin, latents = _without_weights(backbone.vae), torch.empty(1, *backbone.latent_shape, device="meta")
    return cost_of(twin, lambda: backbone.family.decode(twin, latents))


def _without_weights(network: Any) -> nn.Module:
    kind: Any = type(network)
    known = inspect.signature(kind.__init__).parameters
    with torch.device("meta"):
        return kind.from_config({key: network.config[key] for key in network.config if key in known}).eval()


def weight_bytes(backbone: Backbone) -> int:
    """Of the parameters and buffers of all networks."""
    return sum(tensor.nbytes for tensor in (*backbone.networks.parameters(), *backbone.networks.buffers()))


def memory_line(backbone: Backbone, batch: int, captured: int) -> str:
    """For people: the most memory of a pass over images, and its operations an evaluation and an image.

    Args:
        batch: images at a time.
        captured: bytes of activations that are held beside the networks.
    """
    rows = batch * (2 if backbone.guided else 1)
    denoiser, decoder, weights = denoiser_cost(backbone), decoder_cost(backbone), weight_bytes(backbone)
    working = max(rows * denoiser.peak, decoder.peak)  # images are decoded one at a time
    return (
        f"about {in_units(PROGRAM + weights + captured + working)} of memory at most in the pass over images: weights "
        f"{in_units(weights)}, a batch in the networks {in_units(working)}, activations {in_units(captured)}, the "
        f"program {in_units(PROGRAM)}; {denoiser.operations:.3g} operations for each row of an evaluation, "
        f"{decoder.operations:.3g} to decode an image"
    )
