"""The properties that can be probed, one small file each."""

from __future__ import annotations

from difflib import get_close_matches

from diffprobe.errors import UserError
from diffprobe.probes.properties.depth import DEPTH
from diffprobe.probes.properties.property import Property, Standardisation
from diffprobe.probes.properties.saliency import SALIENCY
from diffprobe.probes.properties.shading import SHADING

PROPERTIES: dict[str, Property] = {item.name: item for item in (SALIENCY, DEPTH, SHADING)}


def property_named(name: str) -> Property:
    """The property called `name`. Raises UserError, listing the nearest names, if there is none."""
    if name not in PROPERTIES:
        near = get_close_matches(str(name), PROPERTIES, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PROPERTIES)}."
        raise UserError(f"unknown property {name!r}: {hint}")
    return PROPERTIES[name]


__all__ = ["PROPERTIES", "Property", "Standardisation", "property_named"]
