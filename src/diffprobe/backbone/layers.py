"""The layers of a denoiser: a catalogue that the network itself fills in, and the choice of some of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffprobe.backbone.spatial import SpatialSizes, first_tensor
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# What the parts of a diffusers U-Net are called; a module that matches none is named after its class.
KINDS = (
    (r"\.attn1\.to_out\.0$", "self_attention"),
    (r"\.attn2\.to_out\.0$", "cross_attention"),
    (r"\.resnets\.\d+$", "resnet"),
    (r"\.attentions\.\d+$", "attention_block"),
    (r"\.transformer_blocks\.\d+$", "transformer_block"),
    (r"\.ff$", "feed_forward"),
    (r"\.(down|up)samplers\.\d+$", "sampler"),
    (r"^(down_blocks\.\d+|mid_block|up_blocks\.\d+)$", "block"),
)
STAGES = {"conv_in": "encoder", "down_blocks": "encoder", "mid_block": "mid"}
KEYS = ("kind", "stage", "resolution")

# Longer than any text and prime, so that text tokens are never taken for the height x width tokens of an image.
_TEXT_TOKENS = 251


@dataclass(frozen=True)
class Layer:
    """A named module of the denoiser and the shape of its activation, [batch, channels, height, width]."""

    name: str
    kind: str
    stage: str
    channels: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Number of positions, height * width."""
        return self.height * self.width

    @property
    def resolution(self) -> str:
        """'16' if square, else height x width, '16x24': what `resolution=` selects."""
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"


def catalogue(denoiser: UNet2DConditionModel) -> list[Layer]:
    """Every module with a spatial output, in execution order (a block comes after its parts).

    Found by one forward of a twin without weights on the meta device, at the latent size of the denoiser's config.
    Not listed: modules that hand on their input untouched (dropout) or that run more than once in a forward, since
    their name does not stand for one activation.

    Raises:
        UserError: the denoiser needs more inputs than noise, timestep and text (Stable Diffusion XL, upscalers).
    """
    config: Any = denoiser.config
    for key in ("addition_embed_type", "class_embed_type", "num_class_embeds"):
        if config.get(key) is not None:
            raise UserError(f"a U-Net with {key}={config[key]!r} needs more than noise, timestep and text: unsupported")
    with torch.device("meta"):
        twin: Any = denoiser if denoiser.device.type == "meta" else type(denoiser).from_config(config)
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        noise = torch.empty(1, config.in_channels, height, width)
        text = torch.empty(1, _TEXT_TOKENS, config.encoder_hid_dim or config.cross_attention_dim)
    return _observe(twin.eval(), noise, text)


@torch.no_grad()
def _observe(denoiser: nn.Module, noise: torch.Tensor, text: torch.Tensor) -> list[Layer]:
    """Runs the denoiser once with a hook on every module."""
    modules = dict(denoiser.named_modules())
    sizes = SpatialSizes(modules, modules)
    found: list[Layer] = []
    runs: Counter[str] = Counter()

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        runs[name] += 1
        image = sizes.as_image(name, first_tensor(output))
        if image is not None and not (inputs and output is inputs[0]):
            found.append(Layer(name, _kind(name, module), _stage(name), *image.shape[1:]))

    hooks = [module.register_forward_hook(partial(record, name)) for name, module in modules.items() if name]
    try:
        denoiser(noise, 0, encoder_hidden_states=text, return_dict=False)
    finally:
        for handle in (*hooks, *sizes.handles):
            handle.remove()
    return [layer for layer in found if runs[layer.name] == 1]


def _kind(name: str, module: nn.Module) -> str:
    kind = next((kind for pattern, kind in KINDS if re.search(pattern, name)), None)
    return kind or ("convolution" if isinstance(module, nn.Conv2d) else type(module).__name__.lower())


def _stage(name: str) -> str:
    return STAGES.get(name.split(".")[0], "decoder")


def select_layers(layers: list[Layer], wanted: str | Sequence[str]) -> list[Layer]:
    """The layers that match any of the items, in the order of `layers` and without duplicates.

    An item is a full name, a glob (`up_blocks.*.resnets.*`), a kind (`self_attention`), a condition
    (`kind=resnet`, `stage=decoder`, `resolution=16`, `resolution=16x24`), or several joined by `&`
    (`self_attention&stage=decoder`).

    Raises:
        UserError: an item matches nothing; the message lists what comes nearest.
    """
    items = [wanted] if isinstance(wanted, str) else list(wanted)
    if not items:
        raise UserError("no layers asked for; name at least one, for example layers=self_attention")
    chosen = {layer for item in items for layer in _matching(layers, item)}
    return [layer for layer in layers if layer in chosen]


def _matching(layers: list[Layer], item: str) -> list[Layer]:
    """The layers that meet every condition of one item."""
    matching = layers
    for part in item.split("&"):
        meets = {layer.name for layer in _meeting(layers, part.strip())}
        matching = [layer for layer in matching if layer.name in meets]
    if not matching:
        raise UserError(f"no layer is {item!r}: each of its conditions is met by some layer, but none meets them all")
    return matching


def _meeting(layers: list[Layer], condition: str) -> list[Layer]:
    """The layers that meet one condition, at least one."""
    key, equals, value = condition.partition("=")
    if equals and key not in KEYS:
        raise UserError(f"cannot choose layers by {key!r} (in {condition!r}); choose by one of {', '.join(KEYS)}")
    if not equals and condition in {layer.kind for layer in layers}:
        key, equals, value = "kind", "=", condition
    if equals:
        meeting = [layer for layer in layers if getattr(layer, key) == value]
        if not meeting:
            have = ", ".join(dict.fromkeys(getattr(layer, key) for layer in layers))
            raise UserError(f"no layer has {key} {value!r}; this model has: {have}")
        return meeting
    meeting = [layer for layer in layers if layer.name == condition or fnmatchcase(layer.name, condition)]
    if not meeting:
        raise unknown_layer(condition, [*(layer.name for layer in layers), *(layer.kind for layer in layers)])
    return meeting


def unknown_layer(name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is no layer, with the nearest names that are."""
    nearest = get_close_matches(name, list(dict.fromkeys(known)), n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return UserError(f"no layer {name!r} in this model{hint}; `python -m diffprobe.backbone MODEL` lists all layers")
