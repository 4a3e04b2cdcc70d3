"""The parts of a run that its configuration names by class (`_target_`), held against the signatures of the classes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

from diffprobe.errors import UserError
from diffprobe.ranges import checked_value, shown

OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


@dataclass(frozen=True)
class Part:
    """A class of this package with its arguments, each of the type and range of the signature."""

    def checked(self, value: Any, key: str) -> Any:
        """Raises UserError for what names no class, and for an argument that the class does not take."""
        if not isinstance(value, Mapping) or not isinstance(value.get("_target_"), str):
            group = key.replace(".", "/")
            raise UserError(f"{key}={shown(value)}: names no class; choose one of the configurations in conf/{group}")
        made = _class_named(value["_target_"])
        return {**value, **_arguments(value, made, key)} if made else value


def _arguments(given: Mapping[str, Any], made: type, key: str) -> dict[str, Any]:
    signature = inspect.signature(made).parameters
    hints = get_type_hints(made.__init__, include_extras=True)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values())
    found = {}
    for name, value in given.items():
        place = f"{key}.{name}"
        if name in OF_HYDRA or value == "???":
            continue
        if isinstance(value, Mapping) and "_target_" in value:
            found[name] = Part().checked(value, place)
        elif name in signature:
            found[name] = checked_value(value, hints.get(name, Any), place)
        elif not open_ended:
            raise UserError(f"unknown key {place!r}; {made.__name__} takes {', '.join(signature) or 'nothing'}")
    return found


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
