"""The parts of a run that its configuration names by class (`_target_`), held against the signatures of the classes.

The parts that a configuration names by class (`_target_`): made of this package's own classes alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from diffprobe.errors import UserError
from diffprobe.ranges import checked_value, shown

OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


@dataclass(frozen=True)
class Part:
    """A class of this package with its arguments, each of the type and range of the signature."""

    def checked(self, value: Any, key: str) -> Any:
        """Raises UserError for what names no class. Arguments that it does not take are left to `check_arguments`."""
        if not isinstance(value, Mapping) or not str(value.get("_target_") or "").strip():
            group = key.replace(".", "/")
            raise UserError(f"{key}={shown(value)}: names no class; choose one of the configurations in conf/{group}")
        made = _class_named(value["_target_"])
        if made is None:
            return value
        hints = get_type_hints(made.__init__, include_extras=True)
        return {name: _argument(given, hints.get(name, Any), f"{key}.{name}") for name, given in value.items()}


def check_arguments(value: Any, key: str) -> None:
    """Raises UserError for an argument that the class of a part, or of a part of it, does not take or lacks."""
    made = _class_named(str(value["_target_"]))
    if made is None:
        return
    takes = inspect.signature(made).parameters
    needed = [name for name, one in takes.items() if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    lacking = [f"{key}.{name}" for name in needed if name not in value]
    if lacking and key != "logger":  # which is made with the run folder
        raise UserError(f"{lacking[0]} is not set, and {made.__name__} needs it; give it as {lacking[0]}=VALUE")
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    for name, given in value.items():
        if isinstance(given, Mapping) and "_target_" in given:
            check_arguments(given, f"{key}.{name}")
        elif name not in (*OF_HYDRA, *takes) and not open_ended:
            raise UserError(f"unknown key '{key}.{name}'; {made.__name__} takes {', '.join(takes) or 'nothing'}")


def _argument(value: Any, hint: Any, key: str) -> Any:
    if value == "???" or key.rpartition(".")[2] in OF_HYDRA:
        return value
    if isinstance(value, Mapping) and "_target_" in value:
        return Part().checked(value, key)
    return checked_value(value, hint, key)


def _class_named(target: str) -> type | None:
    """The class, if it is one of this package."""
    module, _, name = target.rpartition(".")
    if not module.startswith("diffprobe."):
        return None
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return None
    return found if inspect.isclass(found) else None


# By group of conf/. A configuration may come from a stranger's run folder, and a name such as os.system, or
# diffprobe.labels.files.os.system, would run what it says; so a name that begins with the package is not enough.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "labeler": (
        "diffprobe.labels.pocket.PocketLabeler",
        "diffprobe.labels.files.FilesLabeler",
        "diffprobe.labels.per_property.PerProperty",
        "diffprobe.labels.depth.TransformersDepth",
        "diffprobe.labels.saliency.OnnxSaliency",
        "diffprobe.labels.shading.IntrinsicShading",
    ),
    "classifier": (
        "diffprobe.labels.classifiers.pocket.PocketClassifier",
        "diffprobe.labels.classifiers.image_models.TransformersClassifier",
        "diffprobe.labels.classifiers.torchvision_models.TorchvisionClassifier",
    ),
    "logger": ("diffprobe.report.tracking.CsvTracker", "diffprobe.report.tracking.WandbTracker"),
}


def make(chosen: Any, group: str, **options: Any) -> Any:
    """What a group of the configuration stands for.

    Args:
        chosen: the group's settings.
        group: its name, a key of `CLASSES`.
        options: of Hydra's `instantiate`.

    Raises:
        UserError: it names no class, or one that is not in `CLASSES`, at any depth.
    """
    from hydra.utils import instantiate

    plain = OmegaConf.to_container(chosen, resolve=True) if OmegaConf.is_config(chosen) else chosen
    if not isinstance(plain, dict) or "_target_" not in plain:
        raise UserError(f"{group} names no class; choose one of the configurations in conf/{group}")
    for key, target in _targets(plain, group):
        if target not in CLASSES[group]:
            raise UserError(
                f"{key}._target_={target}: only classes of this package can be named in a configuration, here "
                f"{', '.join(CLASSES[group])}"
            )
    return instantiate(chosen, **options)


def _targets(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield key, value["_target_"]
        for name, inner in value.items():
            yield from _targets(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _targets(inner, key)
