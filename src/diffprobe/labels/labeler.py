"""The interface of labelers, what labelers by image models share, one labeler for each property, and kept maps."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable
from urllib.parse import quote

import torch
from safetensors.torch import save
from torch import Tensor

from diffprobe.backbone.model_folder import check_files, check_loaded, download, quiet
from diffprobe.errors import UserError, one_line
from diffprobe.files import Damaged, read_sealed, remove_leftovers, replacing, sealed
from diffprobe.fitting import Geometry
from diffprobe.labels.files import FilesLabeler
from diffprobe.properties import Property
from diffprobe.weights import matching

FORMAT = "diffprobe-map/2"
CHUNK = 32  # images labelled before their maps are written


@runtime_checkable
class Labeler(Protocol):
    """Gives images their maps: masks 0 or 1, quantities, class numbers or vectors, as `diffprobe.properties` has them.

    A labeler asks for what it needs (packages, weights, files) when it is made or checked.
    """

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Raises UserError if images called `names`, of `image_size` pixels a side, cannot be labelled."""
        ...

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1], one name each -> {property: [images, height, width]} float32, CPU; of
        vectors [images, channels, height, width]."""
        ...

    def fingerprint(self, name: str) -> str:
        """A hash of what determines the maps of property `name` beside the image: weights, settings or files."""
        ...


@runtime_checkable
class DefinitionAwareLabeler(Labeler, Protocol):
    """A labeler whose maps are of whatever the user defines."""

    def set_properties(self, properties: Mapping[str, Property]) -> None:
        """Sets the properties of a run, by name, before `check`."""
        ...


@runtime_checkable
class GeometryAwareLabeler(Labeler, Protocol):
    """A labeler whose maps were made elsewhere, of the images as they were before they became squares."""

    def set_geometries(self, geometries: Mapping[str, Geometry]) -> None:
        """Sets how images become squares, by name, before `check`; other images were square from the beginning."""
        ...

    def check_reference_maps(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As `check`, for maps that are compared with labels and may be empty or constant."""
        ...


def check_reference_maps(labeler: Labeler, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
    """`GeometryAwareLabeler.check_reference_maps`, or `check` for labelers that compute their maps."""
    check = labeler.check_reference_maps if isinstance(labeler, GeometryAwareLabeler) else labeler.check
    check(names, properties, image_size)


def eight_bit(images: Tensor) -> Tensor:
    """[..., height, width] in [0, 1] -> the nearest of 256 levels, uint8, on the CPU: the input of image models."""
    return (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def try_on_noise(model: Callable[[Tensor], Tensor], problem: str) -> Tensor:
    """A model's output for one image of noise, always the same. Raises UserError with `problem` if it fails."""
    try:
        return model(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    except Exception as error:  # whatever an unusual model makes several libraries raise
        raise UserError(f"{problem}: {one_line(error)}") from error


def image_model_folder(model: str, what: str, setting: str, example: str, patterns: Sequence[str]) -> Path:
    """The folder of an image model of transformers, with those of its files on the hub that have these patterns.

    what, setting, example: as in `load_image_model`.

    Raises:
        UserError: there is no such model, or it has no configuration.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir() and "/" not in model:
        raise UserError(
            f"no {what} {model!r}: neither a folder here nor a hub id; give {setting}=FOLDER or a hub id such as "
            f"{example}"
        )
    if not folder.is_dir():
        folder = download(model, patterns)
    if not (folder / "config.json").is_file():
        raise UserError(f"cannot load {model!r} as the {what} of transformers: {folder} has no config.json")
    return folder


def load_image_model(
    model: str,
    task: str,
    what: str,
    setting: str,
    example: str,
    unused: Mapping[str, str] | None = None,
    **settings: Any,
) -> tuple[Any, Any, list[str]]:
    """An image model of transformers from a folder or the hub, with an image processor that does not need torchvision.

    Args:
        task: in the name of the loader: 'DepthEstimation' of AutoModelForDepthEstimation.
        what: such as 'depth model'; with `setting` and an `example` of a hub id, for messages.
        unused: as in `diffprobe.weights.check_names`.
        settings: of the image processor, in place of those in its file.

    Returns:
        Image processor, network in float32, and names of unused weights that its files lack, which are NaN.

    Raises:
        UserError: there is no such model, it is of another kind, or its files do not hold exactly its weights.
    """
    folder = image_model_folder(model, what, setting, example, ["*.json", "merges.txt", "*.safetensors"])
    check_files(folder, "model")
    with quiet():
        import transformers

        try:
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", trust_remote_code=False, **settings
            )
            network, loaded = getattr(transformers, f"AutoModelFor{task}").from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused by check_loaded, by name
                trust_remote_code=False,  # None would ask whether to run code that comes with the weights
            )
        except Exception as error:  # whatever a broken folder or an unknown model makes transformers raise
            raise UserError(
                f"cannot load {model!r} as the {what} of transformers in safetensors: {one_line(error)}"
            ) from error
    check_loaded(f"the {what} {model}", network, loaded, unused)
    missing = sorted(loaded["missing_keys"])
    # transformers draws missing weights at random. NaN keeps the fingerprint the same, and a trial shows any use.
    weights = network.state_dict()
    for name in missing:
        if matching(name, unused or {}) and name in weights and weights[name].is_floating_point():
            weights[name].fill_(float("nan"))
    return processor, network, missing


def processed(processor: Any, images: Tensor) -> Any:
    """The input of a transformers network for images [images, 3, height, width] in [0, 1]."""
    return processor(images=list(eight_bit(images).permute(0, 2, 3, 1).numpy()), return_tensors="pt")


class SinglePropertyLabeler(ABC):
    """A labeler of one property that takes any image."""

    labels: ClassVar[str]

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Raises UserError for another property than `labels`."""
        others = [name for name in properties if name != self.labels]
        if others:
            raise UserError(
                f"{type(self).__name__} labels {self.labels} and cannot label {others[0]}; use "
                f"property={self.labels}, or one labeler a property: labeler=image_models"
            )

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1] -> {the property: its `maps`}."""
        self.check(names, properties, images.shape[-1])
        return {self.labels: self.maps(images)}

    def fingerprint(self, name: str) -> str:
        """A hash of `determinants`."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.determinants(), sort_keys=True, default=str).encode()).hexdigest()

    @abstractmethod
    def determinants(self) -> list[Any]:
        """What determines the maps beside the image, for JSON."""

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> [images, height, width]; of vectors [images, channels, h, w]."""


class CachedLabeler:
    """A labeler that keeps its maps in `folder/<property>/<fingerprint>/<image name>-<pixels>.safetensors`.

    Pixels are hashed at eight bits, so that another model or sampler makes another image, and the last bits of another
    device do not. A damaged file is computed again. Processes may share a folder.
    """

    def __init__(self, labeler: Labeler, folder: str | Path) -> None:
        self.labeler, self.folder = labeler, Path(folder)

    def set_properties(self, properties: Mapping[str, Property]) -> None:
        """As `DefinitionAwareLabeler`, if the labeler is one."""
        if isinstance(self.labeler, DefinitionAwareLabeler):
            self.labeler.set_properties(properties)

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As the labeler's. Raises UserError also if the folder cannot be written to."""
        there = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UserError(f"cannot keep label maps in {self.folder}: {there} is no folder that can be written to")
        self.labeler.check(names, properties, image_size)

    def fingerprint(self, name: str) -> str:
        """The labeler's."""
        return self.labeler.fingerprint(name)

    def place(self, name: str) -> Path:
        """The folder of the maps of property `name`."""
        return self.folder / name / self.fingerprint(name)[:16]

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """As the labeler's, which computes only maps that are not in the folder."""
        hashes = []
        for image, name in zip(images, names, strict=True):
            pixels = eight_bit(image).contiguous()
            described = json.dumps([name, list(pixels.shape)]).encode()
            hashes.append(hashlib.sha256(described + pixels.numpy().tobytes()).hexdigest())
        return {name: self._maps(images, names, hashes, name) for name in properties}

    def _maps(self, images: Tensor, names: Sequence[str], hashes: Sequence[str], wanted: str) -> Tensor:
        fingerprint = self.fingerprint(wanted)
        labels = [{"format": FORMAT, "labeler": fingerprint, "picture": each} for each in hashes]
        folder = self.place(wanted)
        paths = [
            folder / f"{quote(name, safe=' ')[:80]}-{each[:16]}.safetensors"
            for name, each in zip(names, hashes, strict=True)
        ]
        maps = {row: _read(path, label) for row, (path, label) in enumerate(zip(paths, labels, strict=True))}
        missing = [row for row, values in maps.items() if values is None]
        if missing:
            remove_leftovers(folder)
        for start in range(0, len(missing), CHUNK):
            rows = missing[start : start + CHUNK]
            computed = self.labeler(images[rows], [names[row] for row in rows], [wanted])[wanted]
            for row, values in zip(rows, computed.float().cpu(), strict=True):
                _write(paths[row], values, labels[row])
                maps[row] = values
        return torch.stack([values for values in maps.values() if values is not None])


def _read(path: Path, label: Mapping[str, str]) -> Tensor | None:
    """The map of an undamaged file with this label; None without one."""
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


def _same(labeler: Labeler) -> Labeler:
    return labeler


class PerProperty:
    """Labels each property with a labeler of its own, which is made when the property is first labelled or checked.

    Args:
        cache: folder that keeps the maps of all but `FilesLabeler`, see `CachedLabeler`; None to keep none.
        makers: for each property a callable without arguments that gives its labeler, such as
            `depth=partial(TransformersDepth, "Intel/dpt-large")`.
    """

    def __init__(self, cache: str | Path | None = None, **makers: Callable[[], Labeler]) -> None:
        for name, make in makers.items():
            if not callable(make):
                raise UserError(f"labeler.{name}={make} is no labeler; the parts here are named after properties")
        # A part that a configuration does not mark as partial is made already
        made = {name: make for name, make in makers.items() if isinstance(make, Labeler)}
        self._cache, self._labelers = cache, dict[str, Labeler]()
        self._makers = {**makers, **{name: partial(_same, labeler) for name, labeler in made.items()}}
        self._geometries: Mapping[str, Geometry] = {}
        self._properties: Mapping[str, Property] = {}

    def set_properties(self, properties: Mapping[str, Property]) -> None:
        """As `DefinitionAwareLabeler`, for those of the labelers that are; before they are made."""
        self._properties = properties

    def set_geometries(self, geometries: Mapping[str, Geometry]) -> None:
        """As `GeometryAwareLabeler`, for those of the labelers that are."""
        self._geometries = geometries
        for labeler in self._labelers.values():
            if isinstance(labeler, GeometryAwareLabeler):
                labeler.set_geometries(geometries)

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """The check of each property's labeler. Raises UserError also if there is none for a property."""
        for name in properties:
            self.labeler_of(name).check(names, [name], image_size)

    def check_reference_maps(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As `check`, for maps that may be empty or constant."""
        for name in properties:
            check_reference_maps(self.labeler_of(name), names, [name], image_size)

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1], one name each -> {property: [images, height, width]}."""
        return {name: self.labeler_of(name)(images, names, [name])[name] for name in properties}

    def fingerprint(self, name: str) -> str:
        """That of the property's own labeler."""
        return self.labeler_of(name).fingerprint(name)

    def labeler_of(self, name: str) -> Labeler:
        """The labeler of a property, which is made now if it has not been. Raises UserError if there is none."""
        if name not in self._makers:
            raise UserError(
                f"no labeler for {name}; there is one for {', '.join(self._makers) or 'nothing'}. Give it one: "
                f"+labeler/own@labeler.{name}=files, or segmentation"
            )
        if name not in self._labelers:
            labeler = self._makers[name]()
            if isinstance(labeler, DefinitionAwareLabeler):
                labeler.set_properties(self._properties)
            if isinstance(labeler, GeometryAwareLabeler):
                labeler.set_geometries(self._geometries)
            if self._cache is not None and not isinstance(labeler, FilesLabeler):
                labeler = CachedLabeler(labeler, self._cache)
            self._labelers[name] = labeler
        return self._labelers[name]
