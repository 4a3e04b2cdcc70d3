"""Shards are streamed to disk in the background, and only whole ones get their name."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from diffprobe.activations.store import writer as writer_module
from diffprobe.activations.store.folder import create_store, open_store
from diffprobe.activations.store.reader import StoredActivations
from diffprobe.activations.store.shards import tensor_name
from diffprobe.activations.store.writer import StoreWriter
from diffprobe.errors import UserError
from tests.activations.store.made_up import (
    LARGE,
    SMALL,
    expected_rows,
    fill,
    filled,
    made_up_manifest,
    row_of_tensor,
    shard_contents,
)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_safetensors_itself_reads_every_shard(tmp_path, dtype):
    store = filled(tmp_path, dtype=dtype)
    for shard in store.shards:
        images = [store.manifest.ids[row] for row in shard.rows]
        with safe_open(shard.path, framework="pt") as file:
            assert set(file.keys()) == set(store.specs)
            assert file.metadata()["fingerprint"] == store.manifest.fingerprint
            for name, spec in store.specs.items():
                tensor = file.get_tensor(name)
                assert tensor.dtype == spec.torch_dtype
                assert torch.equal(tensor, expected_rows(spec, images))


def test_the_order_and_size_of_batches_make_no_difference(tmp_path):
    whole = filled(tmp_path / "whole")
    store = create_store(tmp_path / "parts", made_up_manifest())
    with StoreWriter(store) as writer:
        for rows in ([6, 0], [4, 5, 1, 2], [3]):
            for spec in reversed(store.specs.values()):
                values = torch.stack([row_of_tensor(spec, store.manifest.ids[row]) for row in rows])
                writer.put(spec.name, rows, values)
    assert shard_contents(store) == shard_contents(whole)


def test_what_is_put_may_be_overwritten_afterwards(tmp_path):
    store = create_store(tmp_path, made_up_manifest(dtype="float32", extras=[]))
    with StoreWriter(store) as writer:
        for spec in store.specs.values():
            buffer = expected_rows(spec, store.manifest.ids).to(memory_format=torch.channels_last)
            writer.put(spec.name, range(7), buffer)
            buffer.fill_(0)
    values = StoredActivations(store).values[LARGE.name][0, :]
    assert torch.equal(values, expected_rows(store.specs[tensor_name(LARGE.name, 0)], store.manifest.ids))


def test_no_more_blocks_wait_than_the_queue_holds(tmp_path, monkeypatch):
    store = create_store(tmp_path, made_up_manifest())
    written = []
    write = writer_module.ShardFile.write

    def slow(*arguments):
        time.sleep(0.01)
        write(*arguments)
        written.append(1)

    monkeypatch.setattr(writer_module.ShardFile, "write", slow)
    waiting = []
    with StoreWriter(store, queue=2) as writer:
        for spec in store.specs.values():
            writer.put(spec.name, range(3), torch.zeros(3, *spec.shape))
            waiting.append(len(waiting) + 1 - len(written))
        for spec in store.specs.values():
            writer.put(spec.name, range(3, 7), torch.zeros(4, *spec.shape))
    assert 1 < max(waiting) <= 2 + 1  # in the queue, and in the hands of the thread
    assert len(written) == 3 * len(store.specs)


def test_computing_goes_on_while_blocks_are_written(tmp_path, monkeypatch):
    store = create_store(tmp_path, made_up_manifest(images=_many(1)))
    write = writer_module.ShardFile.write
    monkeypatch.setattr(writer_module.ShardFile, "write", lambda *arguments: (time.sleep(0.05), write(*arguments)))
    with StoreWriter(store) as writer:
        began = time.perf_counter()
        for spec in store.specs.values():
            writer.put(spec.name, [0], torch.zeros(1, *spec.shape))
        assert time.perf_counter() - began < 0.05 * len(store.specs) / 2
    assert not store.survey().unfinished


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_overflow_names_layer_and_step_and_keeps_finished_shards(tmp_path, dtype):
    store = create_store(tmp_path, made_up_manifest(dtype=dtype))
    huge = torch.zeros(3, 1, 1, 3)
    huge[1, 0, 0, 2] = -3.4e38

    def write():
        with StoreWriter(store) as writer:
            for spec in store.specs.values():
                writer.put(spec.name, range(3), torch.zeros(3, *spec.shape))
            for spec in store.specs.values():
                spoilt = spec.name == tensor_name(SMALL.name, 3)
                writer.put(spec.name, range(3, 6), huge if spoilt else torch.zeros(3, *spec.shape))

    with pytest.raises(UserError, match=f"{SMALL.name} of image 'image_4' at step 3") as caught:
        write()
    instead = {"float16": "features.dtype=bfloat16 or float32", "bfloat16": "features.dtype=float32"}[dtype]
    assert f"overflows {dtype}, which ends at" in str(caught.value)
    assert str(caught.value).endswith(instead)
    assert list(shard_contents(store)) == ["images-000000-000002.safetensors"]


@pytest.mark.parametrize("worst", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_numbers_that_are_none_are_found(tmp_path, dtype, worst):
    store = create_store(tmp_path, made_up_manifest(dtype=dtype))
    values = torch.full((1, 3, 4, 5), 60000.0)
    with pytest.raises(ValueError, match="lack rows"), StoreWriter(store) as writer:
        writer.put(tensor_name(LARGE.name, 0), [0], values)
    values[0, 2, 1, 1] = worst
    with pytest.raises(UserError, match=f"{LARGE.name} of image 'image_0' at step 0"), StoreWriter(store) as writer:
        writer.put(tensor_name(LARGE.name, 0), [0], values)


def test_values_that_do_not_fit_are_refused_at_once(tmp_path):
    store = create_store(tmp_path, made_up_manifest())
    name = tensor_name(LARGE.name, 0)
    with StoreWriter(store) as writer:
        with pytest.raises(ValueError, match="no tensor 'nothing'"):
            writer.put("nothing", [0], torch.zeros(1, 3, 4, 5))
        with pytest.raises(ValueError, match="for 2 rows"):
            writer.put(name, [0, 1], torch.zeros(1, 3, 4, 5))
        with pytest.raises(ValueError, match="rows 7 to 7 of 7 images"):
            writer.put(name, [7], torch.zeros(1, 3, 4, 5))


def test_an_error_of_the_computation_goes_through_and_leaves_no_half_shard(tmp_path):
    store = create_store(tmp_path, made_up_manifest())

    def interrupted():
        with StoreWriter(store) as writer:
            writer.put(tensor_name(LARGE.name, 0), [0], torch.zeros(1, 3, 4, 5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert shard_contents(store) == {}


def test_a_failing_disk_stops_the_computation_and_keeps_finished_shards(tmp_path, monkeypatch):
    store = create_store(tmp_path, made_up_manifest())
    pwrite = os.pwrite

    def full(descriptor, data, position):
        if list(tmp_path.glob("shards/images-*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=r"No space left on device.*Finished shards are kept"):
        fill(store, lambda: time.sleep(0.002))
    assert list(shard_contents(store)) == ["images-000000-000002.safetensors"]
    monkeypatch.undo()
    fill(open_store(tmp_path, made_up_manifest()))
    assert shard_contents(store) == shard_contents(filled(tmp_path / "undisturbed"))


def test_a_full_disk_is_one_clear_error_and_another_place_finishes_the_store(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        store = create_store(small / "store", made_up_manifest(images=_many(60)))
        with pytest.raises(UserError, match="No space left on device"):
            fill(store)
        kept = shard_contents(store)
        assert 0 < len(kept) < len(store.shards)
        assert not any(name.endswith(".tmp") for name in kept)
        subprocess.run(["cp", "-r", small / "store", tmp_path / "large"], check=True)
    finally:
        subprocess.run(["umount", small], check=True)
    moved = create_store(tmp_path / "large", made_up_manifest(images=_many(60)))
    assert len(moved.survey().finished) == len(kept)
    fill(moved)
    assert shard_contents(moved) == shard_contents(filled(tmp_path / "undisturbed", images=_many(60)))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make a store of activations in .*file"):
        create_store(tmp_path / "file" / "store", made_up_manifest())


def _many(count: int) -> list[dict]:
    return [{"id": f"image_{row}"} for row in range(count)]


def test_shards_that_another_process_left_half_written_are_removed_only_if_it_is_dead(tmp_path):
    store = create_store(tmp_path, made_up_manifest())
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = writer_module.remove_leftovers.__globals__["_host"]()
    leftovers = [
        Path(store.folder / "shards" / f".images-000000-000002.safetensors.{where}.{process}.00ff.tmp")
        for where, process in ((host, dead.pid), (host, os.getpid()), ("elsewhere", dead.pid))
    ]
    for path in leftovers:
        path.write_text("half")
    fill(store)
    assert [path.exists() for path in leftovers] == [False, True, True]
    assert len(store.survey().finished) == 3
