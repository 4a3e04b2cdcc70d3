"""The interface of everything that labels images.

Images as image models take them: at eight bits, as a PNG file would hold them.

One labeler made of several: another one for each property.

Maps that a labeler has made before are read instead of computed.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable
from urllib.parse import quote

import torch
from safetensors.torch import save
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.files import Damaged, read_sealed, remove_leftovers, replacing, sealed
from diffprobe.fitting import Geometry
from diffprobe.labels.files import FilesLabeler


def eight_bit(images: Tensor) -> Tensor:
    """[..., height, width] in [0, 1] -> the nearest of 256 levels, uint8, on the CPU."""
    return (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def trial_picture(size: int = 64) -> Tensor:
    """[1, 3, size, size] of noise, always the same: image models are tried on it before there are images."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


class Labeler(Protocol):
    """Gives images their maps: saliency 0 or 1, relative inverse depth (larger is nearer), shading as irradiance.

    Whatever a labeler needs (packages, weights, files) it asks for when it is made or checked, before any image is.
    """

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Makes sure that images called `names`, of `image_size` pixels a side, can be labelled.

        Raises:
            UserError: they cannot.
        """
        ...

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1], one name each -> {property: [images, height, width]} float32, CPU."""
        ...

    def fingerprint(self, name: str) -> str:
        """What determines the maps of property `name`, apart from the image: a hash of weights, settings or files."""
        ...


@runtime_checkable
class GeometryAwareLabeler(Labeler, Protocol):
    """A labeler whose maps were made elsewhere, of the images as they were before they became squares."""

    def set_geometries(self, geometries: Mapping[str, Geometry]) -> None:
        """Says of images by name how they become squares. To be called before `check`; images that are not named were
        square from the beginning."""
        ...

    def check_reference_maps(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As `check`, for maps that are not learned but held against labels, such as those of unfinished images: they
        may be empty or constant."""
        ...


def check_reference_maps(labeler: Labeler, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
    """`GeometryAwareLabeler.check_reference_maps`, of labelers that compute their maps `check`."""
    check = labeler.check_reference_maps if isinstance(labeler, GeometryAwareLabeler) else labeler.check
    check(names, properties, image_size)


class SinglePropertyLabeler(ABC):
    """A labeler of one property, which has no fingerprint but that of itself and takes any image."""

    labels: ClassVar[str]

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Any image will do.

        Raises:
            UserError: another property than `labels` is asked for.
        """
        others = [name for name in properties if name != self.labels]
        if others:
            raise UserError(
                f"{type(self).__name__} labels {self.labels} and cannot label {others[0]}; use "
                f"property={self.labels}, or one labeler a property: labeler=image_models"
            )

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1] -> {the property: [images, height, width]}."""
        self.check(names, properties, images.shape[-1])
        return {self.labels: self.maps(images)}

    def fingerprint(self, name: str) -> str:
        return self._fingerprint

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> [images, height, width]."""

    @property
    @abstractmethod
    def _fingerprint(self) -> str: ...


FORMAT = "diffprobe-map/2"
CHUNK = 32  # images that are labelled before their maps are written: what a kill loses


class CachedLabeler:
    """A labeler that keeps its maps: `folder/<property>/<fingerprint>/<image name>-<picture>.safetensors`.

    A map is found by the labeler's fingerprint, the image's name and a hash of its pixels at eight bits: a name alone
    is not enough, since the same prompt and seed are another picture with another model or sampler; and at eight bits,
    as image models see them, the last bits of another device make no other picture. Each file holds one float32 map,
    exactly as it was computed, and its checksum, so that a file that is damaged or cut short is computed again.
    Processes may share a folder: they write under names of their own and rename.
    """

    def __init__(self, labeler: Labeler, folder: str | Path) -> None:
        self.labeler, self.folder = labeler, Path(folder)

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As the labeler.

        Raises:
            UserError: the labeler's, or the folder cannot be written to.
        """
        there = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UserError(f"cannot keep label maps in {self.folder}: {there} is no folder that can be written to")
        self.labeler.check(names, properties, image_size)

    def fingerprint(self, name: str) -> str:
        """The labeler's."""
        return self.labeler.fingerprint(name)

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """As the labeler, which is asked only about images whose maps are not there."""
        pictures = [_hash_of(image, name) for image, name in zip(images, names, strict=True)]
        return {name: self._maps(images, names, pictures, name) for name in properties}

    def _maps(self, images: Tensor, names: Sequence[str], pictures: Sequence[str], wanted: str) -> Tensor:
        labels = [{"format": FORMAT, "labeler": self.fingerprint(wanted), "picture": picture} for picture in pictures]
        paths = [self._path(wanted, label, name) for label, name in zip(labels, names, strict=True)]
        maps = {row: _read(path, label) for row, (path, label) in enumerate(zip(paths, labels, strict=True))}
        missing = [row for row, values in maps.items() if values is None]
        if missing:
            remove_leftovers(paths[missing[0]].parent)
        for start in range(0, len(missing), CHUNK):
            rows = missing[start : start + CHUNK]
            made = self.labeler(images[rows], [names[row] for row in rows], [wanted])[wanted]
            for row, values in zip(rows, made.float().cpu(), strict=True):
                _write(paths[row], values, labels[row])
                maps[row] = values
        return torch.stack([values for values in maps.values() if values is not None])

    def _path(self, wanted: str, label: Mapping[str, str], name: str) -> Path:
        file = f"{quote(name, safe=' ')[:80]}-{label['picture'][:16]}.safetensors"
        return self.folder / wanted / label["labeler"][:16] / file


def _hash_of(image: Tensor, name: str) -> str:
    pixels = eight_bit(image).contiguous()
    described = json.dumps([name, list(pixels.shape)]).encode()
    return hashlib.sha256(described + pixels.numpy().tobytes()).hexdigest()


def _read(path: Path, label: Mapping[str, str]) -> Tensor | None:
    """The map [height, width] of a whole, undamaged file with this label; None without one."""
    try:
        return read_sealed(path, ["map"], label)[0].get("map")
    except (FileNotFoundError, Damaged):
        return None


def _write(path: Path, values: Tensor, label: Mapping[str, str]) -> None:
    values = values.contiguous()
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(save({"map": values}, sealed({"map": values}, label)))
    except OSError as error:
        raise UserError(f"cannot keep a label map in {path}: {error}; the maps before it are kept") from error


class PerProperty:
    """Labels each property with a labeler of its own, which is made only if the property is asked for.

    Args:
        cache: folder that keeps the maps of all but `FilesLabeler`, see `CachedLabeler`; None to compute them every
            time.
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

    def set_geometries(self, geometries: Mapping[str, Geometry]) -> None:
        """As `GeometryAwareLabeler`, for those of the labelers that are."""
        self._geometries = geometries
        for made in self._made.values():
            if isinstance(made, GeometryAwareLabeler):
                made.set_geometries(geometries)

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Makes the labelers of these properties and lets each check.

        Raises:
            UserError: there is none for a property, or one of them objects.
        """
        for name in properties:
            self._labeler(name).check(names, [name], image_size)

    def check_reference_maps(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As `check`, for maps that may be empty or constant."""
        for name in properties:
            check_reference_maps(self._labeler(name), names, [name], image_size)

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
                made = CachedLabeler(made, self._cache)
            if isinstance(made, GeometryAwareLabeler):
                made.set_geometries(self._geometries)
            self._made[name] = made
        return self._made[name]
