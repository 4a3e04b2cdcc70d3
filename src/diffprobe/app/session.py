"""What one does on the page, without the page: generate an image, say where its object shall be, denoise again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffprobe.activations.sources import Generation
from diffprobe.activations.store.manifest import describe, folder_name
from diffprobe.analyses.intervention.edits import Covariances, Editing, TokenMoments, final_images, replacements
from diffprobe.analyses.intervention.target_maps import Move, move
from diffprobe.backbone.finite import NotFinite, naming_images
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import LARGEST_SEED, Prompt, load_prompts, scene_prompts
from diffprobe.errors import UserError
from diffprobe.labels.pocket import PocketLabeler
from diffprobe.parts import class_name, make
from diffprobe.probes.bank import ProbeBank, ProbeConfig, load_bank, save_bank
from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing
from diffprobe.properties.binary import dice
from diffprobe.runs.folder import FINISHED, read_settings

EDITED_LAYERS = ("down_blocks.0.resnets.?", "up_blocks.3.resnets.?")  # what pocket follows best, see intervention.md
EDITED_STEP_FRACTION = 1 / 3  # of the trajectory, its beginning: the papers' first five of 15 steps
TRAINING_SCENES = 80
COVARIANCE_IMAGES = 16
SAMPLING_STEPS = 15
SMALLEST_SHARE = 0.005  # of the picture, that a mask must cover: half of pocket's smallest objects


@dataclass(frozen=True)
class Equipment:
    """A model, probes of it, a labeler, and how images are edited.

    Attributes:
        bank: probes of a mask, by which images are edited, and of whatever else shall be shown.
        covariances: of the edited layers' activations, where the editing needs them.
        sampling_steps: of every trajectory.
    """

    backbone: Backbone
    labeler: Any
    bank: ProbeBank
    editing: Editing
    covariances: Covariances
    sampling_steps: int

    @property
    def mask(self) -> str:
        """The property of the bank that images are edited by: its first mask."""
        return self.editing.property


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """One image with its trajectory, and what the probes predict on the way.

    Attributes:
        images: decoded after every step, [steps, 3, H, W] in [0, 1].
        steps: which steps, from 0, the probes are of.
        maps: {property: {layer: [probed steps, h, w]}}: probability of foreground, and quantities in label units.
        label: the labeler's mask of the final image, [H, W] in {0, 1}.
    """

    prompt: str
    seed: int
    images: Tensor
    steps: list[int]
    maps: dict[str, dict[str, Tensor]]
    label: Tensor


@dataclass(frozen=True, eq=False)
class EditedImage:
    """The image [3, H, W] that was denoised towards a target mask, and its label [H, W].

    `dice` is that label's overlap with the target, `dice_before` the original label's; NaN where it is not defined.
    """

    image: Tensor
    label: Tensor
    dice: float
    dice_before: float


def load_built_in(stores: Path, log: Callable[[str], None]) -> Equipment:
    """The built-in model with ridge probes, trained on scenes of its grammar the first time and kept in `stores`."""
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
    if not (folder / FINISHED).exists():
        raise UserError(f"--probes {folder}: no finished run of train.py is there; give such a run's folder")
    settings = read_settings(folder)
    trajectory = class_name(settings.trajectory)
    if trajectory != "generation":
        raise UserError(f"--probes {folder}: made with trajectory={trajectory}; give one of generation")
    chosen = settings.labeler
    if chosen is not None and "cache" in chosen:
        chosen.cache = None  # a folder that the run's maker chose: nothing is written there
    labeler = make(chosen)
    backbone = make(settings.model, device="auto")
    prompts = load_prompts(settings.data.prompts, seed=settings.seed)
    equipment = build_equipment(backbone, labeler, load_bank(folder / "probes"), prompts, settings.steps.sampling)
    labeler.check(["a new image"], [equipment.mask], backbone.image_size)
    return equipment


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
    sampling_steps: int = SAMPLING_STEPS,
) -> ProbeBank:
    """Ridge probes of all properties on the layers to be edited, at every step, of images of these prompts.

    They are kept in `stores/app/<fingerprint>`, by all that determines them: networks, prompts, layers, labeler, probe.
    """
    source = Generation(prompts, sampling_steps)
    layers = select_layers(catalogue(backbone.denoiser), EDITED_LAYERS)
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


def make_image(equipment: Equipment, prompt: str, seed: float | None) -> GeneratedImage:
    """The image of a prompt and seed, with the probes' maps.

    Raises:
        UserError: no prompt, or a seed that is none.
    """
    if not prompt or not prompt.strip():
        raise UserError("there is no prompt: write what shall be in the picture, such as 'a red cube on a table'")
    if seed is None or not 0 <= seed <= LARGEST_SEED or int(seed) != seed:
        raise UserError(f"the seed has to be a whole number from 0 to {LARGEST_SEED}")
    bank = equipment.bank
    images, activations = [], {layer: [] for layer in bank.layers}
    steps = generate(
        equipment.backbone, [prompt], [int(seed)], steps=equipment.sampling_steps, layers=bank.layers, decode=True
    )
    with _advice_for_page(prompt):
        for step in steps:
            assert step.images is not None  # by decode=True
            images.append(step.images[0].cpu())
            if step.index in bank.steps:
                for layer, values in step.activations.items():
                    activations[layer].append(values.float().cpu())
    maps = _maps(bank, {layer: torch.stack(values) for layer, values in activations.items()})
    return GeneratedImage(prompt, int(seed), torch.stack(images), bank.steps, maps, _label(equipment, images[-1]))


@torch.no_grad()
def _maps(bank: ProbeBank, activations: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What the probes predict from activations [steps, 1, channels, h, w] by layer."""
    outputs = {layer: bank(layer, values) for layer, values in activations.items()}
    return {
        name: {
            layer: item.in_label_units(item.decode(output[name], statistics), statistics)[:, 0]
            for layer, output in outputs.items()
        }
        for (name, item), statistics in zip(bank.properties.items(), bank.standardisations.values(), strict=True)
    }


def moved_mask(label: Tensor, right: float, down: float) -> Tensor:
    """A mask [H, W] moved by shares of the picture's width and height; what leaves the picture is gone."""
    height, width = label.shape
    return move(label, Move(round(right * width), round(down * height)), mask=True)


def centre(mask: Tensor) -> tuple[float, float]:
    """The centre of the smallest box around a mask's foreground, as shares of its height and width.

    That of the picture if there is no foreground.
    """
    places = mask.nonzero().double()
    if not len(places):
        return 0.5, 0.5
    middle = (places.amin(0) + places.amax(0) + 1) / 2 / torch.tensor(mask.shape)
    return middle[0].item(), middle[1].item()


def drawn_mask(painted: Tensor, height: int, width: int) -> Tensor:
    """What was painted, [any height, any width] in [0, 1], as a mask [height, width]: 1 where half of it is covered."""
    shrunk = interpolate(painted[None, None].float(), (height, width), mode="area")
    return (shrunk[0, 0] >= 0.5).float()


def denoise_towards(equipment: Equipment, generated: GeneratedImage, target: Tensor) -> EditedImage:
    """The same prompt and seed once more, with activations edited so that the probes report the target.

    Args:
        target: [H, W] in {0, 1}.

    Raises:
        UserError: the target is (nearly) empty, or covers the whole picture.
    """
    share = float(target.mean())
    if share < SMALLEST_SHARE:
        raise UserError("the mask is empty, or nearly so: move it back into the picture, or draw a larger one")
    if share == 1:
        raise UserError("the mask covers the whole picture: leave some background")
    with _advice_for_page(generated.prompt):
        backbone, prompts, seeds = equipment.backbone, [generated.prompt], [generated.seed]
        edits = replacements(
            backbone, seeds, target[None], equipment.bank, equipment.editing, covariances=equipment.covariances
        )
        trajectory = generate(backbone, prompts, seeds, steps=equipment.sampling_steps, replace=edits)
        (image,) = final_images(backbone, trajectory)
    label = _label(equipment, image)
    after, before = dice(torch.stack([label, generated.label]), target.expand(2, *target.shape)).tolist()
    return EditedImage(image, label, after, before)


@contextmanager
def _advice_for_page(prompt: str) -> Iterator[None]:
    """Names the image in which something is not finite, with advice that can be followed on the page."""
    try:
        with naming_images([prompt]):
            yield
    except NotFinite as error:
        error.advice += " (settings of the run that --probes names)"
        if error.edited:
            error.advice = "the mask asks for too much; move it less far"
        raise


def _label(equipment: Equipment, image: Tensor) -> Tensor:
    """The labeler's mask [H, W] of an image [3, H, W]."""
    return equipment.labeler(image[None], ["a new image"], [equipment.mask])[equipment.mask][0]
