"""Studies in Python: the commands' numbers, inputs of Python's own, and what is refused."""

import pandas as pd
import pytest
import torch

import diffprobe as dp
from diffprobe.labels.pocket import PocketLabeler
from diffprobe.probes.summaries import read_summary
from tests.commands import command

SMALL = {"sampling_steps": 2, "layers": "up_blocks.3.resnets.0", "probe": "ridge", "verbose": False}


@pytest.fixture(scope="module")
def model():
    return dp.load("pocket")


@pytest.mark.slow
def test_probing_gives_the_numbers_of_the_command(model, tmp_path):
    run = tmp_path / "run"
    done = command("train.py", "debug=default", "seed=3", f"hydra.run.dir={run}", cwd=tmp_path, blank_figures=True)
    assert done.returncode == 0, done.stderr
    result = dp.probe(model, seed=3, overrides=["debug=default"], verbose=False)
    pd.testing.assert_frame_equal(result.summary, read_summary(run / "summary.csv"), rtol=1e-5, check_dtype=False)
    assert result.findings == dp.read_run(run).findings


@pytest.mark.slow
def test_separation_gives_the_numbers_of_the_command(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, small = tmp_path / "run", ["statistics.permutations=19", "statistics.resamples=19"]
    typed = ["objects.count=12", "layers.select='resnet&stage=mid'", *small, f"hydra.run.dir={run}"]
    done = command("analyze.py", *typed, cwd=tmp_path, blank_figures=True)
    assert done.returncode == 0, done.stderr
    result = dp.separation(model, count=12, layers="resnet & mid", overrides=small, verbose=False)
    there = dp.read_run(run).tables["means"]
    assert len(there)
    pd.testing.assert_frame_equal(result.tables["means"].reset_index(drop=True), there, check_dtype=False, rtol=1e-9)


def test_a_function_labels_images(model):
    seen = []

    def red(images):
        seen.append(images.shape)
        return images[:, 0]

    mine = dp.CustomProperty("redness", "continuous")
    result = dp.probe(model, count=10, properties=mine, labels=red, **SMALL)
    assert set(result.summary["property"]) == {"redness"}
    assert all(shape[1:] == (3, 64, 64) for shape in seen)
    assert sum(shape[0] for shape in seen) >= 10
    known = dp.probe(model, count=10, properties=["depth", mine], labels=_both, **SMALL)
    assert set(known.summary["property"]) == {"depth", "redness"}


def _both(images):
    return {"redness": images[:, 0], **PocketLabeler()(images, [""] * len(images), ["depth"])}


@pytest.mark.parametrize(
    ("function", "properties", "line"),
    [
        (lambda images: images[:, 0], ["depth", "saliency"], "must return a map for each of"),
        (lambda images: {"deep": images[:, 0]}, "depth", "returned maps of deep, and none of depth"),
        (lambda images: images[:, 0, ::2], "depth", r"shape \[\d+, 32, 64\]"),
        (lambda images: images[:1, 0], "depth", r"shape \[1, 64, 64\]"),
    ],
)
def test_a_function_that_gives_no_maps_is_named(model, function, properties, line):
    with pytest.raises(dp.UserError, match=line):
        dp.probe(model, count=10, properties=properties, labels=function, **SMALL)


def test_a_labeler_and_prompts_of_python_are_used(model):
    texts = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("cube", "sphere", "cone")]
    result = dp.probe(model, prompts=texts, labels=PocketLabeler(), properties="saliency", **SMALL)
    assert result.details.extraction.source.captions == texts


def test_the_model_that_is_given_is_the_one_that_is_probed():
    other = dp.load("pocket", guidance=1.0)
    result = dp.probe(other, count=10, properties="depth", **SMALL)
    plain = dp.probe("pocket", count=10, properties="depth", **SMALL)
    assert not result.summary["mean"].equals(plain.summary["mean"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"properties": "deepth"}, "depth"),
        ({"layers": "no_such"}, "no layer 'no_such'"),
        ({"steps": [15]}, "there is no step 15"),
        ({"probe": "quadratic"}, "quadratic"),
        ({"controls": ["nothing"]}, "control"),
        ({"prompts": "no.csv"}, "no.csv"),
        ({"labels": "no/folder"}, "no/folder"),
        ({"images": "no/images"}, "no/images"),
        ({"count": 0}, "data.count"),
        ({"seed": -1}, "seed"),
        ({"overrides": ["probe.epoch=3"]}, "probe.epochs"),
        ({"overrides": ["hydra.run.dir=x"]}, r"result\.save"),
        ({"overrides": ["dry_run=true"]}, r"result\.save"),
        ({"overrides": ["trainer.devices=2", "trainer.accelerator=cpu"]}, "trainer.devices=1"),
        ({"probe": "ridge", "overrides": ["probe=linear"]}, "probe is given twice"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_image_is_made(model, arguments, line, monkeypatch):
    def made(*_, **__):
        raise AssertionError("an image was made")

    monkeypatch.setattr(type(model.backbone.denoiser), "forward", made)
    with pytest.raises(dp.UserError, match=line) as raised:
        dp.probe(model, verbose=False, **arguments)
    assert "\n" not in str(raised.value)


def test_ctrl_c_is_an_interrupt_and_not_the_end_of_the_notebook(model):
    def interrupted(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dp.probe(model, count=10, labels=interrupted, properties="depth", **SMALL)


def test_the_plan_is_printed_and_can_be_silenced(model, capsys):
    dp.classify(model, count=3, sampling_steps=2, overrides=["analysis.photos=auto"])
    assert "network evaluations" in capsys.readouterr().out
    dp.classify(model, count=3, sampling_steps=2, verbose=False)
    assert capsys.readouterr().out == ""


def test_prototypes_are_means_over_masks(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = dp.object_prototypes(model, count=6, layers="up_blocks.3.resnets.*&kind=resnet", verbose=False)
    assert found.layers.names == [f"up_blocks.3.resnets.{place}" for place in range(3)]
    assert found["up 3.0"].shape == (len(found.objects), found.layers[0].channels)
    assert torch.isfinite(torch.from_numpy(found["up 3.0"])).all()
    again = dp.object_prototypes(model, count=6, layers="up_blocks.3.resnets.0", verbose=False)
    assert (again["up_blocks.3.resnets.0"] == found["up 3.0"]).all()
    with pytest.raises(dp.UserError, match="no step 3; there are 0"):
        found.at("up 3.0", 3)


def test_drift_names_its_changes(model):
    with pytest.raises(dp.UserError, match="transforms, denoising, video"):
        dp.drift(model, "rotation")
