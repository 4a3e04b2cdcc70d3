"""From `layers` and `features` settings to the layers and the stores that they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffprobe.doors.schema import chosen_steps
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.backbone.load import Backbone
    from diffprobe.doors.schema import ProbingSettings
    from diffprobe.features.groups import LayerGroup
    from diffprobe.features.keeping import Stores
    from diffprobe.features.sources.source import Source


def chosen_layers(select: Any, backbone: Backbone) -> list[Layer]:
    """The layers of the denoiser that one item or a list of them means.

    Raises:
        UserError: an item that fits none, with the nearest names.
    """
    from diffprobe.backbone.layers import catalogue, select_layers

    if select is None:
        raise UserError("layers.select is null; give at least one layer, such as layers=headline")
    return select_layers(catalogue(backbone.denoiser), select if isinstance(select, str) else list(select))


def chosen_groups(groups: Any, backbone: Backbone) -> list[LayerGroup]:
    """The groups of layers that `layers.groups` means. Raises UserError as `parse_groups`."""
    from diffprobe.backbone.layers import catalogue
    from diffprobe.features.groups import parse_groups

    return parse_groups(OmegaConf.to_container(groups), catalogue(backbone.denoiser)) if groups else []  # type: ignore[arg-type]


def make_stores(settings: ProbingSettings, backbone: Backbone, source: Source) -> Stores | None:
    """Where activations are kept on disk, and which; None where they stay in memory, or are not kept.

    Raises:
        UserError: no such place, or layers and steps to keep that the network or the source does not have.
    """
    from diffprobe.features.keeping import Stores
    from diffprobe.features.plan import STORES

    features = settings.features
    if features.store not in STORES:
        raise UserError(f"features.store={features.store}: choose one of {', '.join(STORES)}")
    if features.store == "none" and settings.probe.solver != "ridge":
        raise UserError("features=none keeps nothing, which only probe.solver=ridge can do without (probe=ridge)")
    if features.store != "disk":
        if features.layers is not None or features.steps is not None:
            raise UserError("features.layers and features.steps say what a store keeps: choose features=disk")
        return None
    return Stores(
        Path(features.folder),
        None if features.layers is None else chosen_layers(features.layers, backbone),
        None if features.steps is None else chosen_steps(features.steps, source.timesteps(backbone), "features.steps"),
    )
