"""The record of what a run was made with."""

import subprocess

import torch

from diffprobe.runs.environment import environment, git_state

KNOWN = {"seeds": {"split": 0, "permutation": 7}, "wall_seconds": 12.5, "network_evaluations": 900}


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def make_checkout(folder):
    (folder / "code.py").write_text("1")
    git(folder, "init")
    git(folder, "add", "code.py")
    git(folder, "commit", "-m", "first")
    return folder / "code.py"


def test_versions_hardware_and_what_the_run_says_are_recorded():
    record = environment(**KNOWN)

    assert torch.__version__.startswith(record["packages"]["torch"])  # +cu124 may stand behind it
    assert record["hardware"]["cpus"] >= 1
    assert (record["seeds"], record["wall_seconds"], record["network_evaluations"]) == tuple(KNOWN.values())


def test_a_clean_checkout_gives_its_revision(tmp_path):
    state = git_state(make_checkout(tmp_path))

    assert state is not None
    assert len(state["revision"]) == 40
    assert state["dirty"] is False


def test_a_changed_checkout_is_dirty(tmp_path):
    source = make_checkout(tmp_path)
    source.write_text("2")

    assert git_state(source)["dirty"] is True


def test_no_checkout_no_revision(tmp_path):
    assert git_state(tmp_path) is None


def test_code_installed_inside_a_foreign_checkout_does_not_take_its_revision(tmp_path):
    make_checkout(tmp_path)
    installed = tmp_path / "installed.py"
    installed.write_text("3")

    assert git_state(installed) is None


def test_a_missing_package_is_null(monkeypatch):
    monkeypatch.setattr("diffprobe.runs.environment.PACKAGES", ("no-such-package-here",))

    assert environment(**KNOWN)["packages"] == {"no-such-package-here": None}
