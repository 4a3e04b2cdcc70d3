"""What analyses of probes share: probes that are trained and scored, and probes of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.inputs import check_noise, chosen_layers, chosen_steps, make_source, test_prompts
from diffprobe.errors import UserError
from diffprobe.parts import make

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from diffprobe.activations.activations import ReadableActivations
    from diffprobe.activations.budget import Plan as Budget
    from diffprobe.activations.extraction import Extraction, StoreFolder
    from diffprobe.activations.sources import Source
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.data.prompts import Prompt
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.probes.one_pass import LabeledBatch
    from diffprobe.probes.study.study import ProbingConfig, ProbingResults

OnTest = Callable[["ProbeBank", "LabeledBatch"], None]
KEPT = {"disk": "on disk", "memory": "in memory", "none": "held at a time, and not kept"}
# Settings that make other activations of the same step; probes of one kind say nothing of the other.
SAME_ACTIVATIONS = (
    *("model.guidance", "model.scheduler", "model.size", "model.revision"),
    *("steps.sampling", "trajectory._target_", "features.half"),
)


@dataclass(frozen=True)
class ProbingTask:
    """Validated inputs of an analysis that trains probes, or takes those of a finished run to other images.

    Attributes:
        source: of the images; those that the probes of a finished run have not seen, where these are taken.
        stores: where activations are kept on disk, and which; None where they are not.
    """

    inputs: Inputs
    source: Source
    probing_config: ProbingConfig
    stores: StoreFolder | None
    budget: Budget


def check_probing(inputs: Inputs) -> ProbingTask:
    """Validated inputs for probes that are trained. Raises UserError for what the user got wrong."""
    from diffprobe.labels.labeler import GeometryAwareLabeler
    from diffprobe.probes.study.study import ProbingConfig

    settings, source, labeler, backbone = inputs.settings, inputs.source, inputs.labeler, inputs.backbone
    check_noise(settings, backbone)
    probing_config = ProbingConfig(
        steps=inputs.steps(source.timesteps(backbone)),
        layers=inputs.layers,
        groups=inputs.groups,
        properties=inputs.properties,
        controls=list(settings.control.names),
        fractions=list(settings.data.fractions),
        test=[prompt.name for prompt in test_prompts(settings, lambda _: None)],  # making the source logged its lines
        probe_config=make(settings.probe),
        threshold=settings.property.threshold,
        seed=settings.seed,
    )
    if isinstance(labeler, GeometryAwareLabeler):
        labeler.set_geometries(source.geometries())
    labeler.check(source.names, list(probing_config.items), backbone.image_size)
    return task_of(inputs, source, probing_config)


def task_of(inputs: Inputs, source: Source, probing_config: ProbingConfig) -> ProbingTask:
    """The task of a question about the images of a source. Raises UserError where it does not fit memory or disk."""
    from diffprobe.activations.budget import check_memory, plan_live, plan_run, plan_stores
    from diffprobe.activations.control_inputs import control_layers
    from diffprobe.activations.store.manifest import describe

    backbone, features, stores = inputs.backbone, inputs.features, _stores(inputs, source)
    layers, steps = probing_config.recorded, probing_config.steps
    if stores:
        layers, steps = stores.stored_layers_and_steps(layers, steps)
    identified = stores is not None
    manifest = describe(
        backbone, source, layers, steps, features.dtype, features.images_per_shard, identified=identified
    )
    once, again = source.evaluations(backbone, steps), len(steps) * source.draws
    controls = list(probing_config.replayed.values())
    control_inputs = control_layers(backbone, probing_config.control_inputs)
    if stores:
        budget = plan_stores(manifest, once, controls, again, stores.folder, control_inputs)
    elif features.store == "none":
        budget = plan_live(manifest, once, controls, again, features.batch_size)
        check_memory(budget)
    else:
        budget = plan_run(manifest, once, controls, again, control_inputs)
        check_memory(budget)
    return ProbingTask(inputs, source, probing_config, stores, budget)


def _stores(inputs: Inputs, source: Source) -> StoreFolder | None:
    """Raises UserError for layers and steps to keep that the network or the source does not have."""
    from diffprobe.activations.extraction import StoreFolder

    features, backbone = inputs.features, inputs.backbone
    if features.store == "none" and inputs.settings.probe.solver != "ridge":
        raise UserError("features=none keeps nothing, which only probe.solver=ridge can do without (probe=ridge)")
    if features.store != "disk":
        if features.layers is not None or features.steps is not None:
            raise UserError("features.layers and features.steps say what a store keeps: choose features=disk")
        return None
    return StoreFolder(
        Path(features.folder),
        None if features.layers is None else chosen_layers(features.layers, backbone),
        None if features.steps is None else chosen_steps(features.steps, source.timesteps(backbone), "features.steps"),
    )


def plan_probing(task: ProbingTask) -> Plan:
    """Evaluations of the network, and bytes of activations."""
    from diffprobe.activations.budget import in_units

    probing_config, backbone = task.probing_config, task.inputs.backbone
    line = (
        f"{backbone.name} on {backbone.device}: {len(task.source.names)} images, {len(probing_config.inputs)} layers, "
        f"{len(probing_config.steps)} of {len(task.source.timesteps(backbone))} steps, "
        f"{', '.join(probing_config.items)}; {task.budget.evaluations} network evaluations, "
        f"{in_units(task.budget.bytes)} of activations {KEPT[task.inputs.features.store]}"
    )
    estimate = _estimates(task) if task.inputs.settings.dry_run else []  # two steps of the first batch are taken
    return Plan([line], [*task.budget.lines(), *estimate])


def _estimates(task: ProbingTask) -> list[str]:
    """Lines on the memory and the time that the passes over images will take."""
    from diffprobe.activations.cost import memory_line, time_line

    features, backbone, config = task.inputs.features, task.inputs.backbone, task.probing_config
    batch = min(features.batch_size, len(task.source.names))
    numbers = sum(layer.channels * layer.tokens for layer in config.recorded) * len(config.steps) * batch
    kept = 0 if task.stores else task.budget.bytes
    examples = min(task.inputs.settings.report.examples, len(task.source.names))
    return [
        memory_line(backbone, batch, numbers * backbone.dtype.itemsize + kept),
        time_line(
            backbone,
            task.source,
            [layer.name for layer in config.recorded],
            config.steps,
            batch,
            replays=len(config.replayed),
            decoded=examples * len(config.steps) if task.source.is_trajectory else 0,
        ),
    ]


def train_probes(task: ProbingTask, context: RunContext, on_test: OnTest | None = None) -> ProbingResults:
    """Takes the images through the network, trains all probes and controls, and scores them.

    Args:
        on_test: takes the network's probes and the test images, a batch at a time.
    """
    from diffprobe.probes.study.two_pass import ExecutionConfig, run_probing

    inputs, features = task.inputs, task.inputs.features
    execution = ExecutionConfig(
        batch_size=features.batch_size,
        dtype=features.dtype,
        stores=task.stores,
        one_pass=features.store == "none",
        images_per_shard=features.images_per_shard,
        example_count=inputs.settings.report.examples,
        make_trainer=context.trainer,
        log=context.log,
        on_test=on_test,
    )
    return run_probing(inputs.backbone, task.source, inputs.labeler, task.probing_config, execution)


@dataclass(frozen=True)
class LoadedProbes:
    """
    Attributes:
        bank: the probes.
        name: what they are called in tables.
        validation: the run's scores on validation images, by which layers are chosen.
        used: names of the images that they were trained or selected on.
        pictures: what made these images, see `Prompt.image_key`; under another name they are still the same.
    """

    bank: ProbeBank
    name: str
    validation: pd.DataFrame
    used: set[str]
    pictures: set[tuple[str, int]]

    def unseen(self, prompts: list[Prompt]) -> list[Prompt]:
        """The prompts of images that these probes can be tested on. Raises UserError where there are none."""
        unseen = [one for one in prompts if one.name not in self.used and one.image_key not in self.pictures]
        if not unseen:
            raise UserError(
                "the probes of analysis.probes were trained or selected on all of these images; give others, such as "
                "seed=1 or data.prompts=FILE"
            )
        return unseen


def read_probes(folder: str | Path, inputs: Inputs) -> LoadedProbes:
    """The probes in a finished run folder of train.py, for images that the model makes by the settings of this run.

    Raises:
        UserError: the folder is no finished run of this model and trajectory, or the data of that run are gone.
    """
    from diffprobe.activations.sources import Generation
    from diffprobe.probes.bank import load_bank
    from diffprobe.probes.score_table import read_scores, select
    from diffprobe.runs.folder import FINISHED
    from diffprobe.runs.settings import flattened

    folder = Path(folder)
    if not (folder / FINISHED).exists():
        raise UserError(f"analysis.probes={folder}: no finished run of train.py is there")
    made_by, model = inputs.settings_of(folder), inputs.backbone.name
    there, here = flattened(made_by), flattened(inputs.settings)
    for key in SAME_ACTIVATIONS:
        if there[key] != here[key]:
            raise UserError(f"analysis.probes={folder}: {key} is {there[key]} there, {here[key]} here; give the same")
    scores = select(read_scores(folder), control="none")
    kinds = scores[["model", "probe"]].drop_duplicates()
    if len(kinds) != 1:
        raise UserError(f"analysis.probes={folder}: its scores are of {len(kinds)} kinds of probes; give one run")
    ((trained_on, probe),) = kinds.itertuples(index=False)
    if trained_on != model:
        raise UserError(f"analysis.probes={folder}: those are probes of {trained_on}, and this model is {model}")
    tested = set(select(scores, split="test")["image"])
    source = make_source(made_by, lambda line: None)
    used = set(source.names) - tested
    prompts = source.prompts if isinstance(source, Generation) else []
    pictures = {prompt.image_key for prompt in prompts if prompt.name in used}
    return LoadedProbes(load_bank(folder / "probes"), probe, select(scores, split="validation"), used, pictures)


def check_given(folder: str, inputs: Inputs) -> tuple[ProbingTask, LoadedProbes]:
    """Layers, steps and properties are those of the probes of a finished run, images those that they have not seen.

    Raises:
        UserError: as `read_probes`, or controls are asked for.
    """
    from diffprobe.activations.sources import Generation
    from diffprobe.probes.study.study import ProbingConfig

    if inputs.settings.control.names:
        raise UserError("analysis.probes gives trained probes, and controls would have to be trained: control=none")
    backbone, everything, given = inputs.backbone, inputs.source, read_probes(folder, inputs)
    assert isinstance(everything, Generation)  # other trajectories have been refused
    source = Generation(given.unseen(everything.prompts), everything.sampling_steps, everything.half)
    probing_config = ProbingConfig(
        chosen_layers(given.bank.layers, backbone),
        chosen_steps(given.bank.steps, source.timesteps(backbone)),
        properties=list(given.bank.properties),
        controls=[],
        seed=inputs.settings.seed,
    )
    inputs.labeler.check(source.names, list(probing_config.items), backbone.image_size)
    return task_of(inputs, source, probing_config), given


def extract_unseen(task: ProbingTask, context: RunContext) -> tuple[Extraction, dict[str, Tensor], int]:
    """Activations of the images of `check_given`, their label maps by property, and network evaluations."""
    from diffprobe.activations.extraction import extract

    probing_config, source, inputs = task.probing_config, task.source, task.inputs
    context.log(f"running {len(source.names)} images through {len(probing_config.steps)} steps")
    extraction = extract(
        inputs.backbone,
        source,
        probing_config.recorded,
        probing_config.steps,
        batch_size=inputs.features.batch_size,
        dtype=inputs.features.dtype,
        stores=task.stores,
        images_per_shard=inputs.features.images_per_shard,
        trainer=context.trainer("generate"),
        log=context.log,
    )
    targets = inputs.labeler(extraction.images, source.names, list(probing_config.items))
    return extraction, targets, extraction.computed * source.evaluations(inputs.backbone, probing_config.steps)


def score_probes(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    rows: Sequence[int],
    *,
    model: str,
    probe: str,
) -> pd.DataFrame:
    """Every metric of every probe on the test images `rows`, as `score_bank` scores a bank it has trained."""
    from diffprobe.probes.scoring import score_images
    from diffprobe.probes.study.study import scores_of_blocks

    blocks = score_images(bank, activations, targets, rows, "test", model=model, probe=probe)
    own = {name: targets[name][list(rows)] for name in bank.properties}
    return scores_of_blocks(blocks, own, [activations.names[row] for row in rows], bank.properties)
