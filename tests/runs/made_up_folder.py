"""Run folders that hold a configuration and the mark of a finished run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from diffprobe.runs.folder import FINISHED
from tests.commands import ROOT


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides))


def run_folder(folder: Path, *overrides: str) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(composed(*overrides), folder / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    (folder / FINISHED).write_text("{}")
    return folder
