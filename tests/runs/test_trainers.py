"""Lightning's Trainer and callbacks are made of the configuration."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import DeviceStatsMonitor, EarlyStopping, ProgressBar

from diffprobe.activations.progress import ImageProgressBar
from diffprobe.runs.settings import checked
from diffprobe.runs.trainers import StopWhenAsked, make_trainer
from tests.commands import ROOT


def trainer(*overrides: str, stage: str = "train linear") -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = checked(compose("train", ["trainer=cpu", *overrides]))
    return make_trainer(settings, stage, None)


def test_arguments_of_the_trainer_reach_it():
    made = trainer(
        "++trainer.gradient_clip_val=1.5", "++trainer.accumulate_grad_batches=3", "trainer.precision=64-true"
    )
    assert (made.gradient_clip_val, made.accumulate_grad_batches, made.precision) == (1.5, 3, "64-true")
    assert (made.max_epochs, made.check_val_every_n_epoch) == (30, 2)
    assert trainer("trainer=debug")._detect_anomaly


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ("progress_bar", {ImageProgressBar}),
        ("device_stats", {ImageProgressBar, DeviceStatsMonitor}),
        ("early_stopping", {ImageProgressBar, EarlyStopping}),
        ("none", set()),
    ],
)
def test_callbacks_are_those_that_are_chosen_and_the_one_that_stops(choice, kinds):
    made = trainer(f"callbacks={choice}")
    assert {type(each) for each in made.callbacks} == {*kinds, StopWhenAsked}
    assert (made.progress_bar_callback is not None) == any(issubclass(each, ProgressBar) for each in kinds)


def test_a_callback_is_added_and_one_is_left_out():
    added = "+callbacks.rate={_target_: lightning.pytorch.callbacks.LearningRateMonitor, logging_interval: step}"
    made = trainer(added, "callbacks.progress_bar=null", stage="generate")
    assert [type(each).__name__ for each in made.callbacks] == ["LearningRateMonitor", "StopWhenAsked"]
