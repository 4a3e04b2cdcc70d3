"""The bytes a store will take are known before it is made."""

from __future__ import annotations

import pytest

from diffprobe.activations.budget import Plan, check_disk, free_disk, plan_store
from diffprobe.activations.store.folder import create_store, find_store
from diffprobe.errors import UserError
from tests.activations.store.made_up import LARGE, SMALL, fill, made_up_manifest


def test_the_plan_is_what_the_disk_then_holds(tmp_path):
    planned = plan_store(find_store(tmp_path / "store", made_up_manifest()))
    assert planned.layers == {LARGE.name: 7 * 2 * 60 * 2, SMALL.name: 7 * 2 * 3 * 2}
    assert planned.extras == {"image": 7 * 12, "latents": 7 * 2 * 4 * 4}
    assert planned.remaining == planned.total
    store = create_store(tmp_path / "store", made_up_manifest())
    fill(store)
    assert planned.total == sum(shard.path.stat().st_size for shard in store.shards)
    assert plan_store(store).remaining == 0


def test_finished_shards_are_not_planned_again(tmp_path):
    store = create_store(tmp_path, made_up_manifest())
    fill(store)
    size = store.shards[1].path.stat().st_size
    store.shards[1].path.unlink()
    assert plan_store(store).remaining == size


def test_a_disk_that_is_too_small_is_refused_with_the_numbers(tmp_path):
    check_disk(Plan(1, 1, {"a": 1}, 10**18, 1000, []), tmp_path / "not" / "yet")
    with pytest.raises(UserError, match=r"needs 900 TB more, of 1e\+03 TB in all, and .* are free.* b, takes 800 TB"):
        check_disk(Plan(1, 1, {"a": 1, "b": 8 * 10**14}, 10**15, 9 * 10**14, []), tmp_path / "not" / "yet")


def test_a_folder_below_a_file_or_on_no_disk_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        free_disk(tmp_path / "file" / "x", "the store's folder")
    assert free_disk(tmp_path / "not" / "yet", "the store's folder") > 0
