"""Fixtures that more than one room uses."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch and numba, which dcor imports, and which sets torch's threads too: workers share the cores instead of
    # fighting for them.
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    # What dcor compiles when it is first imported: two processes that keep it in one place may mix it up, and abort.
    kept = Path(__file__).parents[1] / ".pytest_cache" / "numba"
    os.environ["NUMBA_CACHE_DIR"] = str(kept / os.environ["PYTEST_XDIST_WORKER"])

import pytest

from diffprobe.backbone.load import Backbone, load_backbone
from tests.tiny import build_tiny_pipeline


@pytest.fixture(scope="session")
def tiny_pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random pipeline with SD 1.4's module names, 16x16 latents and 128x128 images, as `save_pretrained` left it."""
    return build_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny", sample_size=16)


@pytest.fixture(scope="session")
def tiny_backbone(tiny_pipeline_folder: Path) -> Backbone:
    """The pipeline of `tiny_pipeline_folder`, on the CPU in float32; do not change it."""
    return load_backbone(str(tiny_pipeline_folder), device="cpu")
