"""The probing study without stored activations: ridge probes of the network and of all its controls in one pass.

The network is evaluated (images x steps) times, and memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from diffprobe.activations.activations import concatenate
from diffprobe.activations.control_inputs import control_activations, control_layers
from diffprobe.activations.extraction import replay_activations, stream_batches
from diffprobe.activations.module import ActivationBatch, quiet_trainer
from diffprobe.activations.sources import Source
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import NotFinite, at_step, naming_images
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.probes.controls import NETWORK, Control, ShuffledLabels
from diffprobe.probes.one_pass import POSITION, LabeledBatch, OnePass, PositionLearner, Targets
from diffprobe.probes.ridge import Moments, RidgePath
from diffprobe.probes.scoring import target_maps
from diffprobe.probes.splits import PARTS
from diffprobe.probes.study.study import (
    ExampleImage,
    ExecutionConfig,
    Labeler,
    ProbingConfig,
    ProbingResults,
    SplitOverlapCheck,
    one_valued,
    scores_and_warnings,
)
from diffprobe.probes.summaries import summarise

if TYPE_CHECKING:
    import lightning

    from diffprobe.backbone.load import Backbone
    from diffprobe.probes.bank import ProbeBank


def run_probing_in_one_pass(
    backbone: Backbone, source: Source, labeler: Labeler, probing_config: ProbingConfig, execution: ExecutionConfig
) -> ProbingResults:
    """`run_probing` where no activation is kept.

    Raises:
        UserError: also when the probes are no ridge probes, or a part has fewer images than there are processes.
    """
    if probing_config.probe_config.solver != "ridge":
        raise UserError("features.store=none keeps no activations, which only probe.solver=ridge can do without")
    split = probing_config.split(source.names)
    study = _OnePassStudy(backbone, source, labeler, probing_config, execution, split.test[: execution.example_count])
    trainer = execution.make_trainer("generate") or quiet_trainer(backbone.device)
    random = np.random.default_rng(probing_config.seed)
    for part in PARTS:
        # Neighbours in a list of prompts should not get each other's labels as shuffled ones
        rows = random.permutation(split.rows(part)).tolist()
        execution.log(f"{part}: {len(rows)} images through {len(source.timesteps(backbone))} steps")
        stream_batches(
            backbone,
            source,
            study.layers,
            probing_config.steps,
            rows,
            partial(study.take, part),
            batch_size=execution.batch_size,
            networks=study.networks,
            trainer=trainer,
        )
        study.conclude(part, trainer)
    candidates = {control.name: one.candidates for control, one in study.passes.items()}
    paths = {name: path for name, path in candidates.items() if isinstance(path, RidgePath)}
    strengths = {name: path.first_strengths() for name, path in paths.items()}
    blocks = {control.name: one.blocks(source.names) for control, one in study.passes.items()}
    scores, warnings = scores_and_warnings(probing_config, blocks, strengths, study.flat, len(source.names))
    for line in warnings:
        execution.log(line)
    replayed = len(study.networks) * len(probing_config.steps) * source.draws
    return ProbingResults(
        scores,
        summarise(scores),
        study.bank,
        sorted(study.examples, key=lambda one: split.test.index(one.row)),
        split,
        len(source.names) * (source.evaluations(backbone, probing_config.steps) + replayed),
        warnings=warnings,
    )


class _OnePassStudy:
    """One pass for each set of probes, all of which take the same batches of images."""

    def __init__(
        self,
        backbone: Backbone,
        source: Source,
        labeler: Labeler,
        probing_config: ProbingConfig,
        execution: ExecutionConfig,
        example_rows: Sequence[int],
    ) -> None:
        self.backbone, self.source, self.labeler, self.probing_config = backbone, source, labeler, probing_config
        self.on_test = execution.on_test
        self.layers = [layer.name for layer in probing_config.recorded]
        control_layers(backbone, probing_config.control_inputs)  # which refuses those that the model does not have
        self.networks: dict[str, nn.Module] = {
            control.name: control.make_denoiser(backbone.denoiser, probing_config.seed)
            for control in probing_config.probe_sets
            if control.make_denoiser
        }
        timesteps = source.timesteps(backbone)
        self.steps = {step: timesteps[step] for step in probing_config.steps}
        self.passes = {control: self._pass(control) for control in probing_config.probe_sets}
        self.shuffled = ShuffledLabels()
        self.example_rows, self.examples = set(example_rows), list[ExampleImage]()
        self.overlap = SplitOverlapCheck()  # of this process
        self.flat: list[tuple[str, str]] = []  # see `one_valued`; after the last part of all processes

    def take(self, part: str, batch: ActivationBatch) -> None:
        """Shows the images of a batch to every pass."""
        names = batch.batch.names
        self.overlap.add(batch.images, names, part)
        items = self.probing_config.items
        labels = self.labeler(batch.images.cpu().float(), names, list(items))
        targets = {key: target_maps(labels, item, names).to(batch.images.device) for key, item in items.items()}
        self.flat += one_valued(targets, names, items)
        inputs = self._control_inputs(batch)
        for control, one in self.passes.items():
            labeled = LabeledBatch(self._values(control, batch, inputs), targets, names)
            if control.kind == "shuffled_labels":
                for shifted in self.shuffled.shift(labeled):
                    one.take(part, shifted)
                continue
            predictions = one.take(part, labeled)
            if control.kind == "network" and part == "test":
                if self.on_test is not None:
                    self.on_test(self.bank, labeled)
                places = [place for place, row in enumerate(batch.batch.rows) if row in self.example_rows]
                self.examples += [self._example(batch, place, labels, predictions) for place in places]

    def conclude(self, part: str, trainer: lightning.Trainer) -> None:
        """After the last image of a part: joins what the processes have."""
        for control, one in self.passes.items():
            if control.kind == "shuffled_labels":
                for batch in self.shuffled.close(_from_neighbour):
                    one.take(part, batch)
            one.conclude(part, partial(trainer.strategy.reduce, reduce_op="sum"), _gather)  # type: ignore[arg-type]
        if part == "validation":
            network = self.passes[NETWORK]
            self.bank: ProbeBank = network.candidates.bank(self.probing_config.steps)
            self.bank.thresholds = network.thresholds
        if part == "test":
            self.examples, self.flat = _gather(self.examples), _gather(self.flat)

    def _pass(self, control: Control) -> OnePass:
        config = self.probing_config
        keys = (self.backbone.name, config.probe_config.name, control.name)
        if control.kind == "position":
            learner = PositionLearner(config.properties)
            return OnePass(learner, config.properties, config.threshold, keys, {NO_STEP: None})
        learner = Moments(config.properties, control.probe_config(config.probe_config))
        return OnePass(learner, config.properties, config.threshold, keys, self.steps)

    def _values(self, control: Control, batch: ActivationBatch, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a set of probes is trained on, {layer: [steps, batch, channels, h, w]}."""
        if control.kind == "position":
            return {POSITION: batch.images[None, :, :1]}
        if control.kind == "input":
            return {control.name: inputs[control.name]}
        if control.kind != "other_network":
            return self._grouped(batch.activations)
        denoiser, steps = self.networks[control.name], self.probing_config.steps
        return self._grouped(replay_activations(self.backbone, self.source, denoiser, self.layers, steps, batch))

    def _control_inputs(self, batch: ActivationBatch) -> dict[str, Tensor]:
        """All of them at once, since images are decoded only once for it: {name: [steps, batch, channels, h, w]}."""
        names, steps = self.probing_config.control_inputs, list(self.steps.items())
        found = []
        for place, image in enumerate(batch.batch.names):
            try:
                found.append(control_activations(self.backbone, names, batch.noisy[:, place], batch.latents[:, place]))
            except NotFinite as error:
                error.name, error.when = image, at_step(*steps[error.image])
                raise
        return {name: torch.stack([values[name] for values in found], 1) for name in names}

    def _grouped(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """[steps, batch, channels, h, w] of the recorded layers -> of layers and groups that are probed."""
        found = {layer.name: values[layer.name] for layer in self.probing_config.layers}
        for group in self.probing_config.groups:
            parts = {layer.name: values[layer.name].flatten(0, 1) for layer in group.layers}
            found[group.name] = concatenate(group, parts).unflatten(0, (len(self.steps), -1))
        return found

    def _example(
        self, batch: ActivationBatch, place: int, labels: Targets, predictions: dict[str, dict[str, Tensor]]
    ) -> ExampleImage:
        image = batch.images[place : place + 1]
        frames = image.expand(len(self.steps), -1, -1, -1)
        if self.source.is_trajectory:
            decoded = []
            for latents, step in zip(batch.latents[:, place], self.steps.items(), strict=True):
                with naming_images([batch.batch.names[place]], at_step(*step)):
                    decoded.append(decode_latents(self.backbone, latents[None]))
            frames = torch.cat(decoded)
        return ExampleImage(
            row=batch.batch.rows[place],
            steps=frames.cpu(),
            final=image[0].cpu(),
            labels={key: maps[place] for key, maps in labels.items()},
            predictions={
                key: {layer: maps[:, place].cpu() for layer, maps in layers.items()}
                for key, layers in predictions.items()
            },
        )


def _gather(items: list) -> list:
    """The items of all processes, on each of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    parts: list[list] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def _from_neighbour(targets: Targets) -> Targets:
    """The targets of the process before this one, in a ring; alone, one's own."""
    everyones = _gather([{name: maps.cpu() for name, maps in targets.items()}])
    before = everyones[torch.distributed.get_rank() - 1 if len(everyones) > 1 else 0]
    return {name: maps.to(targets[name].device) for name, maps in before.items()}
