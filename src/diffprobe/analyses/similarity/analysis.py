"""Which layers and steps know the same: CKA of their activations, and probes at the other steps of their layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.trained_probes import ProbingTask, check_probing, plan_probing, train_probes
from diffprobe.errors import UserError
from diffprobe.ranges import Count

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.analyses.similarity.cka import Similarities
    from diffprobe.analyses.similarity.transfer import TransferScores
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.probes.one_pass import LabeledBatch
    from diffprobe.probes.study.study import ProbingResults
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class SimilarityResult:
    """The probes with their scores, CKA of all layers and steps, and the scores of probes at other steps."""

    probing: ProbingResults
    similarities: Similarities
    transfer: list[TransferScores]

    @property
    def bank(self) -> ProbeBank:
        return self.probing.bank


@dataclass(frozen=True)
class Similarity:
    """Which layers and steps know the same.

    Attributes:
        tokens: places of each test image whose activations CKA compares, drawn with the seed; all, where a layer has no
            more.
    """

    tokens: Count = 16
    distributed: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> ProbingTask:
        from diffprobe.analyses.similarity.kept_tokens import check_free

        if "position" not in inputs.settings.control.names:
            raise UserError(
                "analysis=similarity holds probes at other steps against pixel position, so that their scores have a "
                "floor: choose control=position, or another choice that has it"
            )
        task = check_probing(inputs)
        config = task.probing_config
        if len(config.inputs) * len(config.steps) < 2:
            raise UserError("analysis=similarity compares layers and steps: choose at least two layers or two steps")
        check_free(self._bytes(task), "CKA: tokens of test images, and sums of all pairs of layers and steps,")
        return task

    def plan(self, task: ProbingTask) -> Plan:
        from diffprobe.activations.budget import in_units

        plan, config = plan_probing(task), task.probing_config
        images = len(config.split(task.source.names).test)
        line = (
            f"CKA of {len(config.inputs) * len(config.steps)} layers and steps over {images} test images, of at most "
            f"{self.tokens} tokens each: {in_units(self._bytes(task))} of tokens and sums at most"
        )
        return Plan([*plan.summary, line], plan.details)

    def _bytes(self, task: ProbingTask) -> int:
        from diffprobe.analyses.similarity.kept_tokens import kept_bytes

        config = task.probing_config
        test = config.split(task.source.names).test
        return kept_bytes(config.inputs, len(config.steps), len(test), self.tokens)

    def run(self, task: ProbingTask, context: RunContext) -> SimilarityResult:
        from diffprobe.analyses.similarity.kept_tokens import KeptTokens
        from diffprobe.analyses.similarity.transfer import TransferCollector

        config = task.probing_config
        kept = KeptTokens(config.inputs, len(config.steps), self.tokens, context.seed)
        collector = TransferCollector()

        def on_test(bank: ProbeBank, batch: LabeledBatch) -> None:
            kept.add(batch.values, batch.names)
            collector.add(bank, batch)

        results = train_probes(task, context, on_test)
        context.log(f"comparing {len(config.inputs) * len(config.steps)} layers and steps with each other")
        return SimilarityResult(results, kept.similarities(), collector.scores(results.bank, results.scores))

    def report(self, task: ProbingTask, result: SimilarityResult, context: RunContext) -> Report:
        from diffprobe.analyses.similarity.report import report

        config, backbone = task.probing_config, task.inputs.backbone
        made = report(
            backbone.name,
            config.inputs,
            config.steps,
            result.probing,
            result.similarities,
            result.transfer,
            probe=config.probe_config.name,
            captions=task.source.captions,
            seed=context.seed,
        )
        return replace(made, evaluations=result.probing.evaluations)
