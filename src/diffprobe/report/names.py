"""Short names for layers, as they stand beside a figure or in a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from diffprobe.tables import NO_STEP, Step

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer

_UNET = re.compile(
    r"(?P<stage>down|up)_blocks\.(?P<block>\d+)\.(?:attentions|resnets)\.(?P<item>\d+)\b"
    r"|(?P<mid>mid)_block\.(?:attentions|resnets)\.(?P<mid_item>\d+)\b"
)
_STAGES = {"down": 0, "mid": 1, "up": 2}
_KINDS = {"attn1": "self", "attn2": "cross", "resnets": "resnet", "ff": "feed forward"}
_WITHIN = {"resnet": 0, "self": 1, "cross": 2, "feed forward": 3}


def short_names(layers: Iterable[str]) -> dict[str, str]:
    """'up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0' -> 'up 3.0'; unknown shapes keep their name.

    Layers that would share a short name get their kind added ('up 3.0 cross'), and keep their full name if that does
    not tell them apart.
    """
    names = list(dict.fromkeys(layers))
    plain = {name: _block(name) for name in names}
    qualified = {name: f"{_block(name)} {_kind(name)}".strip() for name in names}
    plain_count, qualified_count = Counter(plain.values()), Counter(qualified.values())

    def short(name: str) -> str:
        if plain_count[plain[name]] == 1:
            return plain[name]
        return qualified[name] if qualified_count[qualified[name]] == 1 else name

    return {name: short(name) for name in names}


def place_name(layer: str, step: Step) -> str:
    """'encoder16, step 3'; steps count from 1. The layer alone where there is no step."""
    return layer if step == NO_STEP else f"{layer}, step {step + 1}"


def network_order(layers: Iterable[str]) -> list[str]:
    """Layers of a U-Net from its input to its output; others after them, in the order given."""
    return sorted(dict.fromkeys(layers), key=_position)


def resolutions(layers: Sequence[Layer]) -> dict[str, str]:
    """'16x16' for each layer's full name."""
    return {layer.name: f"{layer.height}\N{MULTIPLICATION SIGN}{layer.width}" for layer in layers}


def _block(name: str) -> str:
    match = _UNET.match(name)
    if match is None:
        return name
    if match["mid"]:
        return "mid" if match["mid_item"] == "0" else f"mid {match['mid_item']}"
    return f"{match['stage']} {match['block']}.{match['item']}"


def _kind(name: str) -> str:
    parts = name.split(".")
    return next((word for part, word in _KINDS.items() if part in parts), "")


def _position(name: str) -> tuple[int, int, int, int]:
    match = _UNET.match(name)
    if match is None:
        return (len(_STAGES), 0, 0, 0)
    # A U-Net block runs residual block 0, attention 0, residual block 1, attention 1 ...
    within = _WITHIN.get(_kind(name), len(_WITHIN))
    if match["mid"]:
        return (_STAGES["mid"], 0, int(match["mid_item"]), within)
    return (_STAGES[match["stage"]], int(match["block"]), int(match["item"]), within)
