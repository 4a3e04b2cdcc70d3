"""What a probe has to beat: the network with its weights permuted or new, and shuffled labels."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from diffprobe.probes.splits import PARTS, Split

Denoiser = TypeVar("Denoiser", bound=nn.Module)


@torch.no_grad()
def permute_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser whose every weight and bias tensor has its own elements in a random order.

    Each tensor keeps its distribution and the network its architecture; what training arranged is gone. Drawn on the
    CPU in the order of `named_parameters`, so it depends on nothing but the seed. The original is left as it is.
    """
    permuted = copy.deepcopy(denoiser)
    generator = torch.Generator().manual_seed(seed)
    for parameter in permuted.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return permuted


@torch.no_grad()
def fresh_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser, a network of diffusers, whose every parameter is as its class makes it: never trained.

    Tables of positions and other buffers, which nobody trained, are the original's, and so are precision and place.
    Drawn on the CPU in float32, so it depends on nothing but class, configuration and seed; torch's own random state
    is not touched. The original is left as it is.
    """
    network: Any = type(denoiser)
    config: Any = denoiser.config
    known = inspect.signature(network.__init__).parameters
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        new = network.from_config({key: config[key] for key in config if key in known})
    fresh = copy.deepcopy(denoiser)
    for name, parameter in fresh.named_parameters():
        parameter.copy_(new.get_parameter(name))
    return fresh


def shuffled_targets(targets: Mapping[str, Tensor], split: Split, seed: int = 0) -> dict[str, Tensor]:
    """Label maps [images, H, W] by property, dealt out anew among the images of each part of the split.

    No image keeps its own, unless it is alone in its part; all properties are dealt alike. A probe that is trained,
    selected and scored with these is the control of Hewitt and Liang (2019, "Designing and Interpreting Probes with
    Control Tasks"), where as there it is judged by the shuffled labels, not by the true ones: what is left is what all
    label maps share, such as how often and where there is an object, read from the activations as they are. Their
    control labels belong to word types, which training and test have in common; images are not, so here a probe cannot
    score by learning labels by heart, and the control asks for less capacity than theirs.

    The training labels stay the same set, so standardisation and the unit of rmse stay the same too.
    """
    generator = torch.Generator().manual_seed(seed)
    source = torch.arange(len(next(iter(targets.values()))))
    for part in PARTS:
        rows = torch.tensor(getattr(split, part))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        source[shuffled] = shuffled.roll(1)  # one cycle through all of them
    return {name: maps[source] for name, maps in targets.items()}
