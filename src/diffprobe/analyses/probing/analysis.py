"""What probes find of each property in the activations, at every layer and step: the study of `train.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffprobe.analyses.trained_probes import ProbingTask, check_probing, plan_probing, train_probes

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import Plan, RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.probes.study.two_pass import ProbingResults
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class Probing:
    """What probes find of each property in the activations, at every layer and step.

    Attributes:
        learning_curve: numbers of training images; the best layers' probes are trained on as many. None: no curve.
        published: property -> metric -> published number, shown beside the run's.
    """

    learning_curve: Sequence[int] = ()
    published: Any = None
    distributed: ClassVar[bool] = True

    def check(self, inputs: Inputs) -> ProbingTask:
        from diffprobe.analyses.probing.learning_curve import check_sizes

        task = check_probing(inputs)
        check_sizes(self.learning_curve, task.inputs.features.store, task.probing_config.split(task.source.names))
        return task

    def plan(self, task: ProbingTask) -> Plan:
        return plan_probing(task)

    def run(self, task: ProbingTask, context: RunContext) -> ProbingResults:
        return train_probes(task, context)

    def report(self, task: ProbingTask, result: ProbingResults, context: RunContext) -> Report:
        from diffprobe.analyses.probing.learning_curve import learning_points
        from diffprobe.analyses.probing.report import report
        from diffprobe.probes.controls import selectivity
        from diffprobe.probes.summaries import best_layer
        from diffprobe.report.grid import PredictionExample

        probing_config = task.probing_config
        items, captions = probing_config.items, task.source.captions
        best = {name: best_layer(result.summaries, name) for name in items}
        more = {"learning_curve": learning_points(probing_config, result, best.values(), self.learning_curve)}
        if "labels" in probing_config.controls:
            more["selectivity"] = selectivity(result.scores)
        examples = [
            PredictionExample.of_image(each, captions[each.row], probing_config.steps, best, items)
            for each in result.examples
        ]
        first = result.examples[0].predictions if result.examples else {}
        made = report(
            result.scores,
            result.summaries,
            seed=context.seed,
            layers=probing_config.inputs,
            examples=examples,
            maps={name: {layer: maps.numpy() for layer, maps in layers.items()} for name, layers in first.items()},
            published=self.published or {},
            warnings=result.warnings,
            more={name: data for name, data in more.items() if data is not None},
            bank=result.bank,
        )
        return replace(made, evaluations=result.evaluations)
