"""What a person brings to a study: a pipeline, prompts and maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.doors.commands import IMAGES
from tests.tiny import build_tiny_pipeline


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Path:
    """A pipeline of 128 pixels, a prompt file as the papers', and label maps."""
    return bring(tmp_path_factory.mktemp("material"), sample_size=16)


@pytest.fixture(scope="session")
def material_of_full_size(tmp_path_factory) -> Path:
    """The same with a pipeline of SD 1.4's 512 pixels (64x64 latents)."""
    return bring(tmp_path_factory.mktemp("material_of_full_size"), sample_size=64)


def bring(folder: Path, sample_size: int) -> Path:
    build_tiny_pipeline(folder / "model", sample_size=sample_size)
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
