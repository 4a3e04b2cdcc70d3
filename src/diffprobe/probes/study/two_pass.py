"""The main study: probe the activations of a generation at every layer and step, and hold them against controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.activations.control_inputs import CONTROL_INPUTS, extract_control_inputs
from diffprobe.activations.extraction import Extraction, extract, extract_replayed
from diffprobe.activations.sources import Source
from diffprobe.probes.controls import position_scores, shuffled_targets
from diffprobe.probes.ridge import Strengths, edge_lines
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.probes.scoring import choose_thresholds, predict_maps, score_bank, target_maps
from diffprobe.probes.splits import Split
from diffprobe.probes.study.one_pass import run_probing_in_one_pass
from diffprobe.probes.study.question import (
    CONTROL_NETWORKS,
    ExampleImage,
    ExecutionConfig,
    Labeler,
    ProbingConfig,
    ProbingResults,
    check_parts,
    fit_bank,
    one_valued,
    probe_config_for,
    replayed_controls,
    skip_flat,
    warnings_of,
)
from diffprobe.probes.summaries import summarise

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone
    from diffprobe.probes.bank import ProbeBank

__all__ = ["ExampleImage", "ExecutionConfig", "ProbingConfig", "ProbingResults", "replayed_controls", "run_probing"]


def run_probing(
    backbone: Backbone,
    source: Source,
    labeler: Labeler,
    probing_config: ProbingConfig,
    execution: ExecutionConfig | None = None,
) -> ProbingResults:
    """Takes the source's images through the network once, trains every probe, scores probes and controls.

    The control networks see the very latents and prompts that the network saw, and every control's probes are trained,
    selected and scored like the others. Test images are used for the scores alone.

    Raises:
        UserError: the question does not fit the network, the images or the labels.
    """
    execution = execution or ExecutionConfig()
    if execution.one_pass:
        return run_probing_in_one_pass(backbone, source, labeler, probing_config, execution)
    split = probing_config.split(source.names)

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
    evaluations = extraction.computed * source.evaluations(backbone, extraction.manifest.steps)
    images = extraction.images
    check_parts(images, source.names, split)
    targets = labeler(images, source.names, probing_config.properties)
    fitting = _Fitting(probing_config, execution, split, targets, images, backbone.name)

    probes = len(probing_config.inputs) * len(probing_config.steps) * len(probing_config.properties)
    execution.log(f"training {probes} probes on {len(split.train)} images")
    activations = probing_config.read(extraction.activations)
    bank, blocks = fitting.scored(activations, "none")
    for control, control_extraction in _control_networks(backbone, extraction, probing_config, execution):
        evaluations += control_extraction.computed * len(control_extraction.manifest.steps) * source.draws
        blocks += fitting.scored(probing_config.read(control_extraction.activations), control)[1]
    for control, values in _control_inputs(backbone, extraction, probing_config, execution):
        blocks += fitting.scored(values, control)[1]
    if "labels" in probing_config.controls:
        execution.log("control: the same probes on shuffled labels")
        blocks += fitting.scored(activations, "labels")[1]
    position = position_scores(
        targets,
        split,
        probing_config.properties,
        names=source.names,
        model=backbone.name,
        threshold=probing_config.threshold,
        probe=probing_config.probe_config.name,
    )
    if "position" in probing_config.controls:
        blocks += position
    flat = one_valued(
        {name: target_maps(targets, name, source.names) for name in probing_config.properties}, source.names
    )
    scores = skip_flat(score_table(blocks), flat)
    warnings = warnings_of(skip_flat(score_table(position), flat), flat, len(source.names))
    warnings += edge_lines(fitting.strengths, probing_config.probe_config.strengths)
    for line in warnings:
        execution.log(line)
    shown = [
        _show(backbone, extraction, activations, bank, targets, row) for row in split.test[: execution.example_count]
    ]
    summaries = summarise(scores)
    return ProbingResults(scores, summaries, bank, shown, split, evaluations, extraction, targets, warnings)


class _Fitting:
    """Trains and scores the probes of one input after another, all on the same images."""

    def __init__(
        self,
        probing_config: ProbingConfig,
        execution: ExecutionConfig,
        split: Split,
        targets: dict[str, Tensor],
        images: Tensor,
        model: str,
    ) -> None:
        self.probing_config, self.means, self.split, self.targets = probing_config, execution, split, targets
        self.images, self.model = images, model
        self.strengths: dict[str, Strengths] = {}

    def scored(self, activations: ReadableActivations, control: str) -> tuple[ProbeBank, list[ScoreBlock]]:
        probing_config, targets = self.probing_config, self.targets
        if control == "labels":
            targets = shuffled_targets(targets, self.split, probing_config.seed)
        bank = fit_bank(
            activations,
            targets,
            self.split,
            probing_config.properties,
            probe_config_for(probing_config, control),
            seed=probing_config.seed,
            images=self.images,
            trainer=self.means.make_trainer("train" if control == "none" else "train_control"),
        )
        self.strengths[control] = bank.strengths
        bank.thresholds = choose_thresholds(bank, activations, targets, self.split, probing_config.threshold)
        blocks = score_bank(
            bank,
            activations,
            targets,
            self.split,
            model=self.model,
            control=control,
            probe=probing_config.probe_config.name,
        )
        return bank, blocks


def _control_networks(
    backbone: Backbone, extraction: Extraction, probing_config: ProbingConfig, execution: ExecutionConfig
) -> Iterator[tuple[str, Extraction]]:
    for called in replayed_controls(probing_config):
        control = called["control"]
        what, make = CONTROL_NETWORKS[control]
        execution.log(f"control: the same for the network with {what}")
        denoiser = make(backbone.denoiser, probing_config.seed)
        yield (
            control,
            extract_replayed(
                backbone,
                denoiser,
                extraction,
                called,
                batch_size=execution.batch_size,
                stores=execution.stores,
                trainer=execution.make_trainer("replay"),
            ),
        )


def _control_inputs(
    backbone: Backbone, extraction: Extraction, probing_config: ProbingConfig, execution: ExecutionConfig
) -> Iterator[tuple[str, ReadableActivations]]:
    names = [name for name in probing_config.controls if name in CONTROL_INPUTS]
    if not names:
        return
    execution.log(f"control: the same probes on {', '.join(names)}, without the network")
    found = extract_control_inputs(
        backbone,
        extraction,
        names,
        batch_size=execution.batch_size,
        stores=execution.stores,
        trainer=execution.make_trainer("replay"),
    )
    for name in names:
        yield name, found.activations.select([name], probing_config.steps)


def _show(
    backbone: Backbone,
    extraction: Extraction,
    activations: ReadableActivations,
    bank: ProbeBank,
    targets: dict[str, Tensor],
    row: int,
) -> ExampleImage:
    return ExampleImage(
        row=row,
        steps=extraction.decode_steps(backbone, row),
        final=extraction.extras["image"][row],
        labels={name: targets[name][row] for name in bank.properties},
        predictions={
            name: {layer: predict_maps(bank, activations, name, layer, [row])[:, 0] for layer in bank.layers}
            for name in bank.properties
        },
    )
