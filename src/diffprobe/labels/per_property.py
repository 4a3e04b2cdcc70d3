"""One labeler made of several: another one for each property."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.fitting import Geometry
from diffprobe.labels.cache import Cached
from diffprobe.labels.files import FilesLabeler
from diffprobe.labels.labeler import FromFiles, Labeler, check_seen


class PerProperty:
    """Labels each property with a labeler of its own, which is made only if the property is asked for.

    Args:
        cache: folder that keeps the maps of all but `FilesLabeler`, see `Cached`; None to compute them every time.
        makers: for each property a callable without arguments that gives its labeler, such as
            `depth=partial(TransformersDepth, "Intel/dpt-large")`.

    Raises:
        UserError: something else is given for a property.
    """

    def __init__(self, cache: str | Path | None = None, **makers: Callable[[], Labeler]) -> None:
        wrong = [name for name, make in makers.items() if not callable(make)]
        if wrong:
            raise UserError(
                f"labeler.{wrong[0]}={makers[wrong[0]]} is no labeler; the parts here are named after properties"
            )
        self._cache, self._makers, self._made = cache, makers, dict[str, Labeler]()
        self._geometries: Mapping[str, Geometry] = {}

    def follow(self, geometries: Mapping[str, Geometry]) -> None:
        """As `FromFiles`, for those of the labelers that are."""
        self._geometries = geometries
        for made in self._made.values():
            if isinstance(made, FromFiles):
                made.follow(geometries)

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Makes the labelers of these properties and lets each check.

        Raises:
            UserError: there is none for a property, or one of them objects.
        """
        for name in properties:
            self._labeler(name).check(names, [name], image_size)

    def check_seen(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As `check`, for maps that may be empty or constant."""
        for name in properties:
            check_seen(self._labeler(name), names, [name], image_size)

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1], one name each -> {property: [images, height, width]}."""
        return {name: self._labeler(name)(images, names, [name])[name] for name in properties}

    def fingerprint(self, name: str) -> str:
        """That of the property's own labeler."""
        return self._labeler(name).fingerprint(name)

    def _labeler(self, name: str) -> Labeler:
        if name not in self._makers:
            raise UserError(f"no labeler for {name}; there is one for {', '.join(self._makers) or 'nothing'}")
        if name not in self._made:
            made = self._makers[name]()
            if self._cache is not None and not isinstance(made, FilesLabeler):
                made = Cached(made, self._cache)
            if isinstance(made, FromFiles):
                made.follow(self._geometries)
            self._made[name] = made
        return self._made[name]
