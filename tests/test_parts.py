"""Parts that a configuration names by class: held against the signature, with one line for what does not fit."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from diffprobe.errors import UserError
from diffprobe.parts import Part
from diffprobe.ranges import Number

TRAINER = Part(
    given={"max_epochs": "by probe.epochs"},
    limits={"devices": Annotated[int, Number(1, 1024)]},
)


def refusal(value: Any, target: Part = TRAINER) -> str:
    with pytest.raises(UserError) as caught:
        target.checked(value, "trainer")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trainer(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "lightning.Trainer", **arguments}


@pytest.mark.parametrize(
    "arguments",
    [
        {"gradient_clip_val": 1, "gradient_clip_algorithm": "norm"},
        {"precision": "16-mixed"},
        {"precision": 32},
        {"deterministic": "warn"},
        {"deterministic": True},
        {"max_time": {"minutes": 3}},
        {"max_time": "00:01:00:00"},
        {"limit_train_batches": 0.5},
        {"profiler": "simple"},
        {"profiler": {"_target_": "lightning.pytorch.profilers.SimpleProfiler", "filename": "times"}},
        {"default_root_dir": None},
        {"devices": 2},
    ],
)
def test_every_argument_of_lightnings_trainer_is_taken(arguments):
    assert TRAINER.checked(trainer(**arguments), "trainer") == trainer(**arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"gradient_clip": 1},
            "unknown key 'trainer.gradient_clip'; the nearest valid key is 'trainer.gradient_clip_val'",
        ),
        ({"qqqq": 1}, "unknown key 'trainer.qqqq'; Trainer takes accelerator, strategy"),
        ({"gradient_clip_val": "much"}, "trainer.gradient_clip_val=much: must be a number"),
        ({"precision": "16-mixd"}, "trainer.precision=16-mixd: must be one of 64, 32, 16"),
        ({"deterministic": "often"}, "trainer.deterministic=often: must be true or false, or one of warn"),
        ({"devices": 0}, "trainer.devices=0: must be at least 1"),
        ({"max_epochs": 3}, "trainer.max_epochs is set by the run itself, by probe.epochs"),
        ({"detect_anomaly": 1}, "trainer.detect_anomaly: must be true or false, not 1"),
        (
            {"profiler": {"_target_": "lightning.pytorch.profilers.SimpleProfiler", "file": "x"}},
            "trainer.profiler.file",
        ),
    ],
)
def test_what_a_class_does_not_take_is_one_line(arguments, said):
    assert said in refusal(trainer(**arguments))


def test_a_class_that_is_not_there_is_one_line():
    assert "trainer._target_=lightning.Trianer: there is no such class" in refusal({"_target_": "lightning.Trianer"})
    for nothing in (None, 3, "auto", {}, {"devices": 1}, {"_target_": ""}):
        assert "names no class; choose one of the configurations in conf/trainer" in refusal(nothing)


def test_what_a_class_needs_is_named_unless_the_run_gives_it():
    named = {"_target_": "lightning.pytorch.loggers.CSVLogger"}
    assert "trainer.save_dir is not set, and CSVLogger needs it" in refusal(named)
    assert Part(given={"save_dir": "to the run folder"}).checked(named, "logger") == named
    assert TRAINER.checked({**named, "_partial_": True}, "trainer")["_partial_"] is True
    with pytest.raises(UserError, match=r"logger\.save_dir is set by the run itself, to the run folder"):
        Part(given={"save_dir": "to the run folder"}).checked({**named, "save_dir": "x"}, "logger")


def test_parts_within_parts_are_held_against_their_own_classes():
    inner = {"_target_": "lightning.pytorch.callbacks.RichProgressBar", "refresh_rate": "often"}
    outer = {"_target_": "diffprobe.labels.labeler.PerProperty"}
    with pytest.raises(UserError, match=r"labeler\.depth\.refresh_rate: must be a whole number"):
        Part().checked({**outer, "depth": inner}, "labeler")
    with pytest.raises(UserError, match=r"labeler\.depth\[1\]\.refresh_rate: must be a whole number"):
        Part().checked({**outer, "depth": [{**inner, "refresh_rate": 2}, inner]}, "labeler")
