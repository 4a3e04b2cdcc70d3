"""Validated inputs of an analysis, made of what a person types."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hydra import compose, initialize_config_dir
from lightning import Trainer

from diffprobe.analyses.analysis import RunContext
from diffprobe.analyses.inputs import Inputs
from diffprobe.backbone import layers
from diffprobe.errors import UserError
from diffprobe.parts import make
from diffprobe.runs.folder import read_settings
from diffprobe.runs.settings import check_analysis
from tests.commands import ROOT
from tests.tiny import listed_layers


def refusal(*overrides: str) -> str:
    """The one line that is said of inputs that do not fit, before any work."""
    with pytest.raises(UserError) as caught:
        checked_analysis(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def checked_analysis(*overrides: str) -> tuple[Any, Any]:
    """The analysis that `python analyze.py OVERRIDES` runs, and what it makes of its inputs, with its plan made."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("analyze", list(overrides))
    settings = check_analysis(config)
    analysis = make(settings.analysis)
    with patch.object(layers, "catalogue", listed_layers):
        task = analysis.check(Inputs(settings, lambda line: None, read_settings))
    analysis.plan(task)
    return analysis, task


def quiet_context(seed: int = 0) -> RunContext:
    def trainer(stage: str) -> Trainer:
        return Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )

    def progress(what: str, total: int) -> Any:
        raise NotImplementedError

    return RunContext(seed, trainer, lambda line: None, progress)
