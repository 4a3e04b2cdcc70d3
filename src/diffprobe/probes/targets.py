"""Label maps to what probes learn and are judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.probes.functional import Grid, token_means
from diffprobe.probes.properties import property_named


def target_maps(targets: Mapping[str, Tensor], name: str, names: Sequence[str]) -> Tensor:
    """Target maps [images, H, W] of property `name`, from the label maps of the images called `names`.

    Raises UserError for an unknown property, a wrong number of label maps, and label maps that are not finite.
    """
    item = property_named(name)
    if name not in targets:
        raise UserError(f"no label maps for property {name!r}: there are {', '.join(targets) or 'none'}.")
    labels = targets[name]
    if labels.ndim != 3 or len(labels) != len(names):
        raise UserError(f"{name}: label maps of shape {tuple(labels.shape)}, expected [{len(names)}, height, width].")
    finite = labels.isfinite().flatten(1).all(1).tolist()
    broken = [image for image, good in zip(names, finite, strict=True) if not good]
    if broken:
        raise UserError(f"{name}: {len(broken)} label maps are not finite, the first is that of image {broken[0]!r}.")
    return item.target(labels)


def token_targets(maps: Tensor, grids: Iterable[Grid]) -> dict[Grid, Tensor]:
    """Mean target of each token for each grid (h, w): {grid: [images, h, w]}, from target maps [images, H, W]."""
    return {grid: token_means(maps, grid) for grid in grids}
