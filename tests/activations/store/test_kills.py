"""Processes are killed at any moment, or work on the same store at once; the store ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from diffprobe.activations.store.folder import create_store, open_store
from diffprobe.errors import UserError
from tests.activations.store.made_up import fill, filled, made_up_manifest, shard_contents
from tests.processes import FORK

IMAGES = [{"id": f"image_{row}"} for row in range(12)]
TENSORS = 4 * 6  # of all shards
PAUSE = 0.002
KILLS = 10


def extract(folder, pause=0.0, progress=None):
    def compute():
        time.sleep(pause)
        if progress is not None:
            progress.value += 1

    fill(create_store(folder, made_up_manifest(images=IMAGES)), compute)


def refused(folder, queue):
    try:
        fill(create_store(folder, made_up_manifest(images=IMAGES, dtype="bfloat16")))
    except UserError as error:
        queue.put(str(error))
    else:
        queue.put("made")


def run(*arguments):
    process = FORK.Process(target=extract, args=arguments)
    process.start()
    return process


@pytest.mark.slow
def test_killed_and_run_again_the_store_ends_as_an_undisturbed_one(tmp_path):
    undisturbed = filled(tmp_path / "undisturbed", images=IMAGES)
    moments = random.Random(KILLS)
    survived = []  # finished shards after each kill
    for kill in range(KILLS):
        folder = tmp_path / f"store_{kill}"
        progress = FORK.Value("i", 0)
        process = run(folder, PAUSE, progress)
        moment = moments.randrange(TENSORS - 2)
        while progress.value < moment:
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 2 * PAUSE))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if (folder / "manifest.json").exists():
            survey = open_store(folder).verify()
            assert not survey.damaged
            survived.append(len(survey.finished))
        again = run(folder)
        again.join()
        assert again.exitcode == 0
        store = open_store(folder, undisturbed.manifest)
        assert shard_contents(store) == shard_contents(undisturbed)
        assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "shards"]
    assert len(set(survived)) > 1  # the moments did differ


def test_processes_that_write_the_same_store_at_once_do_not_disturb_each_other(tmp_path):
    undisturbed = filled(tmp_path / "undisturbed", images=IMAGES)
    processes = [run(tmp_path / "store", pause) for pause in (0, PAUSE, PAUSE)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = open_store(tmp_path / "store", undisturbed.manifest)
    assert shard_contents(store) == shard_contents(undisturbed)
    assert not store.verify().damaged


def test_of_two_processes_with_different_plans_one_makes_the_store_and_the_other_is_refused(tmp_path):
    queue = FORK.SimpleQueue()
    for number in range(5):
        folder = tmp_path / f"store_{number}"
        first = run(folder)
        second = FORK.Process(target=refused, args=(folder, queue))
        second.start()
        first.join()
        second.join()
        answer = queue.get()
        assert (answer == "made") == (first.exitcode != 0)
        assert answer == "made" or "dtype is" in answer
        assert not open_store(folder).verify().damaged


def test_many_processes_that_create_a_store_end_up_with_the_same_manifest(tmp_path):
    queue = FORK.SimpleQueue()

    def create(number):
        # The shard size is no part of what a store is: whoever comes second takes what is there.
        store = create_store(tmp_path / "store", made_up_manifest(images_per_shard=number + 1))
        queue.put(store.manifest.to_json())

    processes = [FORK.Process(target=create, args=(number,)) for number in range(6)]
    for process in processes:
        process.start()
    manifests = {queue.get() for _ in processes}
    for process in processes:
        process.join()
    assert manifests == {(tmp_path / "store" / "manifest.json").read_text()}
