"""The layers of a denoiser: a catalogue that the network itself fills in, and the choice of some of them.

Where the image is in what a module returns: transformers hand on tokens, with or beside those of the text.

A model's denoiser without its weights: enough to list its layers before anything large is downloaded.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffprobe.backbone.families import BY_DENOISER, Family, family_of
from diffprobe.backbone.model_folder import fetch_configs, find_model, quiet, read_config, unreadable
from diffprobe.errors import UserError

# Blocks for image and text side by side return both in a tuple, the text first.
_TWO_STREAMS = re.compile(r"(^|\.)(single_)?transformer_blocks\.\d+$")
# Inside FLUX's single blocks, image and text are one sequence, the text first.
_JOINED = re.compile(r"(^|\.)single_transformer_blocks\.\d+\.")
# Text alone, and norms of attention heads, which may happen to be as long as an image is.
_NO_IMAGE = re.compile(r"_context\b|\bcontext_|\bcaption_|\.(add_[qkv]_proj|to_add_out)\b|\.norm_(added_)?[qk]$")


@dataclass(frozen=True)
class ImageLocation:
    """Where in a module's output the image is.

    Attributes:
        index: position in a tuple; None if the output is a tensor.
        first: the image's first token, after those of the text.
        size: height and width of the tokens; None if the tensor is an image already.
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
    """The height and width that came into modules during the running forward, to tell the shape of their tokens.

    The square root of the number of tokens would be wrong for images that are not square.
    """

    def __init__(self, modules: Mapping[str, nn.Module], names: Iterable[str]) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}
        self.handles: list[RemovableHandle] = [
            modules[name].register_forward_pre_hook(partial(self._remember, name), with_kwargs=True) for name in names
        ]

    def _remember(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        size = _incoming_size(module, args, kwargs)
        if size is not None:
            self._sizes[name] = size

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
        size = next((self._sizes[around] for around in enclosing(name) if around in self._sizes), None)
        if size is None:
            return None
        text = output.shape[1] - size[0] * size[1]
        if text == 0 or (text > 0 and _JOINED.search(name)):
            return ImageLocation(index, text, size)
        return None


def _incoming_size(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the image that comes into a module; of its tokens, if it is a whole transformer."""
    if "img_ids" in kwargs:  # FLUX is given tokens, and where each is: the last one in the last row and column
        _, row, column = kwargs["img_ids"].reshape(-1, 3)[-1].tolist()
        return int(row) + 1, int(column) + 1
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim == 4:
            patch = getattr(getattr(module, "config", None), "patch_size", None) or 1
            return value.shape[-2] // patch, value.shape[-1] // patch
    return None


def enclosing(name: str) -> list[str]:
    """The names of the modules around `name`, nearest first; the last is the network itself, the empty name."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1)]


# What the parts of diffusers' networks are called; a module that matches none is named after its class. Where image
# and text attend to each other in one attention, its output for the image counts as self-attention.
KINDS = (
    (r"\.(attn1?|attentions\.\d+)\.to_out\.0$", "self_attention"),
    (r"^single_transformer_blocks\.\d+\.attn$", "self_attention"),
    (r"\.attn2\.to_out\.0$", "cross_attention"),
    (r"\.resnets\.\d+$", "resnet"),
    (r"\.attentions\.\d+$", "attention_block"),
    (r"(^|\.)(single_)?transformer_blocks\.\d+$", "transformer_block"),
    (r"\.ff$", "feed_forward"),
    (r"\.(down|up)samplers\.\d+$", "sampler"),
    (r"^(down_blocks\.\d+|mid_block|up_blocks\.\d+)$", "block"),
)
# A U-Net's stages (what is not named is its decoder), and a transformer's: input, block0, block1 and so on, output.
STAGES = {
    "conv_in": "encoder",
    "down_blocks": "encoder",
    "mid_block": "mid",
    "pos_embed": "input",
    "x_embedder": "input",
    "norm_out": "output",
    "proj_out": "output",
}
KEYS = ("kind", "stage", "resolution")


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


def catalogue(denoiser: nn.Module) -> list[Layer]:
    """Every module with a spatial output, in execution order (a block comes after its parts).

    Found by one forward of a twin without weights on the meta device, at the latent size of the denoiser's config.
    Not listed: modules that hand on their input untouched (dropout) or that run more than once in a forward, since
    their name does not stand for one activation.

    Raises:
        UserError: a network that is not supported, or one that needs inputs which are not (upscalers, classes).
    """
    family, network = family_of(denoiser), type(denoiser)
    config: Any = denoiser.config
    known = inspect.signature(network.__init__).parameters
    with torch.device("meta"):
        conditions = family.example(config)
        latents = torch.empty(1, *family.latent_shape(config))
        twin: Any = denoiser
        if next(denoiser.parameters()).device.type != "meta":
            twin = network.from_config({key: config[key] for key in config if key in known})  # type: ignore[attr-defined]
    return _observe(twin.eval(), family, lambda: family.evaluate(twin, latents, 0, conditions))


@torch.no_grad()
def _observe(denoiser: nn.Module, family: Family, run: Callable[[], Any]) -> list[Layer]:
    """Runs the denoiser once with a hook on every module."""
    modules = dict(denoiser.named_modules())
    sizes = SpatialSizes(modules, modules)
    side_by_side = sum(bool(re.fullmatch(r"transformer_blocks\.\d+", name)) for name in modules)
    found: list[Layer] = []
    runs: Counter[str] = Counter()

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        runs[name] += 1
        place = sizes.image_location(name, output)
        if place is not None and not (inputs and output is inputs[0]):
            shape = place.read(output).shape[1:]
            found.append(Layer(name, _kind(name, module, family), _stage(name, side_by_side), *shape))

    hooks = [module.register_forward_hook(partial(record, name)) for name, module in modules.items() if name]
    try:
        run()
    finally:
        for handle in (*hooks, *sizes.handles):
            handle.remove()
    return [layer for layer in found if runs[layer.name] == 1]


def _kind(name: str, module: nn.Module, family: Family) -> str:
    kind = next((kind for pattern, kind in (*family.kinds, *KINDS) if re.search(pattern, name)), None)
    return kind or ("convolution" if isinstance(module, nn.Conv2d) else type(module).__name__.lower())


def _stage(name: str, side_by_side: int) -> str:
    """Blocks of a transformer are counted in the order they run: the single ones come after those side by side."""
    block = re.match(r"(single_)?transformer_blocks\.(\d+)", name)
    if block:
        return f"block{int(block[2]) + (side_by_side if block[1] else 0)}"
    return STAGES.get(name.split(".")[0], "decoder")


def select_layers(layers: list[Layer], wanted: str | Sequence[str]) -> list[Layer]:
    """The layers that match any of the items, in the order of `layers` and without duplicates.

    An item is a full name, a glob (`up_blocks.*.resnets.*`), a kind (`self_attention`), a condition
    (`kind=resnet`, `stage=decoder`, `resolution=16`, `resolution=16x24`; values may be globs, `stage=block1?`), or
    several joined by `&` (`self_attention&stage=decoder`).

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
        meets = {layer.name for layer in _satisfying(layers, part.strip())}
        matching = [layer for layer in matching if layer.name in meets]
    if not matching:
        raise UserError(f"no layer is {item!r}: each of its conditions is met by some layer, but none meets them all")
    return matching


def _satisfying(layers: list[Layer], condition: str) -> list[Layer]:
    """The layers that meet one condition, at least one."""
    key, equals, value = condition.partition("=")
    if equals and key not in KEYS:
        raise UserError(f"cannot choose layers by {key!r} (in {condition!r}); choose by one of {', '.join(KEYS)}")
    if not equals and condition in {layer.kind for layer in layers}:
        key, equals, value = "kind", "=", condition
    if equals:
        meeting = [layer for layer in layers if fnmatchcase(getattr(layer, key), value)]
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


SD14 = Path(str(files("diffprobe") / "backbone" / "configs" / "stable-diffusion-v1-4"))
CONFIG_FILES = ("unet/config.json", "transformer/config.json", "config.json")


def denoiser_without_weights(path: str) -> Any:
    """The denoiser of a model on the meta device, built from its config alone.

    Args:
        path: 'pocket', 'sd14' (its config is shipped), a pipeline folder, a denoiser's folder, a hub id, or a Stable
            Diffusion 1.x checkpoint file.

    Raises:
        UserError: no such model, or its config is not of a denoiser that is supported.
    """
    source = SD14 if path == "sd14" else find_model(path)
    if isinstance(source, Path) and source.is_file():
        source = SD14
    config = _denoiser_config(source if isinstance(source, Path) else fetch_configs(source))
    with quiet(), torch.device("meta"):
        import diffusers

        name = _class_name(config)
        if name not in BY_DENOISER:
            raise UserError(f"the denoiser of {path!r} is a {name}, not one of {', '.join(BY_DENOISER)}")
        try:
            return getattr(diffusers, name).from_config(config)
        except Exception as error:  # a config of the right class with impossible values
            raise unreadable(path, error) from error


def _class_name(config: dict[str, Any]) -> str | None:
    name = config.get("_class_name")
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single":
        return "PixArtTransformer2DModel"  # as it was called when PixArt was published
    return name


def _denoiser_config(folder: Path) -> dict[str, Any]:
    file = next((folder / place for place in CONFIG_FILES if (folder / place).is_file()), None)
    if file is None:
        raise UserError(f"{folder} has none of {', '.join(CONFIG_FILES)}; name a pipeline folder or a denoiser's")
    return read_config(file)
