"""What a classifier sees in the decoded image step by step, and how sure it is of real photos.

Real photos to hold generated images against: rendered scenes of the pocket world, or a folder of the user's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import at_step, naming_images
from diffprobe.backbone.trajectory import generate
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.labels.classifiers import CONFIDENCE, PROPERTY, STABLE, TOP_1, TOP_5, class_in_text
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.summaries import EmergenceStep
from diffprobe.statistics.differences import median_step
from diffprobe.statistics.intervals import Stratified, stratified_difference

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.analyses.inputs import Inputs
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers import Classifier

AUTO = "auto"
TOP = 5
LAYER = "decoded image"  # of the scores
PHOTOGRAPHS = "real"  # the `control` of rows of real photos


@dataclass(frozen=True)
class Photos:
    """Real images by name, the class of each, how to read them (places -> [images, 3, size, size] in [0, 1]), and what
    they are called in sentences."""

    names: list[str]
    class_indices: list[int]
    read: Callable[[Sequence[int]], Tensor]
    description: str = "real photos"


def load_photos(
    photos: str | None, patterns: Mapping[str, Any], classes: set[int], count: int, inputs: Inputs
) -> Photos | None:
    """The photos that `analysis.photos` means, of the `classes` that were asked for; None for none.

    Args:
        photos: 'auto', a folder or a list of images, or None.
        patterns: of `checked_patterns`, for the captions of photos.
        count: how many scenes to render.

    Raises:
        UserError: they cannot be read, or none is of one of these classes.
    """
    from diffprobe.labels.pocket import PocketClassifier

    if photos is None or (photos == AUTO and not isinstance(inputs.classifier, PocketClassifier)):
        return None
    if photos == AUTO:
        return _rendered_scenes(classes, count, inputs)
    return _photos_of_folder(Path(photos), patterns, classes, inputs)


def _rendered_scenes(classes: set[int], count: int, inputs: Inputs) -> Photos:
    """Scenes of one object that no network was trained on; their pictures are what the model learned to make."""
    from diffprobe.pocket.render import render
    from diffprobe.pocket.scenes import sample_scene

    size, scenes, right = inputs.backbone.image_size, [], []
    for index in itertools.count():
        if len(scenes) == count:
            break
        scene = sample_scene(index, "test", 1)
        at = class_in_text(scene.caption, inputs.classifier.classes, {})
        if at in classes:
            scenes.append(scene)
            right.append(at)
    names = [f"scene_{at}" for at in range(count)]
    return Photos(names, right, lambda rows: render([scenes[row] for row in rows], size).images, "rendered scenes")


def _photos_of_folder(place: Path, patterns: Mapping[str, Any], classes: set[int], inputs: Inputs) -> Photos:
    """A photo's class is that of its caption, or of the name of its folder."""
    from diffprobe.data.images import load_images, read_image, split_readable

    if not place.exists():
        raise UserError(f"analysis.photos={place}: there is no such folder or list of images; null goes without")
    data, size = inputs.settings.data, inputs.backbone.image_size
    files, bad = split_readable(load_images(place, log=inputs.log), data.get("on_error", "error"))
    for image in bad:
        inputs.log(f"left out {image.name}: {image.reason}")
    texts = [file.caption or file.path.parent.name.replace("_", " ") for file in files]
    named = [class_in_text(text, inputs.classifier.classes, patterns) for text in texts]
    of_classes = [(file, at) for file, at in zip(files, named, strict=True) if at in classes]
    if not of_classes:
        raise UserError(
            f"analysis.photos={place}: none of its {len(files)} images is of a class that the prompts name; a photo's "
            f"class is its caption, or the name of its folder, which for the first is {texts[0]!r}"
        )
    if len(of_classes) < len(files):
        left_out = len(files) - len(of_classes)
        inputs.log(f"left out {left_out} of {len(files)} photos, which are of no class that the prompts name")
    fit = data.get("fit", "stretch")
    return Photos(
        [file.name for file, _ in of_classes],
        [at for _, at in of_classes if at is not None],
        lambda rows: torch.stack([read_image(of_classes[row][0], size, fit) for row in rows]),
    )


@dataclass(frozen=True)
class ClassifierOutputs:
    """What a classifier said.

    Attributes:
        names: of the images.
        class_indices: the place of each image's class in the classifier's `classes`, [images].
        probabilities: [images, steps, classes].
        timesteps: the scheduler's t by step; {NO_STEP: None} of real photos.
        example_images: the first images after every step, [shown, steps, 3, H, W] in [0, 1].
    """

    names: list[str]
    class_indices: np.ndarray
    probabilities: np.ndarray
    timesteps: dict[int, float | None]
    example_images: Tensor

    @property
    def confidence(self) -> np.ndarray:
        """Of the right class, [images, steps]."""
        return np.take_along_axis(self.probabilities, self.class_indices[:, None, None], 2)[..., 0]

    @property
    def rank(self) -> np.ndarray:
        """Of the right class, from 1; a class that is as probable counts as before it. [images, steps]."""
        return (self.probabilities >= self.confidence[..., None]).sum(2)

    @property
    def stable(self) -> np.ndarray:
        """Whether the right class is the first at this step and at every later one, [images, steps]."""
        return np.logical_and.accumulate((self.rank == 1)[:, ::-1], 1)[:, ::-1]


def classify_steps(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    right: Sequence[int],
    classifier: Classifier,
    *,
    sampling_steps: int,
    steps: Sequence[int],
    batch_size: int,
    shown: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> ClassifierOutputs:
    """Makes an image of every prompt and shows the classifier what the latents decode to after each of `steps`.

    Args:
        advance: takes how many images are done.
    """
    timesteps, probabilities, films = {}, [], []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        texts, seeds = [prompt.text for prompt in batch], [prompt.seed for prompt in batch]
        answers, frames = [], []
        with naming_images([prompt.name for prompt in batch]):
            for step in generate(backbone, texts, seeds, steps=sampling_steps):
                if step.index not in steps:
                    continue
                with torch.no_grad(), naming_images((), at_step(step.index, step.timestep)):
                    images = decode_latents(backbone, step.latents).cpu()
                timesteps[step.index] = step.timestep
                answers.append(classifier(images))
                frames.append(images[: max(0, shown - start)])
        probabilities.append(torch.stack(answers, 1))
        films.append(torch.stack(frames, 1))
        advance(start + len(batch))
    whole = torch.cat(probabilities).double().numpy()
    return ClassifierOutputs([prompt.name for prompt in prompts], np.array(right), whole, timesteps, torch.cat(films))


def classify_photos(photos: Photos, classifier: Classifier, batch_size: int) -> ClassifierOutputs:
    """Shows the classifier real photos."""
    batches = torch.arange(len(photos.names)).split(batch_size)
    probabilities = torch.cat([classifier(photos.read(rows.tolist())) for rows in batches])
    whole = probabilities[:, None].double().numpy()
    return ClassifierOutputs(
        photos.names, np.array(photos.class_indices), whole, {NO_STEP: None}, torch.zeros(0, 1, 3, 1, 1)
    )


def class_scores(outputs: ClassifierOutputs, model: str, classifier: str, control: str = "none") -> list[ScoreBlock]:
    """Of every image: confidence in the right class, whether it is the first and among the first five answers and, of
    generated images, whether it is the first from this step on."""
    metrics = {CONFIDENCE: outputs.confidence, TOP_1: outputs.rank == 1, TOP_5: outputs.rank <= TOP}
    if control == "none":
        metrics[STABLE] = outputs.stable
    moments, what = list(outputs.timesteps.items()), (model, LAYER, PROPERTY, classifier, control, "test")
    return [
        ScoreBlock(*what, metric, moments, outputs.names, values.T.astype(float)) for metric, values in metrics.items()
    ]


def top_answers(outputs: ClassifierOutputs, model: str, classifier: Classifier) -> pd.DataFrame:
    """top.csv: the five most probable classes of every image at every step, `rank` 1 the most probable; `right` is the
    class that was asked for. Real photos have no step."""
    order = np.argsort(-outputs.probabilities, axis=2, kind="stable")[..., :TOP]
    rows = [
        {
            **{"model": model, "classifier": classifier.name, "image": name},
            **{"right": classifier.classes[int(outputs.class_indices[row])]},
            **{"step": None if step == NO_STEP else step, "timestep": timestep, "rank": rank},
            **{"label": classifier.classes[int(at)], "confidence": float(outputs.probabilities[row, column, at])},
        }
        for row, name in enumerate(outputs.names)
        for column, (step, timestep) in enumerate(outputs.timesteps.items())
        for rank, at in enumerate(order[row, column], 1)
    ]
    return pd.DataFrame(rows).astype({"step": "Int64", "timestep": "float64"})


def stable_steps(
    outputs: ClassifierOutputs, prompts: Sequence[Prompt], model: str, classifier: Classifier
) -> pd.DataFrame:
    """stable.csv: the first step from which on the answer is right at every step, image by image; missing where the
    last answer is wrong."""
    steps = list(outputs.timesteps)
    rows = [
        (model, classifier.name, prompt.name, prompt.text, classifier.classes[int(right)])
        for prompt, right in zip(prompts, outputs.class_indices, strict=True)
    ]
    first = [steps[int(row.argmax())] if row.any() else None for row in outputs.stable]
    table = pd.DataFrame(rows, columns=["model", "classifier", "image", "prompt", "right"])
    return table.assign(step=pd.array(first, "Int64"))


def half_stable(outputs: ClassifierOutputs) -> EmergenceStep:
    """The median over images of the first step of the stable right answer, with its interval (`median_step`).

    Images that are wrong at the last step count as later than all. An end of the interval that lies beyond the last
    step is None, and so is the step where less than half of the images are right in the end. Where the images are too
    few for an interval, both of its ends are None.
    """
    steps, stable = list(outputs.timesteps), outputs.stable
    median = median_step(np.where(stable.any(1), stable.argmax(1), len(steps)))
    places = (median.first, median.low, median.high)
    step, low, high = (None if at is None or at == len(steps) else steps[at] for at in places)
    return EmergenceStep(step, low, high, len(stable))


def against_photos(outputs: ClassifierOutputs, photos: ClassifierOutputs) -> Stratified:
    """Confidence in generated images at the last step against that in real photos, class by class.

    The classes that both have count the same, whatever the number of their images: `stratified_difference`.
    """
    generated, real = outputs.confidence[:, -1], photos.confidence[:, -1]
    return stratified_difference(generated, outputs.class_indices, real, photos.class_indices)
