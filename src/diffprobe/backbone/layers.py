"""The layers of a denoiser: what their names say, a catalogue of them, and the selection of some.

All patterns of layer names are here: kinds, stages, short names, and where in a module's output the image is.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffprobe.backbone.families import family_of
from diffprobe.errors import UserError

# The output of an attention; its kind is self- or cross-attention. Where image and text attend to each other in one
# attention (Stable Diffusion 3, FLUX), its output for the image counts as self-attention.
_ATTENTION = re.compile(r"\.(attn\d?|attentions\.\d+)\.to_out\.0$|^single_transformer_blocks\.\d+\.attn$")
# Other kinds; a module that matches none is named after its class.
_KINDS = (
    (r"\.resnets\.\d+$", "resnet"),
    (r"\.attentions\.\d+$", "attention_block"),
    (r"(^|\.)(single_)?transformer_blocks\.\d+$", "transformer_block"),
    (r"\.ff$", "feed_forward"),
    (r"\.(down|up)samplers\.\d+$", "sampler"),
    (r"^(down_blocks\.\d+|mid_block|up_blocks\.\d+)$", "block"),
)
# Stages of a U-Net (all other modules are its decoder), and of a transformer, whose blocks are block0, block1, ...
_STAGES = {
    "conv_in": "encoder",
    "down_blocks": "encoder",
    "mid_block": "mid",
    "pos_embed": "input",
    "x_embedder": "input",
    "norm_out": "output",
    "proj_out": "output",
}
# Parts of a U-Net's layers for short names: stage, block (but for the middle one), and place in the block.
_UNET = re.compile(r"(down|mid|up)_blocks?(?:\.(\d+))?\.(?:attentions|resnets)\.(\d+)\b")
_UNET_STAGES = ("down", "mid", "up")
_SHORT_KINDS = {"resnets": "resnet", "attn1": "self", "attn2": "cross", "ff": "feed forward"}  # in execution order
# Blocks that return text and image in a tuple, the text first.
_TWO_STREAMS = re.compile(r"(^|\.)(single_)?transformer_blocks\.\d+$")
# Modules inside FLUX's single blocks, where text and image are one sequence, the text first.
_JOINED = re.compile(r"(^|\.)single_transformer_blocks\.\d+\.")
# Modules that see text alone, and norms of attention heads, whose output may happen to be as long as an image.
_NO_IMAGE = re.compile(r"_context\b|\bcontext_|\bcaption_|\.(add_[qkv]_proj|to_add_out)\b|\.norm_(added_)?[qk]$")
# Modules that `load_backbone` compiles, one by one: hooks inside a compiled module do not run.
COMPILED = re.compile(r"\.resnets\.\d+$|\.ff$|\.ff_context$")
_KEYS = ("kind", "stage", "resolution")


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
        """'16' if square, else height x width, '16x24'."""
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"


@torch.no_grad()
def catalogue(denoiser: nn.Module) -> list[Layer]:
    """Every module with a spatial output, in execution order (a block comes after its parts).

    Runs a copy without weights once, on the meta device and at the latent size of the denoiser's config. Modules that
    return their input unchanged (dropout) or run more than once in a forward are left out.

    Raises:
        UserError: the network is not supported, or needs inputs that are not (upscalers, class labels).
    """
    family, network = family_of(denoiser), type(denoiser)
    config: Any = denoiser.config
    with torch.device("meta"):
        conditions = family.example(config)
        latents = torch.empty(1, *family.latent_shape(config))
        copy: Any = denoiser
        if next(denoiser.parameters()).device.type != "meta":
            known = inspect.signature(network.__init__).parameters
            copy = network.from_config({key: config[key] for key in config if key in known})  # type: ignore[attr-defined]
    modules = dict(copy.eval().named_modules())
    sizes = SpatialSizes(modules, modules)
    layers: list[Layer] = []
    runs: Counter[str] = Counter()

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        runs[name] += 1
        location = sizes.image_location(name, output)
        if location is not None and not (inputs and output is inputs[0]):
            shape = location.read(output).shape[1:]
            layers.append(Layer(name, _kind(name, modules), _stage(name, modules), *shape))

    hooks = [module.register_forward_hook(partial(record, name)) for name, module in modules.items() if name]
    try:
        family.evaluate(copy, latents, 0, conditions)
    finally:
        for handle in (*hooks, *sizes.handles):
            handle.remove()
    return [layer for layer in layers if runs[layer.name] == 1]


def _kind(name: str, modules: Mapping[str, nn.Module]) -> str:
    if _ATTENTION.search(name):
        attention = modules[name.removesuffix(".to_out.0")]
        return "cross_attention" if getattr(attention, "is_cross_attention", False) else "self_attention"
    module = modules[name]
    by_class = "convolution" if isinstance(module, nn.Conv2d) else type(module).__name__.lower()
    return next((kind for pattern, kind in _KINDS if re.search(pattern, name)), by_class)


def _stage(name: str, modules: Mapping[str, nn.Module]) -> str:
    block = re.match(r"(single_)?transformer_blocks\.(\d+)", name)
    if block is None:
        return _STAGES.get(name.split(".")[0], "decoder")
    # FLUX's single blocks run after the others and are counted on.
    before = sum(bool(re.fullmatch(r"transformer_blocks\.\d+", other)) for other in modules) if block[1] else 0
    return f"block{before + int(block[2])}"


def select_layers(layers: list[Layer], wanted: str | Sequence[str]) -> list[Layer]:
    """The layers that match any of the items, in the order of `layers` and without duplicates.

    An item is a full name, a glob (`up_blocks.*.resnets.*`), a kind (`self_attention`), a stage (`decoder`), a
    condition (`kind=resnet`, `stage=decoder`, `resolution=16x24`; values may be globs, `stage=block1?`), or several
    joined by `&`.

    Raises:
        UserError: an item matches nothing; the message has the nearest names or the values there are.
    """
    items = [wanted] if isinstance(wanted, str) else list(wanted)
    if not items:
        raise UserError("no layers asked for; name at least one, for example layers=self_attention")
    chosen: set[Layer] = set()
    for item in items:
        matching = set(layers)
        for condition in item.split("&"):
            matching &= _meeting(layers, condition.strip())
        if not matching:
            raise UserError(
                f"no layer is {item!r}: each of its conditions is met by some layer, but none meets them all"
            )
        chosen |= matching
    return [layer for layer in layers if layer in chosen]


def _meeting(layers: list[Layer], condition: str) -> set[Layer]:
    """The layers that meet one condition, at least one."""
    key, equals, value = condition.partition("=")
    if equals and key not in _KEYS:
        raise UserError(f"cannot choose layers by {key!r} (in {condition!r}); choose by one of {', '.join(_KEYS)}")
    if not equals:
        bare = [key for key in ("name", "kind", "stage") if condition in {getattr(layer, key) for layer in layers}]
        key, value = bare[0] if bare else "name", condition
    meeting = {layer for layer in layers if fnmatchcase(getattr(layer, key), value)}
    if not meeting and key == "name":
        raise unknown_layer(condition, [getattr(layer, key) for key in ("name", "kind", "stage") for layer in layers])
    if not meeting:
        have = ", ".join(dict.fromkeys(getattr(layer, key) for layer in layers))
        raise UserError(f"no layer has {key} {value!r}; this model has: {have}")
    return meeting


def unknown_layer(name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is no layer, with the nearest names that are."""
    nearest = get_close_matches(name, list(dict.fromkeys(known)), n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return UserError(f"no layer {name!r} in this model{hint}; `python -m diffprobe.backbone MODEL` lists all layers")


def short_names(layers: Iterable[str]) -> dict[str, str]:
    """'up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0' -> 'up 3.0'; other networks' keep their name.

    Layers that would share a short name get their kind added ('up 3.0 cross'), and keep their full name if that does
    not tell them apart.
    """
    names = list(dict.fromkeys(layers))
    plain = {name: _short_block(name) for name in names}
    qualified = {name: f"{plain[name]} {_short_kind(name)}".strip() for name in names}
    plain_count, qualified_count = Counter(plain.values()), Counter(qualified.values())

    def short(name: str) -> str:
        if plain_count[plain[name]] == 1:
            return plain[name]
        return qualified[name] if qualified_count[qualified[name]] == 1 else name

    return {name: short(name) for name in names}


def network_order(layers: Iterable[str]) -> list[str]:
    """Layers of a U-Net from its input to its output; others after them, in the order given."""
    kinds = [*_SHORT_KINDS.values(), ""]

    def position(name: str) -> tuple[int, int, int, int]:
        match = _UNET.match(name)
        if match is None:
            return (len(_UNET_STAGES), 0, 0, 0)
        stage, block, place = match.groups()  # a block runs residual block 0, attention 0, residual block 1, ...
        return (_UNET_STAGES.index(stage), int(block or 0), int(place), kinds.index(_short_kind(name)))

    return sorted(dict.fromkeys(layers), key=position)


def _short_block(name: str) -> str:
    match = _UNET.match(name)
    if match is None:
        return name
    stage, block, place = match.groups()
    if block is None:
        return stage if place == "0" else f"{stage} {place}"
    return f"{stage} {block}.{place}"


def _short_kind(name: str) -> str:
    parts = name.split(".")
    return next((kind for part, kind in _SHORT_KINDS.items() if part in parts), "")


@dataclass(frozen=True)
class ImageLocation:
    """Where in a module's output the image is: transformers return tokens, with or beside those of the text.

    Attributes:
        index: position in a tuple; None if the output is a tensor.
        first: index of the image's first token, after those of the text.
        size: height and width in tokens; None if the tensor is [batch, channels, height, width] already.
    """

    index: int | None
    first: int
    size: tuple[int, int] | None

    def read(self, output: Any) -> Tensor:
        """The image as a view [batch, channels, height, width]."""
        tensor = output if self.index is None else output[self.index]
        return tensor if self.size is None else tensor[:, self.first :].transpose(1, 2).unflatten(2, self.size)

    def write(self, output: Any, image: Tensor) -> Any:
        """The output with another image in the place of its own."""
        tensor = image
        if self.size is not None:
            text = (output if self.index is None else output[self.index])[:, : self.first]
            tensor = torch.cat([text, image.flatten(2).transpose(1, 2)], dim=1)
        if self.index is None:
            return tensor
        return (*output[: self.index], tensor, *output[self.index + 1 :])


class SpatialSizes:
    """Height and width of the inputs of modules during a forward, which give the shape of their tokens."""

    def __init__(self, modules: Mapping[str, nn.Module], names: Iterable[str]) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}
        self.handles: list[RemovableHandle] = [
            modules[name].register_forward_pre_hook(partial(self._record, name), with_kwargs=True) for name in names
        ]

    def _record(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "img_ids" in kwargs:  # FLUX gets tokens and the position of each; the last is the last row and column
            _, row, column = kwargs["img_ids"].reshape(-1, 3)[-1].tolist()
            self._sizes[name] = int(row) + 1, int(column) + 1
            return
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.ndim == 4:
                patch = getattr(getattr(module, "config", None), "patch_size", None) or 1
                self._sizes[name] = value.shape[-2] // patch, value.shape[-1] // patch
                return

    def image_location(self, name: str, output: Any) -> ImageLocation | None:
        """Where the image is in the output of module `name`; None if there is none (text tokens, a time embedding)."""
        index = None
        if isinstance(output, tuple):
            index = int(len(output) > 1 and bool(_TWO_STREAMS.search(name)))
            output = output[index] if output else None
        if not isinstance(output, Tensor) or output.ndim not in (3, 4) or _NO_IMAGE.search(name):
            return None
        if output.ndim == 4:
            return ImageLocation(index, 0, None)
        size = next((self._sizes[outer] for outer in enclosing(name) if outer in self._sizes), None)
        if size is None:
            return None
        text = output.shape[1] - size[0] * size[1]
        joined = text > 0 and _JOINED.search(name)
        return ImageLocation(index, text, size) if text == 0 or joined else None


def enclosing(name: str) -> list[str]:
    """The names of the modules around `name`, nearest first; the last is the network itself, the empty name."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1)]
