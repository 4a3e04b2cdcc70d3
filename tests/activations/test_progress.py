"""A pass says how many images and steps are done and how long the rest will take."""

from __future__ import annotations

import io
import time

import lightning
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from rich.console import Console

from diffprobe.activations.module import run_pass
from diffprobe.activations.progress import ImageProgressBar, PassProgress, TqdmProgressBar, duration
from tests.activations.test_module import Recorded, data_of, module_of


def trainer(bar: ImageProgressBar | TqdmProgressBar) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False, callbacks=[bar]
    )


def shown(progress: PassProgress) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(progress.row())
    return file.getvalue()


def test_images_and_steps_are_counted_and_the_time_left_follows_from_both():
    progress = PassProgress(images=10, steps=4, began=time.perf_counter() - 40)
    assert (progress.share, progress.left) == (0, None)
    progress.begin(2)
    progress.step = 2
    assert progress.share == pytest.approx(0.1)
    assert progress.left == pytest.approx(360, abs=1)
    assert "0/10 images step 2/4 6 min left" in " ".join(shown(progress).split())
    progress.end()
    assert (progress.done, progress.share) == (2, pytest.approx(0.2))
    progress.begin(8)
    progress.end()
    assert progress.left == 0


def test_without_a_terminal_one_line_says_how_long_the_rest_will_take(tiny_backbone):
    said: list[str] = []
    run_pass(module_of(tiny_backbone, Recorded()), data_of(3), trainer(ImageProgressBar(log=said.append)))
    assert len(said) == 1
    assert said[0].startswith("about ")
    assert said[0].endswith("for the other 1 images, by the first 2")


def test_a_terminal_shows_a_bar_that_ends_with_the_pass(tiny_backbone):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    bar = ImageProgressBar(console=console)
    run_pass(module_of(tiny_backbone, Recorded()), data_of(3), trainer(bar))
    assert "3/3 images" in file.getvalue()
    assert "about" not in file.getvalue()


def test_training_waits_no_longer_than_a_tenth_of_a_second_for_the_last_drawing_of_its_bar():
    """Lightning's thread that draws sleeps from one drawing to the next, and the end of training waits for it."""
    bar = ImageProgressBar()
    fitter = lightning.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=1, limit_val_batches=0, logger=False, callbacks=[bar],
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    fitter.fit(BoringModel())
    assert bar.progress is not None
    assert 1 / bar.progress.live.refresh_per_second <= 0.1


def test_tqdm_counts_images_and_leaves_nothing_behind(tiny_backbone, capsys):
    bar = TqdmProgressBar()
    run_pass(module_of(tiny_backbone, Recorded()), data_of(3), trainer(bar))
    err = capsys.readouterr().err
    assert "0/3" in err
    assert "2/3" in err or "3/3" in err
    assert err.split("\r")[-1].strip() == ""


def test_tqdm_ends_its_bar_when_the_pass_fails(tiny_backbone, monkeypatch):
    bar = TqdmProgressBar()

    def failing(*_: object) -> None:
        raise RuntimeError("the pass fails")

    recorded = Recorded()
    monkeypatch.setattr(recorded, "consume", failing)
    with pytest.raises(RuntimeError, match="the pass fails"):
        run_pass(module_of(tiny_backbone, recorded), data_of(3), trainer(bar))
    assert bar._bar is None


def test_durations_read_well():
    assert [duration(each) for each in (8, 99, 100, 5000, 9000)] == ["8 s", "99 s", "2 min", "83 min", "2.5 h"]
