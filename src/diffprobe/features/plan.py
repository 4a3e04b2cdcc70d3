"""What a run will cost, told before the work: network evaluations and bytes of activations."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
STORES = ("memory", "disk")
HEADROOM = 0.8  # share of the free memory or disk that activations may take


@dataclass(frozen=True)
class Plan:
    """Costs of one pass over all images.

    Attributes:
        images: number of images.
        evaluations: denoiser evaluations: images x sampling steps, each on a guidance batch of two where guided,
            plus one conditional evaluation per image and probed step for every control network.
        bytes: size of the activations that are held at once.
    """

    images: int
    evaluations: int
    bytes: int

    @property
    def size(self) -> str:
        """Bytes in the largest fitting unit."""
        value = float(self.bytes)
        for unit in ("B", "KB", "MB", "GB"):
            if value < 1000:
                return f"{value:.3g} {unit}"
            value /= 1000
        return f"{value:.3g} TB"


def plan_pass(
    images: int, sampling_steps: int, steps: Sequence[int], layers: Sequence[Layer], dtype: str, control_networks: int
) -> Plan:
    """The plan of a run over these layers and probed steps; activations are kept in `dtype`."""
    if dtype not in BYTES:
        raise UserError(f"features.dtype={dtype}: choose one of {', '.join(BYTES)}")
    elements = sum(layer.channels * layer.tokens for layer in layers)
    return Plan(
        images=images,
        evaluations=images * (sampling_steps + control_networks * len(steps)),
        bytes=images * len(steps) * elements * BYTES[dtype],
    )


def check_room(plan: Plan, store: str, folder: Path) -> None:
    """Refuses a plan that does not fit.

    Raises:
        UserError: unknown store, or more bytes than the free memory or disk can take.
    """
    if store not in STORES:
        raise UserError(f"features.store={store}: choose one of {', '.join(STORES)}")
    free = psutil.virtual_memory().available if store == "memory" else shutil.disk_usage(folder).free
    if plan.bytes > HEADROOM * free:
        other = "" if store == "disk" else "features.store=disk, "
        raise UserError(
            f"the activations of {plan.images} images need {plan.size} of {store}, of which {free / 1e9:.1f} GB are "
            f"free; choose {other}fewer layers, steps or images (data.count)"
        )
