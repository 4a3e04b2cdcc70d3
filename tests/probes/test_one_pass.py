"""Images that pass by once leave the scores that stored activations give."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from threading import Barrier

import numpy as np
import pytest
import torch

from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.one_pass import POSITION, LabeledBatch, OnePass, PositionLearner
from diffprobe.probes.ridge import Moments, ridge_bank
from diffprobe.probes.score_table import score_table
from diffprobe.probes.scoring import choose_thresholds, predict_maps, score_bank, target_maps
from diffprobe.probes.splits import PARTS, Split
from diffprobe.properties import PAPERS, PROPERTIES
from tests.probes.planted import DEEP, label_maps, planted
from tests.reference.position import position_scores
from tests.reference.score_rows import rows_of

NAMES = list(PAPERS)
SPLIT = Split([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [10, 11, 12, 13, 14])
TARGETS = label_maps(15)
ACTIVATIONS = planted(15, TARGETS)
RECIPE = ProbeConfig("ridge", solver="ridge", strengths=(1e-4, 1e-2, 1.0), bias=True)


def passed_by(learner, threshold, keys, steps, inputs, parts=2) -> list[OnePass]:
    """The images in batches of two, shared among `parts` pretended processes; returns one OnePass for each."""
    passes = [OnePass(learner(), NAMES, threshold, keys, steps) for _ in range(parts)]
    maps = {name: target_maps(TARGETS, PROPERTIES[name], ACTIVATIONS.names) for name in NAMES}

    for part in PARTS:
        for number, one in enumerate(passes):
            rows = SPLIT.rows(part)[number::parts]
            for start in range(0, len(rows), 2):
                some = rows[start : start + 2]
                wanted = {name: maps[name][some] for name in NAMES}
                one.take(part, LabeledBatch(inputs(some), wanted, [ACTIVATIONS.names[row] for row in some]))
        if part != "test":
            together(passes, lambda one, reduce, gather, part=part: one.conclude(part, reduce, gather))
    return passes


def together(passes, call) -> None:
    """Calls each in a thread of its own, as its process, with reductions over all."""
    given: list = [None] * len(passes)
    barrier = Barrier(len(passes), timeout=60)

    def among_all(number, join):
        def joined(value):
            given[number] = value
            barrier.wait()
            found = join(given)
            barrier.wait()
            return found

        return joined

    def process(number):
        call(passes[number], among_all(number, sum), among_all(number, lambda lists: list(chain.from_iterable(lists))))

    with ThreadPoolExecutor(len(passes)) as threads:
        list(threads.map(process, range(len(passes))))


def as_table(scores):
    return {replace(row, value=None): row.value for row in scores}


def about(scores):
    return pytest.approx(as_table(scores), abs=1e-5)


@pytest.mark.parametrize("threshold", ["validation", 0.5])
@pytest.mark.parametrize("parts", [1, 2])
def test_ridge_probes_score_as_from_stored_activations(threshold, parts) -> None:
    steps = dict(zip(ACTIVATIONS.steps, ACTIVATIONS.timesteps, strict=True))
    passes = passed_by(
        lambda: Moments(NAMES, RECIPE),
        threshold,
        ("planted", "ridge", "none"),
        steps,
        lambda rows: {layer: values[:, rows] for layer, values in ACTIVATIONS.values.items()},
        parts,
    )
    bank = ridge_bank(ACTIVATIONS, TARGETS, SPLIT, NAMES, RECIPE)
    bank.thresholds = choose_thresholds(bank, ACTIVATIONS, TARGETS, SPLIT, threshold)
    expected = score_bank(bank, ACTIVATIONS, TARGETS, SPLIT, model="planted", probe="ridge")
    each = [rows_of(score_table(one.blocks(ACTIVATIONS.names))) for one in passes]
    found = [row for rows in each for row in rows if row.split == "test"]
    found += [row for row in each[0] if row.split == "validation"]
    assert as_table(found) == about(rows_of(score_table(expected)))
    assert passes[0].thresholds == bank.thresholds
    streamed = passes[0].candidates.bank(ACTIVATIONS.steps)
    for key, value in bank.state_dict().items():
        # A constant channel beside a bias leaves a direction that only rounding decides.
        torch.testing.assert_close(streamed.state_dict()[key], value, rtol=1e-4, atol=1e-3)


def test_what_the_chosen_probes_say_is_in_the_labels_units() -> None:
    (one,) = passed_by(
        lambda: Moments(NAMES, RECIPE),
        "validation",
        ("planted", "ridge", "none"),
        dict.fromkeys(ACTIVATIONS.steps),
        lambda rows: {layer: values[:, rows] for layer, values in ACTIVATIONS.values.items()},
        parts=1,
    )
    rows = SPLIT.test[:2]
    values = {layer: values[:, rows] for layer, values in ACTIVATIONS.values.items()}
    targets = {name: target_maps(TARGETS, PROPERTIES[name], ACTIVATIONS.names)[rows] for name in NAMES}
    said = one.take("test", LabeledBatch(values, targets, ["a", "b"]))
    bank = one.candidates.bank(ACTIVATIONS.steps)
    for name in NAMES:
        expected = predict_maps(bank, ACTIVATIONS, name, DEEP, rows)
        torch.testing.assert_close(said[name][DEEP], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threshold", ["validation", 0.3])
@pytest.mark.parametrize("parts", [1, 2])
def test_position_scores_as_from_all_labels(threshold, parts) -> None:
    passes = passed_by(
        lambda: PositionLearner(NAMES),
        threshold,
        ("planted", "ridge", "position"),
        {-1: None},
        lambda rows: {POSITION: TARGETS["depth"][None, rows, None]},
        parts,
    )
    expected = position_scores(
        TARGETS, SPLIT, NAMES, names=ACTIVATIONS.names, model="planted", threshold=threshold, probe="ridge"
    )
    each = [rows_of(score_table(one.blocks(ACTIVATIONS.names))) for one in passes]
    found = [row for rows in each for row in rows if row.split == "test"]
    found += [row for row in each[0] if row.split == "validation"]
    assert as_table(found) == about(rows_of(score_table(expected)))


def test_candidates_leave_nothing_in_memory_but_the_chosen_scores() -> None:
    steps = dict.fromkeys(ACTIVATIONS.steps)
    one = OnePass(Moments(NAMES, RECIPE), NAMES, "validation", ("planted", "ridge", "none"), steps)
    targets = {name: target_maps(TARGETS, PROPERTIES[name], ACTIVATIONS.names)[:2] for name in NAMES}
    batch = LabeledBatch({layer: values[:, :2] for layer, values in ACTIVATIONS.values.items()}, targets, ["a", "b"])
    one.take("train", batch)
    one.conclude("train", lambda value: value, lambda value: value)
    one.take("validation", batch)
    before = held(one)
    for _ in range(50):
        one.take("validation", batch)
    assert held(one) - before < 50 * 2 * 100  # names of images alone


def held(one: OnePass) -> int:
    """Bytes of everything that can be reached from a pass but for its file."""
    seen, found = set(), 0
    waiting: list = [value for name, value in vars(one).items() if name != "_validated"]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        found += value.nbytes if isinstance(value, torch.Tensor | np.ndarray) else sys.getsizeof(value)
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return found
