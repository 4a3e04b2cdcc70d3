"""The studies of objects in images, as functions: the same settings, defaults and numbers as of `analyze.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffprobe.api.models import LayerItems
from diffprobe.api.results import Result
from diffprobe.api.running import Given
from diffprobe.api.settings import choice_or_names
from diffprobe.api.studies import AnyModel, Overrides, run_study, where_and_when
from diffprobe.errors import UserError


def separation(
    model: AnyModel = "pocket",
    *,
    objects: str | None = None,
    root: str | Path | None = None,
    label: str | None = None,
    layers: LayerItems | None = None,
    timesteps: Sequence[int] | None = None,
    measures: str | Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """Whether objects of one class are near each other inside the network (docs/prototypes.md).

    Args:
        objects: 'scenes' of the built-in world, 'voc', 'coco', 'davis' or 'moving_scenes'.
        root: the folder of a data set.
        label: what makes the class of a scene's object: 'colour', 'shape' or 'both'.
        layers: as of `Model.layers`; the residual blocks by default.
        timesteps: of the noise that images are shown with; none by default.
        measures: 'pearson', 'all' or another choice of the group `measure`, or names of distances.
        count: images.
        others: as of `dp.probe`.

    >>> import diffprobe as dp
    >>> result = dp.separation("pocket", count=12, layers="mid & resnet", verbose=False,
    ...                        overrides=["statistics.permutations=19", "statistics.resamples=19"])
    >>> sorted(result.tables)[:3]
    ['means', 'objects', 'pairs']
    """
    settings = settings_of_objects(objects, root, label, layers, timesteps, measures, count, seed)
    return run_study("separation", model, Given(settings, overrides), verbose)


def drift(
    model: AnyModel = "pocket",
    change: str = "transforms",
    *,
    objects: str | None = None,
    root: str | Path | None = None,
    layers: LayerItems | None = None,
    measures: str | Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """How far objects move inside the network when their image is changed.

    Args:
        change: 'transforms' (turned, scaled, cropped ...), 'denoising' (noised and denoised again), or 'video'.
        others: as of `dp.separation`.

    >>> import diffprobe as dp
    >>> result = dp.drift("pocket", "video", count=3, layers="mid & resnet", verbose=False,
    ...                   overrides=["analysis.gaps=[1,2]"])
    >>> len(result.tables["drift"]) > 0
    True
    """
    if change not in ("transforms", "denoising", "video"):
        raise UserError(f"no change {change!r}; use one of transforms, denoising, video")
    settings = settings_of_objects(objects, root, None, layers, None, measures, count, seed)
    return run_study(change, model, Given(settings, overrides), verbose)


def settings_of_objects(
    objects: str | None,
    root: str | Path | None,
    label: str | None,
    layers: LayerItems | None,
    timesteps: Sequence[int] | None,
    measures: str | Sequence[str] | None,
    count: int | None,
    seed: int,
) -> dict[str, Any]:
    return {
        "objects": objects,
        "objects.root": root,
        "objects.label": label,
        "objects.count": count,
        **where_and_when(layers, None, None),
        "trajectory": None if timesteps is None else "noised",
        "trajectory.timesteps": timesteps,
        **dict(choice_or_names("measure", measures)),
        "seed": seed,
    }
