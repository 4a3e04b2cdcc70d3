"""diffprobe: what a diffusion model knows, where in the network, and when in the denoising.

    import diffprobe as dp

    model = dp.load("pocket")
    result = dp.probe(model, count=60, properties="depth")
    result.summary

Every name below loads what it needs when it is first used, so that `import diffprobe` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffprobe.api.layers import Layers
    from diffprobe.api.models import Captured, Model, load, prompts
    from diffprobe.api.object_studies import drift, separation
    from diffprobe.api.prototypes import ObjectPrototypes, object_prototypes
    from diffprobe.api.results import Result, Run, read_run
    from diffprobe.api.studies import classify, compare, emergence, intervene, probe, shortcuts, similarity
    from diffprobe.backbone.trajectory import TrajectoryStep
    from diffprobe.data.prompts import Prompt
    from diffprobe.errors import UserError
    from diffprobe.properties import CustomProperty

# Name -> the module that it is loaded from.
_PLACES = {
    **dict.fromkeys(("Captured", "Model", "load", "prompts"), "diffprobe.api.models"),
    "Layers": "diffprobe.api.layers",
    **dict.fromkeys(("ObjectPrototypes", "object_prototypes"), "diffprobe.api.prototypes"),
    **dict.fromkeys(("Result", "Run", "read_run"), "diffprobe.api.results"),
    **dict.fromkeys(("drift", "separation"), "diffprobe.api.object_studies"),
    **dict.fromkeys(
        ("classify", "compare", "emergence", "intervene", "probe", "shortcuts", "similarity"), "diffprobe.api.studies"
    ),
    "TrajectoryStep": "diffprobe.backbone.trajectory",
    "Prompt": "diffprobe.data.prompts",
    "UserError": "diffprobe.errors",
    "CustomProperty": "diffprobe.properties",
}

__all__ = [
    "Captured",
    "CustomProperty",
    "Layers",
    "Model",
    "ObjectPrototypes",
    "Prompt",
    "Result",
    "Run",
    "TrajectoryStep",
    "UserError",
    "classify",
    "compare",
    "drift",
    "emergence",
    "intervene",
    "load",
    "object_prototypes",
    "probe",
    "prompts",
    "read_run",
    "separation",
    "shortcuts",
    "similarity",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'diffprobe' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
