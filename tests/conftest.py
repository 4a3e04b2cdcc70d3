"""Fixtures that more than one room uses."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch and numba, which sets torch's threads too: workers share the cores instead of fighting for them.
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    # What numba compiles: two processes that keep it in one place may mix it up, and abort.
    kept = Path(__file__).parents[1] / ".pytest_cache" / "numba"
    os.environ["NUMBA_CACHE_DIR"] = str(kept / os.environ["PYTEST_XDIST_WORKER"])

import numpy as np
import pytest

from diffprobe.backbone.load import Backbone, load_backbone
from tests.commands import IMAGES
from tests.report.made_up_run import make_choices, make_example, make_summaries
from tests.tiny import build_tiny_pipeline, listed_layers
from tests.tiny_families import Families


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests first, so that at the end no process has one of them left while the others wait.

    Before them those that wait for a SLURM, one after another: the other process has the presets meanwhile.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        waits = {path: 1000.0 for path in slow if path.parent.name == "slurm"}
        for late in sorted(waits)[1:]:
            waits[late] = max(slow.values()) - 0.5  # after the file with the most
        items.sort(key=lambda item: -waits.get(item.path, slow[item.path]))


def pytest_collection_finish() -> None:
    """What is imported stays, so that nobody looks again and again whether it is garbage; nor is there much of it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session", autouse=True)
def layers_found_once() -> Iterator[None]:
    """Runs of one network look for its layers once in all, which takes as long as loading it twice."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("backbone.layers", "backbone.certify", "app.equipment"):
            patched.setattr(f"diffprobe.{module}.catalogue", listed_layers)
        yield


@pytest.fixture(scope="session")
def tiny_pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random pipeline with SD 1.4's module names, 16x16 latents and 128x128 images, as `save_pretrained` left it."""
    return build_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny", sample_size=16)


@pytest.fixture(scope="session")
def tiny_backbone(tiny_pipeline_folder: Path) -> Backbone:
    """The pipeline of `tiny_pipeline_folder`, on the CPU in float32; do not change it."""
    return load_backbone(str(tiny_pipeline_folder), device="cpu")


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Path:
    """A pipeline of 128 pixels, a prompt file as the papers', and label maps."""
    return bring(tmp_path_factory.mktemp("material"))


def bring(folder: Path) -> Path:
    build_tiny_pipeline(folder / "model")
    rows = "".join(f'"""quoted"", émerillon {row}",{row + 50},{row + 100}\r\n' for row in range(IMAGES))
    (folder / "prompts.csv").write_bytes(f"prompts,seeds,prompt_inds\r\n{rows}".encode())
    random = np.random.default_rng(0)
    for name in ("saliency", "depth", "shading"):
        (folder / "maps" / name).mkdir(parents=True)
        for row in range(IMAGES):
            values = random.random((64, 64), np.float32)
            values = values > 0.7 if name == "saliency" else values
            np.save(folder / "maps" / name / f"prompt_{row + 100}_seed_{row + 50}.npy", values)
    return folder


@pytest.fixture
def summaries():
    return make_summaries()


@pytest.fixture
def choices():
    return make_choices()


@pytest.fixture
def example():
    return make_example()
