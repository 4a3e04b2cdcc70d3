"""What a session works with: a model, probes of it, a labeler; from the package, or from a folder of one's own."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from diffprobe.activations.sources import Generation
from diffprobe.activations.store.manifest import describe, folder_name
from diffprobe.analyses.intervention.edits import Covariances, Editing, TokenMoments
from diffprobe.api.models import load
from diffprobe.api.settings import typed
from diffprobe.backbone.finite import naming_images
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import Prompt, load_prompts, scene_prompts
from diffprobe.errors import UserError
from diffprobe.labels.pocket import PocketLabeler
from diffprobe.parts import class_name, make
from diffprobe.pocket.networks import IMAGE_SIZE
from diffprobe.probes.bank import ProbeBank, ProbeConfig, load_bank, save_bank
from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing
from diffprobe.runs.folder import FINISHED, read_overrides, read_settings
from diffprobe.terminal import script_command

EDITED_LAYERS = ("down_blocks.0.resnets.?", "up_blocks.3.resnets.?")  # what pocket follows best, see intervention.md
EDITED_STEP_FRACTION = 1 / 3  # of the trajectory, its beginning: the papers' first five of 15 steps
TRAINING_SCENES = 80
COVARIANCE_IMAGES = 16
SAMPLING_STEPS = 15
BUILT_IN = "pocket"
MODEL = "model_index.json"  # what a pipeline's folder has
NEW = "a new image"  # what labelers are told
RUNS = Path("runs")  # where runs are looked for
LISTED = 40  # runs, the newest


@dataclass(frozen=True)
class Equipment:
    """A model, probes of it, a labeler, and how images are edited.

    Attributes:
        bank: probes of a mask, by which images are edited, and of whatever else shall be shown.
        covariances: of the edited layers' activations, where the editing needs them.
        sampling_steps: of every trajectory.
        source: what `load_equipment` made it of.
        command: what makes the probes again, or made them.
        folder: where the run of that command is.
    """

    backbone: Backbone
    labeler: Any
    bank: ProbeBank
    editing: Editing
    covariances: Covariances
    sampling_steps: int
    source: str = BUILT_IN
    command: str = ""
    folder: Path = Path()

    def __deepcopy__(self, memo: dict[int, Any]) -> Equipment:
        """Itself: nothing of it changes, and the visitors of a page, each given a copy, share the networks."""
        return self

    @property
    def mask(self) -> str:
        """The property of the bank that images are edited by: its first mask."""
        return self.editing.property


def known_runs(folder: Path = RUNS) -> list[str]:
    """Finished runs with probes below a folder, the newest first."""
    found = [path.parent for depth in ("*/*", "*/*/*") for path in folder.glob(f"{depth}/{FINISHED}")]
    probed = [place for place in found if any((place / "probes").glob("*.safetensors"))]
    newest = sorted(probed, key=lambda place: (place / FINISHED).stat().st_mtime, reverse=True)
    return [str(place) for place in newest[:LISTED]]


def load_equipment(choice: str, stores: Path, log: Callable[[str], None]) -> Equipment:
    """The built-in model, or that of a folder: of a finished run of train.py, or of a pipeline.

    Raises:
        UserError: the folder is neither, or as `load_from_run` and `load_model`.
    """
    place = Path(choice.strip()).expanduser()
    if choice.strip() in ("", BUILT_IN):
        return load_model(BUILT_IN, stores, log)
    if not place.is_dir():
        raise UserError(f"{place}: there is no such folder; give that of a finished run of train.py or of a pipeline")
    if (place / FINISHED).exists():
        return load_from_run(place)
    if not (place / MODEL).exists():
        raise UserError(
            f"{place} holds neither a finished run of train.py (there is no {FINISHED}) nor a pipeline (no {MODEL})"
        )
    return load_model(str(place), stores, log)


def load_model(name: str, stores: Path, log: Callable[[str], None]) -> Equipment:
    """A model with ridge probes, trained on scenes of the built-in world the first time and kept in `stores`.

    Args:
        name: 'pocket', or the folder of a pipeline.

    Raises:
        UserError: the folder does not load, or its images are none that the built-in labeler knows.
    """
    model, labeler, prompts = load(name), PocketLabeler(), scene_prompts(TRAINING_SCENES)
    sizes = [f"data.count={TRAINING_SCENES}", f"steps.sampling={SAMPLING_STEPS}"]
    overrides = [*model.overrides, "probe=ridge", "control=none", *sizes]
    if model.backbone.image_size != IMAGE_SIZE:
        advice = shlex.join([*script_command("train"), *model.overrides, "labeler=image_models", "probe=ridge"])
        raise UserError(
            f"{name}: its pictures have {model.backbone.image_size} pixels, and the built-in labels are of those of "
            f"{IMAGE_SIZE}; train probes with labels of your own, such as {advice}, and give the folder of that run"
        )
    bank = trained_bank(model.backbone, labeler, prompts, stores, log, SAMPLING_STEPS)
    equipment = build_equipment(model.backbone, labeler, bank, prompts, SAMPLING_STEPS)
    folder = RUNS / "app" / model.name
    where = typed({"layers.select": bank.layers, "hydra.run.dir": folder})
    command = shlex.join([*script_command("train"), *overrides, *where])
    return replace(equipment, source=name, command=command, folder=folder)


def load_from_run(folder: Path) -> Equipment:
    """Model, labeler and probes of a finished run of train.py.

    Raises:
        UserError: the folder is no such run of a generation, its labeler knows no new images, or it has no probes of
            saliency at the steps that are edited.
    """
    if not (folder / FINISHED).exists():
        raise UserError(f"{folder}: no finished run of train.py is there; give such a run's folder")
    settings = read_settings(folder)
    trajectory = class_name(settings.trajectory)
    if trajectory != "generation":
        raise UserError(f"{folder}: made with trajectory={trajectory}; give a run of generated images")
    chosen = settings.labeler
    if chosen is not None and "cache" in chosen:
        chosen.cache = None  # a folder that the run's maker chose: nothing is written there
    labeler = make(chosen)
    backbone = make(settings.model, device="auto")
    prompts = load_prompts(settings.data.prompts, seed=settings.seed)
    equipment = build_equipment(backbone, labeler, load_bank(folder / "probes"), prompts, settings.steps.sampling)
    labeler.check([NEW], [equipment.mask], backbone.image_size)
    again = [*read_overrides(folder), *typed({"hydra.run.dir": folder})]
    command = shlex.join([*script_command("train"), *again])
    return replace(equipment, source=str(folder), command=command, folder=folder)


def build_equipment(
    backbone: Backbone, labeler: Any, bank: ProbeBank, prompts: Sequence[Prompt], sampling_steps: int
) -> Equipment:
    """Chooses the probes that edit, and measures how the activations vary that they read, in images of the prompts.

    Raises:
        UserError: there are no probes of a mask at the first third of the steps.
    """
    layers = [name for name in bank.layers if any(fnmatch(name, glob) for glob in EDITED_LAYERS)] or bank.layers
    steps = [step for step in bank.steps if step < sampling_steps * EDITED_STEP_FRACTION]
    masks = [name for name, item in bank.properties.items() if item.binary]
    if not masks or not steps:
        raise UserError(
            f"the probes are of {', '.join(bank.properties)} at steps {bank.steps}, and images are edited by those of "
            f"a mask at the first third of {sampling_steps} steps; train some there"
        )
    editing = Editing(masks[0], layers, steps, method="pattern" if bank.head == "linear" else "gradient")
    moments = TokenMoments()
    if editing.method == "pattern":
        few = prompts[:COVARIANCE_IMAGES]
        texts, seeds = [prompt.text for prompt in few], [prompt.seed for prompt in few]
        with naming_images([prompt.name for prompt in few]):
            for step in generate(backbone, texts, seeds, steps=sampling_steps, layers=layers):
                if step.index in steps:
                    moments.add(step.index, step.activations)
                if step.index == max(steps):
                    break
    return Equipment(backbone, labeler, bank, editing, moments.covariances(), sampling_steps)


def trained_bank(
    backbone: Backbone,
    labeler: Any,
    prompts: Sequence[Prompt],
    stores: Path,
    log: Callable[[str], None],
    sampling_steps: int,
) -> ProbeBank:
    """Ridge probes of all properties on the layers to be edited (those of self-attention where the network has none of
    these), at every step, of images of these prompts.

    They are kept in `stores/app/<fingerprint>`, by all that determines them: networks, prompts, layers, labeler, probe.
    """
    source = Generation(prompts, sampling_steps)
    known = catalogue(backbone.denoiser)
    edited = [layer for layer in known if any(fnmatch(layer.name, glob) for glob in EDITED_LAYERS)]
    layers = edited or select_layers(known, "self_attention")
    probe_config = ProbeConfig("ridge", "ridge")
    probing_config = ProbingConfig(layers, range(sampling_steps), controls=[], probe_config=probe_config)
    manifest = describe(backbone, source, layers, probing_config.steps, ExecutionConfig.dtype, 1, identified=True)
    provenance = [
        manifest.fingerprint,
        [labeler.fingerprint(name) for name in probing_config.items],
        asdict(probe_config),
    ]
    fingerprint = hashlib.sha256(json.dumps(provenance).encode()).hexdigest()
    folder = stores / "app" / folder_name(backbone.name, fingerprint)
    if all((folder / f"{name}.safetensors").exists() for name in probing_config.items):
        try:
            return load_bank(folder, fingerprint)
        except UserError as error:
            log(f"{error}. They are trained again")
    else:
        log(f"the first start trains probes, which are kept in {folder}; a minute or two")
    bank = run_probing(backbone, source, labeler, probing_config, replace(ExecutionConfig(), log=log)).bank
    save_bank(bank, folder, fingerprint)
    return load_bank(folder, fingerprint)
