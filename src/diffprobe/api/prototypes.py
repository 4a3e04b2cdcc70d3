"""Prototypes of objects: activations averaged over each object's mask, for statistics of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.api.layers import Layers
from diffprobe.api.models import LayerItems, Model

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

    from diffprobe.prototypes.collecting import Prototypes


def object_prototypes(
    model: str | Path | Model = "pocket",
    *,
    objects: str | None = None,
    root: str | Path | None = None,
    label: str | None = None,
    layers: LayerItems | None = None,
    timesteps: Sequence[int] | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    verbose: bool = True,
) -> ObjectPrototypes:
    """Shows images to the network, and averages the activations of some layers over each object's mask.

    Prototypes are kept in `stores/`, where the same request, of `dp.separation` too, finds them again.

    Args:
        others: as of `dp.separation`.

    Raises:
        UserError: of what is wrong with any of these, before any image is shown.

    >>> import diffprobe as dp
    >>> found = dp.object_prototypes("pocket", count=6, layers="mid & resnet", verbose=False)
    >>> found["mid"].shape[1], list(found.objects.columns[:3])
    (96, ['object', 'image', 'label'])
    """
    from diffprobe.api.object_studies import settings_of_objects
    from diffprobe.api.running import Given, collect_prototypes

    settings = settings_of_objects(objects, root, label, layers, timesteps, None, count, seed)
    found: Any = collect_prototypes(model, Given(settings, overrides), verbose=verbose)
    return ObjectPrototypes(found)


@dataclass(frozen=True, eq=False)
class ObjectPrototypes:
    """`found[LAYER]`, by full or short name, is an array [objects, channels] in the order of `objects`.

    A row of NaN is of an object that covers no cell at the layer's resolution.
    """

    collected: Prototypes

    @cached_property
    def objects(self) -> DataFrame:
        """Of every object its name, image, label (the class) and area, a share of the image."""
        from diffprobe.prototypes.collecting import ObjectRow
        from diffprobe.report.report import frame_of

        return frame_of(ObjectRow, self.collected.objects)

    @property
    def layers(self) -> Layers:
        """The layers, of which each may be a group of several."""
        return Layers([group.layer for group in self.collected.inputs])

    @property
    def steps(self) -> dict[int, float]:
        """Step -> its timestep."""
        return dict(self.collected.timesteps)

    def __getitem__(self, layer: str) -> np.ndarray:
        return self.at(layer, next(iter(self.steps)))

    def at(self, layer: str, step: int) -> np.ndarray:
        """[objects, channels] at one of several steps. Raises UserError for a layer or step that is not here."""
        from diffprobe.errors import UserError

        if step not in self.steps:
            raise UserError(f"no step {step}; there are {', '.join(map(str, self.steps))}")
        wanted = self.layers.find(layer)
        group = next(group for group in self.collected.inputs if group.layer == wanted)
        return self.collected.matrix(group, step).numpy()

    def __repr__(self) -> str:
        classes = self.objects["label"].nunique()
        return f"{len(self.objects)} objects of {classes} classes, {len(self.layers)} layers, {len(self.steps)} steps"
