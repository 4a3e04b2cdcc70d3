"""What is on disk is read like what is in memory."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from diffprobe.activations.store import reader as reader_module
from diffprobe.activations.store.folder import create_store
from diffprobe.activations.store.reader import LayerAtStep, StoredActivations, load_activations
from diffprobe.activations.store.writer import MemoryWriter
from diffprobe.errors import UserError
from tests.activations.store.made_up import LARGE, SMALL, expected_rows, filled, made_up_manifest, row_of_tensor


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("store"))


def in_memory(**changes):
    manifest = made_up_manifest(**changes)
    writer = MemoryWriter(manifest)
    for spec in writer._specs.values():
        writer.put(spec.name, range(7), expected_rows(spec, manifest.ids))
    writer.close(None)
    return writer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_disk_and_memory_give_the_same(tmp_path, dtype):
    memory = in_memory(dtype=dtype)
    filled(tmp_path, dtype=dtype)
    disk = load_activations(tmp_path)
    for name in ("names", "layers", "steps", "timesteps", "grids"):
        assert getattr(disk, name) == getattr(memory.activations, name)
    indices = [
        (slice(None), [5, 0, 2, 5]),
        (1, [6]),
        (0, 3),
        (slice(None), slice(2, None)),
        (slice(1, 2), torch.tensor([1, 3])),
        (-1, np.array([4, 4])),
        (slice(None), []),
        (0, torch.tensor([True, False, False, True, False, False, True])),
        (slice(None), -1),
    ]
    for layer, values in memory.activations.values.items():
        assert disk.values[layer].shape == values.shape
        assert disk.values[layer].dtype == values.dtype
        assert len(disk.values[layer]) == len(values)
        for index in indices:
            assert torch.equal(disk.values[layer][index], values[index]), index
        assert torch.equal(disk.values[layer][:, range(1, 4)], values[:, 1:4])
    assert torch.equal(disk.extras["image"][[6, 1]], memory.extras["image"][[6, 1]])
    assert torch.equal(disk.extras["latents"][:, [6, 1]], memory.extras["latents"][:, [6, 1]])


def test_values_in_memory_are_those_put_there():
    memory = in_memory()
    manifest = made_up_manifest()
    for place, step in enumerate(manifest.steps):
        spec = memory._specs[f"{SMALL.name}/step_{step}"]
        wanted = row_of_tensor(spec, "image_4").half()
        assert torch.equal(memory.activations.values[SMALL.name][place, 4], wanted)


def test_overflowing_values_are_refused_in_memory_too():
    writer = MemoryWriter(made_up_manifest())
    with pytest.raises(UserError, match=f"{SMALL.name} of image 'image_0' at step 0 overflows float16"):
        writer.put(f"{SMALL.name}/step_0", [0], torch.full((1, 1, 1, 3), 1e9))


def test_rows_are_found_by_image_id_whatever_their_order(store):
    activations = StoredActivations(store)
    ids = ["image_6", "image_0", "image_3"]
    spec = store.specs[f"{LARGE.name}/step_3"]
    assert torch.equal(activations.values[LARGE.name][1, activations.rows_of(ids)], expected_rows(spec, ids))
    with pytest.raises(UserError, match="there is no image 'image_9'; nearest: image_"):
        activations.rows_of(["image_1", "image_9"])


@pytest.mark.parametrize("index", [0, [0], (0,), ([0, 1], [0, 1])])
def test_other_indices_are_refused(store, index):
    with pytest.raises(TypeError, match="step_index, rows"):
        StoredActivations(store).values[LARGE.name][index]


@pytest.mark.parametrize("index", [(2, [0]), (0, [7])])
def test_rows_and_steps_outside_are_errors(store, index):
    with pytest.raises(IndexError):
        StoredActivations(store).values[LARGE.name][index]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_shuffled_items_that_name_their_image(store, start):
    if start == "spawn":  # what spawning does to the data set, without the seconds that a new interpreter takes
        data = pickle.loads(pickle.dumps(LayerAtStep(StoredActivations(store), LARGE.name, 3)))
        workers, context = 0, None
    else:
        data, workers, context = LayerAtStep(StoredActivations(store), LARGE.name, 3), 2, "fork"
        data[0]  # a file that is open already is shared with the workers
    loader = DataLoader(data, 2, shuffle=True, num_workers=workers, multiprocessing_context=context)
    spec = store.specs[f"{LARGE.name}/step_3"]
    seen = []
    for names, values in loader:
        assert torch.equal(values, expected_rows(spec, names))
        seen += names
    assert sorted(seen) == store.manifest.ids


def test_the_data_set_serves_activations_in_memory_too():
    memory = in_memory()
    data = LayerAtStep(memory.activations, SMALL.name, 0)
    assert len(data) == 7
    name, values = data[5]
    assert name == "image_5"
    assert torch.equal(values, memory.activations.values[SMALL.name][0, 5])
    with pytest.raises(UserError, match="no activations of nothing; there are layers"):
        LayerAtStep(memory.activations, "nothing", 0)


def test_few_files_are_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_module, "OPEN_FILES", 2)
    activations = StoredActivations(filled(tmp_path, images_per_shard=1))
    before = len(os.listdir("/proc/self/fd"))
    read = activations.values[LARGE.name][0, :]
    assert len(read) == 7
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del activations
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_that_is_not_finished_says_how_much_is_missing(tmp_path):
    store = create_store(tmp_path, made_up_manifest())
    with pytest.raises(UserError, match=r"3 of 3 shards are missing.*images-000000-000002"):
        StoredActivations(store)


def test_only_the_asked_bytes_are_read(store, monkeypatch):
    activations = StoredActivations(store)
    asked = []
    preadv = os.preadv

    def recorded(descriptor, buffers, position):
        asked.append(len(buffers[0]))
        return preadv(descriptor, buffers, position)

    monkeypatch.setattr(os, "preadv", recorded)
    activations.values[LARGE.name][:, [1, 6]]
    assert asked == [2 * 3 * 4 * 5] * 4


def test_forked_readers_do_not_disturb_each_other(store):
    activations = StoredActivations(store)
    activations.values[LARGE.name][0, 0]

    def read(queue):
        queue.put([float(activations.values[LARGE.name][0, row].float().sum()) for row in range(7)] * 20)

    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=read, args=(queue,)) for _ in range(3)]
    for child in children:
        child.start()
    found = [queue.get() for _ in children]
    for child in children:
        child.join()
    assert found[0] == found[1] == found[2]
