"""Which activations are kept on disk, and where: more than one study asks for, so that others find theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from diffprobe.activations.groups import LayerItems
from diffprobe.activations.sources.source import Steps
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Count, Folder


@dataclass(frozen=True)
class ActivationConfig:
    """How activations are made and kept.

    Attributes:
        store: 'memory', 'disk', or 'none', which uses them while they are computed.
        folder: of stores on disk.
        layers, steps: that a store keeps, as `layers.select` and `steps.select`; None those that are probed.
        images_per_shard: of a store on disk.
        dtype: of stores.
        half: of the guidance batch.
        batch_size: images at once.
    """

    store: Annotated[str, Choice("memory", "disk", "none")] = "memory"
    folder: Folder = "stores"
    layers: Annotated[Any, LayerItems] | None = None
    steps: Annotated[Any, Steps] | None = None
    images_per_shard: Count = 16
    dtype: Annotated[str, Choice("float32", "float16", "bfloat16")] = "float16"
    half: Annotated[str, Choice("conditional", "unconditional")] = "conditional"
    batch_size: Count = 20


@dataclass(frozen=True)
class StoreFolder:
    """A folder of activation stores, and what an extraction keeps there.

    Attributes:
        folder: holds one store for each model, set of images, layers and steps.
        layers, steps: what is kept, in order; None keeps what is asked for. Studies of parts of them share one store.
    """

    folder: Path
    layers: Sequence[Layer] | None = None
    steps: Sequence[int] | None = None

    def stored_layers_and_steps(self, layers: Sequence[Layer], steps: Sequence[int]) -> tuple[list[Layer], list[int]]:
        """What is kept for a study of these layers and steps.

        Raises:
            UserError: some of them are not among what is kept.
        """
        all_layers = list(layers if self.layers is None else self.layers)
        all_steps = list(steps if self.steps is None else self.steps)
        names = {layer.name for layer in all_layers}
        left_out = [layer.name for layer in layers if layer.name not in names]
        if left_out:
            raise UserError(
                f"{len(left_out)} of {len(layers)} layers to probe are not among the {len(names)} of features.layers, "
                f"first {left_out[0]}; add them there, or probe fewer (layers.select)"
            )
        missing = sorted(set(steps) - set(all_steps))
        if missing:
            raise UserError(
                f"steps {missing} are to be probed but are not among features.steps={all_steps}; add them there, or "
                "probe fewer (steps.select)"
            )
        return all_layers, all_steps


def as_store_folder(stores: StoreFolder | Path | None) -> StoreFolder | None:
    """A plain folder as stores that keep what is asked for."""
    return StoreFolder(stores) if isinstance(stores, Path) else stores
