"""The probing study: probes of activations at every layer and step, held against controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.activations.control_inputs import extract_control_inputs
from diffprobe.activations.extraction import Extraction, extract, extract_replayed
from diffprobe.activations.sources import Source
from diffprobe.probes.controls import Control, position_scores, shuffled_targets
from diffprobe.probes.one_pass import LabeledBatch
from diffprobe.probes.ridge import Strengths
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.scoring import choose_thresholds, predict_maps, score_bank, target_maps
from diffprobe.probes.splits import Split
from diffprobe.probes.study.one_pass import run_probing_in_one_pass
from diffprobe.probes.study.study import (
    ExampleImage,
    ExecutionConfig,
    Labeler,
    ProbingConfig,
    ProbingResults,
    check_parts,
    fit_bank,
    one_valued,
    scores_and_warnings,
)
from diffprobe.probes.summaries import summarise

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone
    from diffprobe.probes.bank import ProbeBank

__all__ = ["ExampleImage", "ExecutionConfig", "ProbingConfig", "ProbingResults", "run_probing"]


def run_probing(
    backbone: Backbone,
    source: Source,
    labeler: Labeler,
    probing_config: ProbingConfig,
    execution: ExecutionConfig | None = None,
) -> ProbingResults:
    """Takes the source's images through the network once, trains every probe, scores probes and controls.

    Every control's probes are trained, selected and scored as the network's are. Test images are used for the scores
    alone.

    Raises:
        UserError: the question does not fit the network, the images or the labels.
    """
    execution = execution or ExecutionConfig()
    if execution.one_pass:
        return run_probing_in_one_pass(backbone, source, labeler, probing_config, execution)
    split, items = probing_config.split(source.names), probing_config.items
    execution.log(f"running {len(source.names)} images through {len(source.timesteps(backbone))} steps")
    extraction = extract(
        backbone,
        source,
        probing_config.recorded,
        probing_config.steps,
        batch_size=execution.batch_size,
        dtype=execution.dtype,
        stores=execution.stores,
        images_per_shard=execution.images_per_shard,
        trainer=execution.make_trainer("generate"),
        log=execution.log,
    )
    images = extraction.images
    check_parts(images, source.names, split)
    targets = labeler(images, source.names, list(items))
    probes = len(probing_config.inputs) * len(probing_config.steps) * len(items)
    execution.log(f"training {probes} probes on {len(split.train)} images")
    study = _TwoPassStudy(backbone, probing_config, execution, extraction, split, targets)
    blocks = {control.name: study.scored(control) for control in probing_config.probe_sets}
    maps = {name: target_maps(targets, item, source.names) for name, item in items.items()}
    flat = one_valued(maps, source.names, items)
    if execution.on_test is not None:
        for start in range(0, len(split.test), execution.batch_size):
            execution.on_test(study.bank, study.labeled(split.test[start : start + execution.batch_size], maps))
    scores, warnings = scores_and_warnings(probing_config, blocks, study.strengths, flat, len(source.names))
    for line in warnings:
        execution.log(line)
    return ProbingResults(
        scores,
        summarise(scores),
        study.bank,
        [study.example(row) for row in split.test[: execution.example_count]],
        split,
        study.evaluations,
        extraction,
        targets,
        warnings,
    )


@dataclass
class _TwoPassStudy:
    """Trains and scores one set of probes after another, all on the same images; keeps the network's `bank`."""

    backbone: Backbone
    probing_config: ProbingConfig
    execution: ExecutionConfig
    extraction: Extraction
    split: Split
    targets: dict[str, Tensor]

    def __post_init__(self) -> None:
        self.activations = self.probing_config.read(self.extraction.activations)
        each = self.extraction.source.evaluations(self.backbone, self.extraction.manifest.steps)
        self.evaluations = self.extraction.computed * each
        self.strengths: dict[str, Strengths] = {}
        self.bank: ProbeBank

    def scored(self, control: Control) -> list[ScoreBlock]:
        """The scores of one set of probes, which are trained first."""
        probing_config, targets = self.probing_config, self.targets
        properties, threshold = probing_config.properties, probing_config.threshold
        tables = {"model": self.backbone.name, "probe": probing_config.probe_config.name}
        if control.kind == "position":
            names = self.activations.names
            return position_scores(targets, self.split, properties, names=names, threshold=threshold, **tables)
        if control.kind in ("other_network", "shuffled_labels"):
            self.execution.log(f"control: the same probes on {control.description}")
        if control.kind == "shuffled_labels":
            targets = shuffled_targets(targets, self.split, probing_config.seed)
        activations = self._activations(control)
        bank = fit_bank(
            activations,
            targets,
            self.split,
            properties,
            control.probe_config(probing_config.probe_config),
            seed=probing_config.seed,
            images=self.extraction.extras["image"],
            trainer=self.execution.make_trainer("train" if control.kind == "network" else "train_control"),
        )
        bank.thresholds = choose_thresholds(bank, activations, targets, self.split, threshold)
        self.strengths[control.name] = bank.strengths
        if control.kind == "network":
            self.bank = bank
        return score_bank(bank, activations, targets, self.split, control=control.name, **tables)

    def labeled(self, rows: Sequence[int], targets: Mapping[str, Tensor]) -> LabeledBatch:
        """Some images with their activations, and of all targets theirs."""
        values = {layer: self.activations.values[layer][:, list(rows)] for layer in self.bank.layers}
        own = {name: maps[list(rows)] for name, maps in targets.items()}
        return LabeledBatch(values, own, [self.activations.names[row] for row in rows])

    def example(self, row: int) -> ExampleImage:
        bank = self.bank
        return ExampleImage(
            row=row,
            steps=self.extraction.decode_steps(self.backbone, row),
            final=self.extraction.extras["image"][row],
            labels={name: self.targets[name][row] for name in bank.properties},
            predictions={
                name: {layer: predict_maps(bank, self.activations, name, layer, [row])[:, 0] for layer in bank.layers}
                for name in bank.properties
            },
        )

    def _activations(self, control: Control) -> ReadableActivations:
        """What the probes are trained on, computed or read where it is not the network's."""
        if control.kind == "input":
            return self._control_inputs.activations.select([control.name], self.probing_config.steps)
        if control.make_denoiser is None:
            return self.activations
        with control.other_network(self.backbone.denoiser, self.probing_config.seed) as denoiser:
            found = extract_replayed(
                self.backbone,
                denoiser,
                self.extraction,
                self.probing_config.replayed[control.name],
                batch_size=self.execution.batch_size,
                stores=self.execution.stores,
                trainer=self.execution.make_trainer("replay"),
            )
        self.evaluations += found.computed * len(found.manifest.steps) * found.source.draws
        return self.probing_config.read(found.activations)

    @cached_property
    def _control_inputs(self) -> Extraction:
        """All of them at once, since images are decoded only once for it."""
        names = self.probing_config.control_inputs
        self.execution.log(f"control: the same probes on {', '.join(names)}, without the network")
        return extract_control_inputs(
            self.backbone,
            self.extraction,
            names,
            batch_size=self.execution.batch_size,
            stores=self.execution.stores,
            trainer=self.execution.make_trainer("replay"),
        )
