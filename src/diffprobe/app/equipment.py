"""What the page works with: a model, probes of it, a labeler, and how images are edited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.analyses.intervention.edits import Covariances, Editing, TokenMoments
from diffprobe.errors import UserError
from diffprobe.parts import class_name, make

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.probes.bank import ProbeBank

EDITED_LAYERS = ("down_blocks.0.resnets.?", "up_blocks.3.resnets.?")  # what pocket follows best, see intervention.md
EDITED_STEP_FRACTION = 1 / 3  # of the trajectory, its beginning: the papers' first five of 15 steps
TRAINING_SCENES = 80
COVARIANCE_IMAGES = 16
SAMPLING_STEPS = 15
PROPERTIES = ("saliency", "depth", "shading")
Log = Callable[[str], None]


@dataclass(frozen=True)
class Equipment:
    """All that a session needs.

    Attributes:
        bank: probes of saliency, by which images are edited, and of whatever else shall be shown.
        covariances: of the edited layers' activations, where the editing needs them.
        sampling_steps: of every trajectory.
    """

    backbone: Backbone
    labeler: Any
    bank: ProbeBank
    editing: Editing
    covariances: Covariances
    sampling_steps: int


def load_built_in(stores: Path, log: Log) -> Equipment:
    """The built-in model with ridge probes, trained on scenes of its grammar the first time and kept in `stores`."""
    from diffprobe.backbone.load import load_backbone
    from diffprobe.data.prompts import scene_prompts
    from diffprobe.labels.pocket import PocketLabeler

    backbone = load_backbone("pocket", guidance=2.5)
    labeler, prompts = PocketLabeler(), scene_prompts(TRAINING_SCENES)
    bank = trained_bank(backbone, labeler, prompts, stores, log)
    return build_equipment(backbone, labeler, bank, prompts, SAMPLING_STEPS)


def load_from_run(folder: Path) -> Equipment:
    """Model, labeler and probes of a finished run of train.py.

    Raises:
        UserError: the folder is no such run of a generation, its labeler knows no new images, or it has no probes of
            saliency at the steps that are edited.
    """

    from diffprobe.data.prompts import load_prompts
    from diffprobe.probes.bank import load_bank
    from diffprobe.runs.folder import FINISHED, read_settings

    if not (folder / FINISHED).exists():
        raise UserError(f"--probes {folder}: no finished run of train.py is there; give such a run's folder")
    settings = read_settings(folder)
    if class_name(settings.trajectory) != "generation":
        raise UserError(
            f"--probes {folder}: made with trajectory={class_name(settings.trajectory)}; give one of generation"
        )
    chosen = settings.labeler
    if chosen is not None and "cache" in chosen:
        chosen.cache = None  # a folder that the run's maker chose: nothing is written there
    labeler = make(chosen)
    backbone = make(settings.model, device="auto")
    labeler.check(["a new image"], ["saliency"], backbone.image_size)
    prompts = load_prompts(settings.data.prompts, seed=settings.seed)
    return build_equipment(backbone, labeler, load_bank(folder / "probes"), prompts, settings.steps.sampling)


def build_equipment(
    backbone: Backbone, labeler: Any, bank: ProbeBank, prompts: Sequence[Prompt], sampling_steps: int
) -> Equipment:
    """Puts the parts together: says which probes edit, and how the activations vary that they read.

    Raises:
        UserError: there are no probes of saliency at the first third of the steps.
    """
    layers = [name for name in bank.layers if any(fnmatch(name, glob) for glob in EDITED_LAYERS)] or bank.layers
    steps = [step for step in bank.steps if step < sampling_steps * EDITED_STEP_FRACTION]
    if "saliency" not in bank.properties or not steps:
        raise UserError(
            f"the probes are of {', '.join(bank.properties)} at steps {bank.steps}, and images are edited by those of "
            f"saliency at the first third of {sampling_steps} steps; train some there"
        )
    editing = Editing("saliency", layers, steps, method="pattern" if bank.head == "linear" else "gradient")
    covariances = _covariances(backbone, prompts[:COVARIANCE_IMAGES], editing, sampling_steps)
    return Equipment(backbone, labeler, bank, editing, covariances, sampling_steps)


def trained_bank(
    backbone: Backbone,
    labeler: Any,
    prompts: Sequence[Prompt],
    stores: Path,
    log: Log,
    sampling_steps: int = SAMPLING_STEPS,
) -> ProbeBank:
    """Ridge probes of all properties on the layers to be edited, at every step, of images of these prompts.

    They are kept in `stores/app/<fingerprint>`, by all that determines them: networks, prompts, layers, labeler,
    recipe.
    """
    from diffprobe.activations.sources import Generation
    from diffprobe.activations.store.manifest import describe, folder_name
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.probes.bank import ProbeConfig, load_bank, save_bank
    from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing

    source = Generation(prompts, sampling_steps)
    layers = select_layers(catalogue(backbone.denoiser), EDITED_LAYERS)
    probe_config = ProbeConfig("ridge", "ridge")
    probing_config = ProbingConfig(
        layers, range(sampling_steps), properties=list(PROPERTIES), controls=[], probe_config=probe_config
    )
    manifest = describe(backbone, source, layers, probing_config.steps, ExecutionConfig.dtype, 1, identified=True)
    provenance = [manifest.fingerprint, [labeler.fingerprint(name) for name in PROPERTIES], asdict(probe_config)]
    fingerprint = hashlib.sha256(json.dumps(provenance).encode()).hexdigest()
    folder = stores / "app" / folder_name(backbone.name, fingerprint)
    if all((folder / f"{name}.safetensors").exists() for name in PROPERTIES):
        try:
            return load_bank(folder, fingerprint)
        except UserError as error:
            log(f"{error}. They are trained again")
    else:
        log(f"the first start trains probes, which are kept in {folder}; a minute or two")
    bank = run_probing(backbone, source, labeler, probing_config, replace(ExecutionConfig(), log=log)).bank
    save_bank(bank, folder, fingerprint)
    return load_bank(folder, fingerprint)


def _covariances(backbone: Backbone, prompts: Sequence[Prompt], editing: Editing, sampling_steps: int) -> Covariances:
    """Of the activations to be edited, in the images of these prompts. Other methods than 'pattern' need none."""
    from diffprobe.backbone.finite import naming_images
    from diffprobe.backbone.trajectory import generate

    if editing.method != "pattern":
        return {}
    moments = TokenMoments()
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
    with naming_images([prompt.name for prompt in prompts]):
        for step in generate(backbone, texts, seeds, steps=sampling_steps, layers=editing.layers):
            if step.index in editing.steps:
                moments.add(step.index, step.activations)
            if step.index == max(editing.steps):
                break
    return moments.covariances()
