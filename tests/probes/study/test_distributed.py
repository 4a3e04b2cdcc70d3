"""A study among two processes finds what one process finds: the same probes, scores, summaries and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from diffprobe.activations.sources import Generation
from diffprobe.backbone.load import load_backbone
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.study import one_pass as live
from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, ProbingResults, run_probing
from diffprobe.probes.summaries import summary_rows
from tests.probes.study.test_one_pass import logged, place_of
from tests.probes.study.test_two_pass import PROMPTS, brightness
from tests.processes import together
from tests.reference.score_rows import rows_of
from tests.tiny import tiny_layers

SOURCE = Generation(PROMPTS, sampling_steps=2)
FRACTIONS = (0.5, 0.3, 0.2)  # of ten images: two processes have unequally many
STORED = {"adam": ProbeConfig(epochs=4), "exact": ProbeConfig("exact", solver="exact", strengths=(1e-2, 1.0))}
RIDGE = ProbeConfig("ridge", solver="ridge", strengths=(0.1, 1.0))  # strong: rounding is not what is looked at


def trainer(**options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=4,
        check_val_every_n_epoch=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def studies(model: str, stores: Path, processes: int) -> dict[str, ProbingResults]:
    backbone = load_backbone(model, device="cpu")
    layers = tiny_layers("self_attention&stage=decoder")[-2:]

    def made(stage: str) -> lightning.Trainer:
        strategy = DDPStrategy(process_group_backend="gloo") if processes > 1 else "auto"
        return trainer(strategy=strategy, devices=processes)

    def study(probe_config: ProbeConfig, controls: Sequence[str], **options: Any) -> ProbingResults:
        probing_config = ProbingConfig(
            layers, steps=[0, 1], controls=controls, fractions=FRACTIONS, probe_config=probe_config
        )
        means = ExecutionConfig(
            batch_size=2, dtype="float32", images_per_shard=2, example_count=2, make_trainer=made, **options
        )
        return run_probing(backbone, SOURCE, brightness, probing_config, means)

    controls = ("permuted", "latent", "position")
    found = {"adam": study(STORED["adam"], (*controls, "labels"), stores=stores)}
    found["exact"] = study(STORED["exact"], (), stores=stores)
    found["live"] = study(RIDGE, (*controls, "labels"), one_pass=True)
    return found


def reduced(found: ProbingResults) -> dict[str, Any]:
    """What of the findings is compared."""
    return {
        "scores": rows_of(found.scores),
        "summaries": summary_rows(found.summaries),
        "weights": found.bank.state_dict(),
        "thresholds": found.bank.thresholds,
        "shown": found.examples,
        "evaluations": found.evaluations,
    }


def shared(model: str, stores: Path) -> dict[str, Any]:
    """What one of two processes finds, and what its passes are shown."""
    shown: dict[tuple[str, str], list[tuple[torch.Tensor, torch.Tensor]]] = {}
    live.OnePass.take = logged(shown, live.OnePass.take)  # type: ignore[method-assign]
    found = {name: reduced(one) for name, one in studies(model, stores, 2).items()}
    return {"found": found, "shown": shown}


@pytest.fixture(scope="module")
def both(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("both")
    return together(shared, folder, str(tiny_pipeline_folder), folder / "stores")


@pytest.fixture(scope="module")
def alone(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found = studies(str(tiny_pipeline_folder), tmp_path_factory.mktemp("alone"), 1)
    return {name: reduced(one) for name, one in found.items()}


def same_rows(ours: Sequence[Any], theirs: Sequence[Any], columns: Sequence[str]) -> None:
    """The same rows in the same order, with nearly the same numbers in some columns."""
    blank = dict.fromkeys(columns)
    assert [replace(row, **blank) for row in ours] == [replace(row, **blank) for row in theirs]
    pairs = [
        (getattr(one, column), getattr(other, column))
        for one, other in zip(ours, theirs, strict=True)
        for column in columns
    ]
    far = [pair for pair in pairs if pair[0] != pytest.approx(pair[1], abs=1e-3)]
    assert len(far) <= len(pairs) // 100, far[:3]  # a pixel at a threshold may fall to either side


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adam", "exact", "live"])
def test_two_processes_find_what_one_finds(kind, both, alone):
    ours, theirs = both[0]["found"][kind], alone[kind]
    assert ours["evaluations"] == theirs["evaluations"]
    assert ours["thresholds"] == theirs["thresholds"]
    for name, value in theirs["weights"].items():
        torch.testing.assert_close(ours["weights"][name], value, atol=1e-3, rtol=1e-3)
    shuffled = "labels" if kind == "live" else None  # each process shuffles what it sees
    for table, columns in (("scores", ["value"]), ("summaries", ["mean", "low", "high"])):
        rows = [[row for row in one[table] if row.control != shuffled] for one in (ours, theirs)]
        assert rows[0]
        same_rows(rows[0], rows[1], columns)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adam", "live"])
def test_two_processes_show_the_images_that_one_shows(kind, both, alone):
    ours, theirs = both[0]["found"][kind]["shown"], alone[kind]["shown"]
    assert [one.row for one in ours] == [one.row for one in theirs]
    assert len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.steps, other.steps, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.final, other.final, atol=1e-4, rtol=0)
        for name, label in other.labels.items():
            assert (one.labels[name] - label).abs().mean() < 1e-3, name
        for name, layers in other.predictions.items():
            for layer, said in layers.items():
                torch.testing.assert_close(one.predictions[name][layer], said, atol=2e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adam", "exact", "live"])
def test_both_processes_find_the_same(kind, both):
    first, second = (one["found"][kind] for one in both)
    for table in ("scores", "summaries", "thresholds"):
        assert first[table] == second[table]
    for name, value in first["weights"].items():
        assert torch.equal(second["weights"][name], value)


@pytest.mark.slow
def test_shuffled_labels_are_each_used_once_and_never_for_their_own_image_though_a_process_sees_one(both):
    images = 0
    for part in ("train", "validation", "test"):
        own, dealt = ([pair for one in both for pair in one["shown"][part, key]] for key in ("none", "labels"))
        places = [[place_of(own, item, pair[item]) for pair in dealt] for item in range(2)]
        assert sorted(places[0]) == sorted(places[1]) == list(range(len(own)))
        assert all(image != label for image, label in zip(*places, strict=True))
        images += len(own)
    assert images == len(SOURCE.names)
