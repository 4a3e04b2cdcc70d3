"""What is probed: properties by name, and the choice of a run among them and of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, get_type_hints

from diffprobe.errors import UserError
from diffprobe.properties.base import Legend, Picture, Property, Standardisation
from diffprobe.properties.binary import Binary
from diffprobe.properties.categorical import Categorical
from diffprobe.properties.continuous import Continuous
from diffprobe.properties.depth import Depth
from diffprobe.properties.known import PROPERTIES
from diffprobe.properties.vector import Vector
from diffprobe.ranges import Choice, Folder, Items, Name, Number, Text, WordOr, checked_value
from diffprobe.user_files import read_file

__all__ = [
    "PAPERS",
    "PROPERTIES",
    "CustomProperty",
    "Legend",
    "Picture",
    "Property",
    "PropertySelection",
    "Standardisation",
    "as_properties",
    "property_from",
    "property_named",
]

# As plain text, for checks of settings, which import nothing
PROPERTY_NAMES = ("saliency", "depth", "shading", "normals", "albedo", "shape", "colour", "shadow")
KIND_NAMES = ("binary", "continuous", "depth", "categorical", "vector")
PAPERS = PROPERTY_NAMES[:3]  # that Chen, Viégas and Wattenberg (2023) probe, and the default
Threshold = WordOr(("validation",), Annotated[float, Number(above=0, below=1)])

KINDS: dict[str, type[Property]] = {kind.kind: kind for kind in (Binary, Continuous, Depth, Categorical, Vector)}


def property_named(name: str) -> Property:
    """The property called `name`. Raises UserError, listing the nearest names, if there is none."""
    if name not in PROPERTIES:
        near = get_close_matches(str(name), PROPERTIES, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PROPERTIES)}."
        raise UserError(f"unknown property {name!r}: {hint}")
    return PROPERTIES[name]


def as_properties(properties: Sequence[str | Property]) -> dict[str, Property]:
    """Properties, or names of known ones, by name. Raises UserError for an unknown name, and for one given twice."""
    items = [property_named(item) if isinstance(item, str) else item for item in properties]
    found = {item.name: item for item in items}
    if len(found) < len(items):
        names = [item.name for item in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"property {twice} is there twice, among {', '.join(names)}; give each a name of its own, once")
    return found


def property_from(definition: Mapping[str, Any]) -> Property:
    """The property with this `Property.definition`. Raises UserError for one of no kind."""
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in definition.items()
    }
    kind = settings.pop("kind", None)
    if kind not in KIND_NAMES:
        raise UserError(f"{dict(definition)} defines no property: its kind must be one of {', '.join(KIND_NAMES)}")
    try:
        return KINDS[kind](**settings)
    except TypeError as error:
        raise UserError(f"{dict(definition)} defines no property: {error}") from error


@dataclass(frozen=True)
class CustomProperty:
    """A property of the user's own, whose maps come from files or from a labeler of their own.

    Attributes:
        name: of the property, and of its folder of maps.
        kind: 'binary' (a mask), 'continuous' (a quantity), 'depth' (relative inverse depth), 'categorical' (classes) or
            'vector'.
        classes: of a categorical property: names in the order of their numbers, or a text file with one a line.
        ignore: the number that stands for no class in files.
        channels, unit: of vectors, 3 and True by default; with `unit` only their directions count.
        learning_rate: Adam's.
        threshold: as of `PropertySelection`, of a binary property.
    """

    name: Annotated[str, Name()]
    kind: Annotated[str, Choice(*KIND_NAMES)]
    classes: Annotated[list[Annotated[str, Text()]], Items(2)] | Folder | None = None
    ignore: Annotated[int, Number(-(2**31), 2**31)] | None = None
    channels: Annotated[int, Number(1, 1000)] | None = None
    unit: bool | None = None
    learning_rate: Annotated[float, Number(above=0, high=10)] = 1e-3
    threshold: Annotated[Any, Threshold] = "validation"

    @property
    def names(self) -> list[str]:
        return [self.name]

    @cached_property
    def properties(self) -> list[Property]:
        """The one property. Raises UserError for classes that are missing or unreadable, and for settings of another
        kind."""
        definition: dict[str, Any] = {"name": self.name, "kind": self.kind, "learning_rate": self.learning_rate}
        if self.kind == "categorical" and self.classes is None:
            raise UserError(
                f"property {self.name}: kind categorical needs its classes; give a list of names, or a text file with "
                "one a line, as classes"
            )
        of_kinds = {"classes": "categorical", "ignore": "categorical", "channels": "vector", "unit": "vector"}
        for setting, kind in of_kinds.items():
            if self.kind != kind and getattr(self, setting) is not None:
                raise UserError(f"property {self.name}: kind {self.kind} has no {setting}; leave {setting} out")
        if self.kind != "binary" and self.threshold != "validation":
            raise UserError(f"property {self.name}: kind {self.kind} has no threshold; leave threshold out")
        if self.classes is not None:
            names = _class_names(self.classes) if isinstance(self.classes, str) else self.classes
            definition |= {"classes": tuple(names), "ignore": self.ignore}
        if self.kind == "vector":
            own = {"channels": self.channels, "unit": self.unit}
            definition |= {setting: value for setting, value in own.items() if value is not None}
        return [property_from(definition)]


def _class_names(path: str) -> list[str]:
    """The lines of a text file that are not empty. Raises UserError if it cannot be read as UTF-8, or holds no two
    different names."""
    try:
        lines = read_file(path, "the classes").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"the classes {path} are no text in UTF-8: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    return checked_value(names, Annotated[list[Annotated[str, Text()]], Items(2)], f"the classes in {path}")


@dataclass(frozen=True)
class PropertySelection:
    """Which properties are probed.

    Attributes:
        names: of known properties.
        own: the user's own, each as the arguments of `CustomProperty`.
        threshold: from which probability on a pixel is foreground: a number, or the best on validation images.
    """

    names: Annotated[list[Annotated[str, Choice(*PROPERTY_NAMES)]], Items()]
    own: Annotated[list[dict[str, Any]], Items()] = field(default_factory=list)
    threshold: Annotated[Any, Threshold] = "validation"

    @cached_property
    def properties(self) -> list[Property]:
        """Known ones, then the user's own. Raises UserError for none, for one twice, and as `CustomProperty`."""
        found = [property_named(name) for name in self.names]
        hints = get_type_hints(CustomProperty, include_extras=True)
        for number, arguments in enumerate(self.own):
            key = f"property.own[{number}]"
            unknown = [name for name in arguments if name not in hints or name == "threshold"]
            missing = [name for name in ("name", "kind") if name not in arguments]
            if unknown or missing:
                wrong = f"no setting {unknown[0]!r}" if unknown else f"no {missing[0]}"
                known = ", ".join(name for name in hints if name != "threshold")
                raise UserError(f"{key}: {wrong}; a property has {known}")
            values = {name: checked_value(value, hints[name], f"{key}.{name}") for name, value in arguments.items()}
            found += CustomProperty(**values).properties
        if not found:
            raise UserError("property: nothing to probe; give property.names, or property.own")
        return list(as_properties(found).values())
