"""The main study: probe the activations of a generation at every layer and step, and hold them against controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.activations.control_inputs import CONTROL_INPUTS, extract_control_inputs
from diffprobe.activations.extraction import Extraction, extract, extract_replayed
from diffprobe.activations.sources.source import Source
from diffprobe.probes.controls import shuffled_targets
from diffprobe.probes.position import position_scores
from diffprobe.probes.ridge import Strengths, edge_lines
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.probes.scoring import choose_thresholds, predict_maps, score_bank
from diffprobe.probes.splits import Split
from diffprobe.probes.study.label_checks import check_parts, one_valued, skip_flat, warnings_of
from diffprobe.probes.study.one_pass import study_live
from diffprobe.probes.study.question import (
    CONTROL_NETWORKS,
    Findings,
    Labeler,
    Means,
    Question,
    Shown,
    fit_bank,
    recipe_of,
    replayed_controls,
)
from diffprobe.probes.summaries import summarise
from diffprobe.probes.targets import target_maps

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone
    from diffprobe.probes.bank import ProbeBank

__all__ = ["Findings", "Means", "Question", "Shown", "replayed_controls", "study_emergence"]


def study_emergence(
    backbone: Backbone, source: Source, labeler: Labeler, question: Question, means: Means | None = None
) -> Findings:
    """Takes the source's images through the network once, trains every probe, scores probes and controls.

    The control networks see the very latents and prompts that the network saw, and every control's probes are trained,
    selected and scored like the others. Test images are used for the scores alone.

    Raises:
        UserError: the question does not fit the network, the images or the labels.
    """
    means = means or Means()
    if means.live:
        return study_live(backbone, source, labeler, question, means)
    split = question.split(source.names)

    means.tell(f"running {len(source.names)} images through {len(source.timesteps(backbone))} steps")
    extraction = extract(
        backbone,
        source,
        question.recorded,
        question.steps,
        batch_size=means.batch_size,
        dtype=means.dtype,
        stores=means.stores,
        images_per_shard=means.images_per_shard,
        trainer=means.trainer("generate"),
        tell=means.tell,
    )
    evaluations = extraction.computed * source.evaluations(backbone, extraction.manifest.steps)
    images = extraction.images
    check_parts(images, source.names, split)
    targets = labeler(images, source.names, question.properties)
    fitting = _Fitting(question, means, split, targets, images, backbone.name)

    probes = len(question.inputs) * len(question.steps) * len(question.properties)
    means.tell(f"training {probes} probes on {len(split.train)} images")
    activations = question.read(extraction.activations)
    bank, blocks = fitting.scored(activations, "none")
    for control, control_extraction in _control_networks(backbone, extraction, question, means):
        evaluations += control_extraction.computed * len(control_extraction.manifest.steps) * source.draws
        blocks += fitting.scored(question.read(control_extraction.activations), control)[1]
    for control, values in _control_inputs(backbone, extraction, question, means):
        blocks += fitting.scored(values, control)[1]
    if "labels" in question.controls:
        means.tell("control: the same probes on shuffled labels")
        blocks += fitting.scored(activations, "labels")[1]
    position = position_scores(
        targets,
        split,
        question.properties,
        names=source.names,
        model=backbone.name,
        threshold=question.threshold,
        probe=question.recipe.name,
    )
    if "position" in question.controls:
        blocks += position
    flat = one_valued({name: target_maps(targets, name, source.names) for name in question.properties}, source.names)
    scores = skip_flat(score_table(blocks), flat)
    warnings = warnings_of(skip_flat(score_table(position), flat), flat, len(source.names))
    warnings += edge_lines(fitting.strengths, question.recipe.strengths)
    for line in warnings:
        means.tell(line)
    shown = [_show(backbone, extraction, activations, bank, targets, row) for row in split.test[: means.shown]]
    summaries = summarise(scores)
    return Findings(scores, summaries, bank, shown, split, evaluations, extraction, targets, warnings)


class _Fitting:
    """Trains and scores the probes of one input after another, all on the same images."""

    def __init__(
        self, question: Question, means: Means, split: Split, targets: dict[str, Tensor], images: Tensor, model: str
    ) -> None:
        self.question, self.means, self.split, self.targets = question, means, split, targets
        self.images, self.model = images, model
        self.strengths: dict[str, Strengths] = {}

    def scored(self, activations: ReadableActivations, control: str) -> tuple[ProbeBank, list[ScoreBlock]]:
        question, targets = self.question, self.targets
        if control == "labels":
            targets = shuffled_targets(targets, self.split, question.seed)
        bank = fit_bank(
            activations,
            targets,
            self.split,
            question.properties,
            recipe_of(question, control),
            seed=question.seed,
            images=self.images,
            trainer=self.means.trainer("train" if control == "none" else "train_control"),
        )
        self.strengths[control] = bank.strengths
        bank.thresholds = choose_thresholds(bank, activations, targets, self.split, question.threshold)
        blocks = score_bank(
            bank, activations, targets, self.split, model=self.model, control=control, probe=question.recipe.name
        )
        return bank, blocks


def _control_networks(
    backbone: Backbone, extraction: Extraction, question: Question, means: Means
) -> Iterator[tuple[str, Extraction]]:
    for called in replayed_controls(question):
        control = called["control"]
        what, make = CONTROL_NETWORKS[control]
        means.tell(f"control: the same for the network with {what}")
        denoiser = make(backbone.denoiser, question.seed)
        yield (
            control,
            extract_replayed(
                backbone,
                denoiser,
                extraction,
                called,
                batch_size=means.batch_size,
                stores=means.stores,
                trainer=means.trainer("replay"),
            ),
        )


def _control_inputs(
    backbone: Backbone, extraction: Extraction, question: Question, means: Means
) -> Iterator[tuple[str, ReadableActivations]]:
    names = [name for name in question.controls if name in CONTROL_INPUTS]
    if not names:
        return
    means.tell(f"control: the same probes on {', '.join(names)}, without the network")
    found = extract_control_inputs(
        backbone,
        extraction,
        names,
        batch_size=means.batch_size,
        stores=means.stores,
        trainer=means.trainer("replay"),
    )
    for name in names:
        yield name, found.activations.select([name], question.steps)


def _show(
    backbone: Backbone,
    extraction: Extraction,
    activations: ReadableActivations,
    bank: ProbeBank,
    targets: dict[str, Tensor],
    row: int,
) -> Shown:
    return Shown(
        row=row,
        steps=extraction.decoded(backbone, row),
        final=extraction.extras["image"][row],
        labels={name: targets[name][row] for name in bank.properties},
        predictions={
            name: {layer: predict_maps(bank, activations, name, layer, [row])[:, 0] for layer in bank.layers}
            for name in bank.properties
        },
    )
