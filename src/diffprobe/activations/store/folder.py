"""The folder of a store: created once, opened only for the activations it was made for, filled by one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from diffprobe.activations.store.manifest import Manifest, differences, manifest_from_json, version_notes
from diffprobe.activations.store.shards import (
    DamagedShard,
    Shard,
    ShardHeader,
    TensorSpec,
    broken_rows,
    read_shard_header,
    shards_of,
    tensor_specs,
)
from diffprobe.errors import UserError
from diffprobe.files import move_durably, remove_leftovers, replacing

MANIFEST = "manifest.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Survey:
    """The shards of a store by their state; of damaged ones, why."""

    finished: dict[Shard, ShardHeader] = field(default_factory=dict)
    missing: list[Shard] = field(default_factory=list)
    damaged: dict[Shard, str] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[Shard]:
        """Missing and damaged shards, in row order."""
        return sorted([*self.missing, *self.damaged], key=lambda shard: shard.rows.start)


@dataclass(frozen=True)
class Store:
    """A store, which need not exist yet. `notes` are sentences for people, such as other library versions."""

    folder: Path
    manifest: Manifest
    notes: list[str] = field(default_factory=list)

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """The tensors of every shard by name, in file order."""
        return tensor_specs(self.manifest)

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards in row order, finished or not."""
        return shards_of(self.manifest, self.folder)

    def survey(self) -> Survey:
        """Which shards are finished, by their headers and sizes. Reads no data. Raises UserError for no access."""
        survey = Survey()
        for shard in self.shards:
            try:
                survey.finished[shard] = read_shard_header(self.manifest, self.specs, shard)
            except FileNotFoundError:
                survey.missing.append(shard)
            except DamagedShard as damage:
                survey.damaged[shard] = str(damage)
            except OSError as error:
                raise UserError(f"cannot read {shard.path}: {error.strerror}") from error
        return survey

    def verify(self) -> Survey:
        """As `survey`, after reading every byte and comparing every checksum."""
        survey = self.survey()
        for shard, header in list(survey.finished.items()):
            broken = broken_rows(self.specs, shard, header)
            if broken:
                name, row = broken[0]
                image = self.manifest.images[row]["id"]
                survey.damaged[shard] = f"{len(broken)} wrong checksums, first {name} of image {image!r}"
                del survey.finished[shard]
        return survey


def open_store(folder: str | Path, expected: Manifest | None = None) -> Store:
    """Opens an existing store, if it holds the activations that `expected` describes.

    The store keeps its own shard size and library versions; other versions than the installed ones are in `notes`.

    Raises:
        UserError: no store there, or one of other activations; the message names what differs.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"no store of activations in {folder}: cannot read {path} ({error.strerror})") from error
    manifest = manifest_from_json(text, str(path))
    if expected is not None and manifest.fingerprint != expected.fingerprint:
        raise UserError(
            f"the store in {folder} holds other activations: {'; '.join(differences(manifest, expected))}. "
            "Give another folder, or move this one away"
        )
    return Store(folder, manifest, version_notes(manifest))


def find_store(folder: str | Path, manifest: Manifest) -> Store:
    """The store in `folder`, or the one that would be made there. Writes nothing.

    Raises:
        UserError: there is a store of other activations.
    """
    folder = Path(folder)
    return open_store(folder, manifest) if (folder / MANIFEST).exists() else Store(folder, manifest)


def create_store(folder: str | Path, manifest: Manifest) -> Store:
    """Makes a store, or opens the one that is there. Of processes that do so at once, one makes it and all open it.

    Raises:
        UserError: there is a store of other activations, or the folder cannot be written.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        if not path.exists():
            remove_leftovers(folder)
            # A lost race harms nothing: shards carry the fingerprint
            with replacing(path, partial(move_durably, overwrite=False)) as temporary:
                temporary.write_text(manifest.to_json(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot make a store of activations in {folder}: {error.strerror}") from error
    return open_store(folder, manifest)


@contextmanager
def store_lock(folder: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Inside, no other process is inside for the same folder; `log` takes a line when there is one to wait for.

    The operating system releases the lock when a process ends in any way. Shards are whole without it too, so on a file
    system without locks the worst is double work.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log(f"waiting for another process that is filling {folder}")
            lock.acquire(poll_interval=0.2)
    except OSError as error:
        log(f"cannot lock {folder} ({error}): processes that fill it at the same time may do the same work twice")
    try:
        yield
    finally:
        lock.release()
