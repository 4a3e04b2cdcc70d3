"""The main study without keeping any activation: ridge probes of the network and of all its controls in one pass.

Training images pass by first, then validation images, then test images, each of them once (see `probes.one_pass`), so
the network is evaluated (images x steps) times, and memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from diffprobe.activations.activations import concatenate
from diffprobe.activations.control_inputs import CONTROL_INPUTS, control_activations, control_layers
from diffprobe.activations.module import ImageBatch, quiet_trainer
from diffprobe.activations.one_pass import ActivationBatch, replay_activations, stream_batches
from diffprobe.activations.sources import Source
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import at_step, naming_images
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.probes.controls import POSITION, LabeledBatch, PositionLearner, ShuffledLabels, Targets
from diffprobe.probes.one_pass import OnePass
from diffprobe.probes.ridge import Moments, RidgePath, Strengths, edge_lines
from diffprobe.probes.score_table import score_table
from diffprobe.probes.scoring import target_maps
from diffprobe.probes.splits import PARTS
from diffprobe.probes.study.question import (
    CONTROL_NETWORKS,
    ExampleImage,
    ExecutionConfig,
    Labeler,
    ProbingConfig,
    ProbingResults,
    SplitOverlapCheck,
    one_valued,
    probe_config_for,
    skip_flat,
    warnings_of,
)
from diffprobe.probes.summaries import summarise

if TYPE_CHECKING:
    import lightning

    from diffprobe.backbone.load import Backbone


def run_probing_in_one_pass(
    backbone: Backbone, source: Source, labeler: Labeler, probing_config: ProbingConfig, execution: ExecutionConfig
) -> ProbingResults:
    """See `emergence.run_probing`, of which this is the way for `execution.live`.

    Raises:
        UserError: also when the probes are no ridge probes, or a part has fewer images than there are processes.
    """
    if probing_config.probe_config.solver != "ridge":
        raise UserError("features.store=none keeps no activations, which only probe.solver=ridge can do without")
    split = probing_config.split(source.names)
    watch = _OnePassStudy(backbone, source, labeler, probing_config, shown=split.test[: execution.example_count])
    trainer = execution.make_trainer("generate") or quiet_trainer(backbone.device)
    # Shuffled, so that neighbours in a list of prompts are not neighbours here.
    random = np.random.default_rng(probing_config.seed)
    for part in PARTS:
        rows = random.permutation(getattr(split, part)).tolist()
        execution.log(f"{part}: {len(rows)} images through {len(source.timesteps(backbone))} steps")
        use = {"train": watch.fit, "validation": watch.validate, "test": watch.test}[part]
        stream_batches(
            backbone,
            source,
            watch.layers,
            probing_config.steps,
            rows,
            use,
            batch_size=execution.batch_size,
            networks=watch.networks,
            trainer=trainer,
        )
        watch.conclude(part, trainer)
    real = watch.passes["none"]
    bank = real.candidates.bank(probing_config.steps)  # type: ignore[attr-defined]
    bank.thresholds = real.thresholds
    asked = ("none", *probing_config.controls)
    blocks = {control: one.blocks(source.names) for control, one in watch.passes.items()}
    scores = score_table([block for control, several in blocks.items() if control in asked for block in several])
    scores = skip_flat(scores, watch.flat)
    position = skip_flat(score_table(blocks["position"]), watch.flat)
    warnings = warnings_of(position, watch.flat, len(source.names))
    warnings += edge_lines(watch.strengths(), probing_config.probe_config.strengths)
    for line in warnings:
        execution.log(line)
    each = (
        source.evaluations(backbone, probing_config.steps)
        + len(watch.networks) * len(probing_config.steps) * source.draws
    )
    return ProbingResults(
        scores,
        summarise(scores),
        bank,
        sorted(watch.shown, key=lambda one: split.test.index(one.row)),
        split,
        len(source.names) * each,
        warnings=warnings,
    )


class _OnePassStudy:
    """The passes of the network ('none') and of every control, and what a batch of images does to each of them."""

    def __init__(
        self, backbone: Backbone, source: Source, labeler: Labeler, probing_config: ProbingConfig, shown: Sequence[int]
    ) -> None:
        self.backbone, self.source, self.labeler, self.probing_config = backbone, source, labeler, probing_config
        self.layers = [layer.name for layer in probing_config.recorded]
        self.wanted, self.shown = set(shown), list[ExampleImage]()
        self.pictures = SplitOverlapCheck()  # of this process
        self.flat: list[tuple[str, str]] = []  # (property, image) of labels with one value; in the end of all processes
        self.dealt = ShuffledLabels()
        self.beside: tuple[ImageBatch, dict[str, Tensor]] | None = None
        self.inputs: dict[str, Callable[[ActivationBatch], dict[str, Tensor]]] = {"none": self._own}
        self.networks: dict[str, nn.Module] = {}  # of controls
        for control in probing_config.controls:
            if control in CONTROL_NETWORKS:
                self._add_network(control, CONTROL_NETWORKS[control][1](backbone.denoiser, probing_config.seed))
            elif control in CONTROL_INPUTS:
                control_layers(backbone, [control])  # which refuses what the model does not have
                self.inputs[control] = partial(self._control_input, control)
            elif control == "labels":
                self.inputs[control] = self.inputs["none"]
        timesteps = source.timesteps(backbone)
        steps = {step: timesteps[step] for step in probing_config.steps}
        self.moments = [at_step(step, timestep) for step, timestep in steps.items()]
        self.passes = {
            control: self._pass(
                Moments(probing_config.properties, probe_config_for(probing_config, control)), control, steps
            )
            for control in self.inputs
        }
        # Also where it is no control that is asked for: it tells whether labels are worth learning
        self.inputs["position"] = lambda seen: {POSITION: seen.images[None, :, :1]}
        self.passes["position"] = self._pass(PositionLearner(probing_config.properties), "position", {NO_STEP: None})

    def fit(self, seen: ActivationBatch) -> None:
        self.pictures.add(seen.images, seen.batch.names, "train")
        for control, batch in self._work(seen, self._labels(seen)):
            self._use("train", control, batch)

    def validate(self, seen: ActivationBatch) -> None:
        self.pictures.add(seen.images, seen.batch.names, "validation")
        for control, batch in self._work(seen, self._labels(seen)):
            self._use("validation", control, batch)

    def test(self, seen: ActivationBatch) -> None:
        self.pictures.add(seen.images, seen.batch.names, "test")
        labels = self._labels(seen)
        for control, batch in self._work(seen, labels):
            said = self._use("test", control, batch)
            if control == "none":
                self.shown += [
                    self._show(seen, place, labels, said)
                    for place, row in enumerate(seen.batch.rows)
                    if row in self.wanted
                ]

    def conclude(self, part: str, trainer: lightning.Trainer) -> None:
        """After the last image of a part: the processes put together what each has seen."""
        reduce = partial(trainer.strategy.reduce, reduce_op="sum")
        if "labels" in self.passes:
            for batch in self.dealt.close(_from_neighbour):
                self._use(part, "labels", batch)
        for one in self.passes.values():
            if part == "train":
                one.solve(reduce)  # type: ignore[arg-type]
            elif part == "validation":
                one.choose(reduce, _gather)  # type: ignore[arg-type]
            else:
                one.join(_gather)
        if part == "test":
            self.shown = _gather(self.shown)
            self.flat = _gather(self.flat)

    def strengths(self) -> dict[str, Strengths]:
        """Of each control's chosen probes, and of the network's ('none')."""
        paths = {control: one.candidates for control, one in self.passes.items()}
        return {control: path.first_strengths() for control, path in paths.items() if isinstance(path, RidgePath)}

    def _work(self, seen: ActivationBatch, labels: Targets) -> Iterator[tuple[str, LabeledBatch]]:
        """What the pass of each control is to be shown of a batch."""
        names = seen.batch.names
        targets = {key: target_maps(labels, key, names).to(seen.images.device) for key in labels}
        self.flat += one_valued(targets, names)
        for control in self.passes:
            batch = LabeledBatch(self.inputs[control](seen), targets, names)
            for shown in self.dealt.shift(batch) if control == "labels" else [batch]:
                yield control, shown

    def _use(self, part: str, control: str, batch: LabeledBatch) -> dict[str, dict[str, Tensor]]:
        """Shows images to a control's pass; gives what its probes say of test images, see `OnePass.test`."""
        one = self.passes[control]
        if part == "train":
            one.fit(batch.values, batch.targets)
        elif part == "validation":
            one.validate(*batch)
        return one.test(*batch) if part == "test" else {}

    def _control_input(self, control: str, seen: ActivationBatch) -> dict[str, Tensor]:
        if self.beside is None or self.beside[0] is not seen.batch:  # images are decoded once for all control inputs
            names = [name for name in CONTROL_INPUTS if name in self.inputs]
            found = []
            for noisy, latents, when in zip(seen.noisy, seen.latents, self.moments, strict=True):
                with naming_images(seen.batch.names, when):
                    found.append(control_activations(self.backbone, names, noisy, latents))
            self.beside = seen.batch, {name: torch.stack([values[name] for values in found]) for name in names}
        return {control: self.beside[1][control]}

    def _add_network(self, control: str, denoiser: Any) -> None:
        self.networks[control] = denoiser
        replay = partial(
            replay_activations, self.backbone, self.source, denoiser, self.layers, self.probing_config.steps
        )
        self.inputs[control] = lambda seen: self._grouped(replay(seen))

    def _own(self, seen: ActivationBatch) -> dict[str, Tensor]:
        return self._grouped(seen.activations)

    def _grouped(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """[steps, batch, channels, h, w] of the recorded layers -> of layers and groups that are probed."""
        found = {layer.name: values[layer.name] for layer in self.probing_config.layers}
        for group in self.probing_config.groups:
            parts = {layer.name: values[layer.name].flatten(0, 1) for layer in group.layers}
            found[group.name] = concatenate(group, parts).unflatten(0, (len(self.probing_config.steps), -1))
        return found

    def _pass(self, learner: Any, control: str, steps: Mapping[int, float | None]) -> OnePass:
        probing_config, keys = self.probing_config, (self.backbone.name, self.probing_config.probe_config.name, control)
        return OnePass(learner, probing_config.properties, probing_config.threshold, keys, steps)

    def _labels(self, seen: ActivationBatch) -> Targets:
        return self.labeler(seen.images.cpu().float(), seen.batch.names, self.probing_config.properties)

    def _film(self, seen: ActivationBatch, place: int) -> Tensor:
        """One image of a batch as it looks after each probed step, [steps, 3, H, W] in [0, 1]."""
        frames = []
        for latents, when in zip(seen.latents[:, place], self.moments, strict=True):
            with naming_images([seen.batch.names[place]], when):
                frames.append(decode_latents(self.backbone, latents[None]))
        return torch.cat(frames)

    def _show(
        self, seen: ActivationBatch, place: int, labels: Targets, said: Mapping[str, Mapping[str, Tensor]]
    ) -> ExampleImage:
        image = seen.images[place : place + 1]
        steps = len(self.probing_config.steps)
        return ExampleImage(
            row=seen.batch.rows[place],
            steps=(self._film(seen, place) if self.source.is_trajectory else image.expand(steps, -1, -1, -1)).cpu(),
            final=image[0].cpu(),
            labels={key: maps[place] for key, maps in labels.items()},
            predictions={
                key: {layer: maps[:, place].cpu() for layer, maps in layers.items()} for key, layers in said.items()
            },
        )


def _gather(items: list) -> list:
    """The items of all processes, on each of them."""
    if not _several_processes():
        return items
    parts: list[list] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def _from_neighbour(targets: Targets) -> Targets:
    """What the process before this one, in a ring, gives; alone, one's own."""
    if not _several_processes():
        return targets
    given = _gather([{name: maps.cpu() for name, maps in targets.items()}])[torch.distributed.get_rank() - 1]
    return {name: maps.to(targets[name].device) for name, maps in given.items()}


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
