"""Strengths of penalties that validation images have chosen, and whether the best lie beyond those on offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Strengths = Mapping[str, Mapping[str, Sequence[float]]]
"""Property -> layer -> the strength that the probe of each step has."""


def edge_lines(chosen: Mapping[str, Strengths], offered: Sequence[float]) -> list[str]:
    """One line for people where probes have the smallest or the largest strength on offer, else none.

    A probe with such a strength might be better with one beyond it. Where only one is on offer, nothing is chosen.

    Args:
        chosen: by control, 'none' for the network itself.
        offered: `Recipe.strengths`.
    """
    smallest, largest = min(offered), max(offered)
    values = {
        control: [value for layers in properties.values() for each in layers.values() for value in each]
        for control, properties in chosen.items()
    }
    own, others = values.pop("none", []), [value for each in values.values() for value in each]
    at = {edge: [own.count(edge), others.count(edge)] for edge in (smallest, largest)}
    if smallest == largest or not any(map(sum, at.values())):
        return []
    told = [
        f"{name}, {edge:g}, was chosen by {at[edge][0]} of {len(own)} probes"
        + (f" and {at[edge][1]} of {len(others)} of controls" if others else "")
        for name, edge in (("the smallest", smallest), ("the largest", largest))
        if any(at[edge])
    ]
    wider = [f"{value:g}" for value, edge in ((smallest / 10, smallest), (10 * largest, largest)) if any(at[edge])]
    return [f"probe.strengths: {'; '.join(told)}. Better ones may lie beyond: add {' and '.join(wider)}"]
