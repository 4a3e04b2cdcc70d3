"""From which step on a classifier sees, in the decoded image, what the prompt asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.errors import UserError
from diffprobe.parts import class_name
from diffprobe.ranges import Folder

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.classification.classes import ClassifierOutputs, Photos
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.data.prompts import Prompt
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class ClassificationTask:
    """Validated inputs of the run.

    Attributes:
        prompts: those that name a class, of `given` prompts.
        right: the class that each names.
        steps: those that are classified.
    """

    inputs: Inputs
    prompts: list[Prompt]
    right: list[int]
    given: int
    photos: Photos | None
    steps: list[int]

    @property
    def evaluations(self) -> int:
        return len(self.prompts) * self.inputs.settings.steps.sampling


@dataclass(frozen=True)
class Classification:
    """From which step on a classifier sees, in the decoded image, what the prompt asks for.

    Attributes:
        classes: regular expression -> class of the prompts that it is found in; other prompts name their class.
        photos: real photos to hold the images against: 'auto', a folder, a list of them, or None.
    """

    classes: dict[str, str] | None = None
    photos: Folder | None = "auto"
    distributed: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> ClassificationTask:
        from diffprobe.analyses.classification.classes import load_photos
        from diffprobe.data.prompts import load_prompts
        from diffprobe.labels.classifiers import checked_patterns, class_in_text

        settings, data = inputs.settings, inputs.settings.data
        if class_name(settings.trajectory) != "generation" or "images" in data:
            raise UserError(
                "analysis=classification makes its own images from prompts (data=prompts trajectory=generation); real "
                "photos to hold them against are analysis.photos=FOLDER"
            )
        classifier = inputs.classifier
        patterns = checked_patterns(self.classes or {}, classifier.classes, classifier.name)
        given = load_prompts(data.prompts, data.count, settings.seed, inputs.log)
        named = [(prompt, class_in_text(prompt.text, classifier.classes, patterns)) for prompt in given]
        prompts, right = [one for one, at in named if at is not None], [at for _, at in named if at is not None]
        if not prompts:
            raise UserError(
                f"none of the {len(given)} prompts names exactly one class that {classifier.name} knows, such as "
                f"{given[0].text!r}; say what they show: 'analysis.classes={{WORDS: CLASS}}'"
            )
        inputs.tell_of_texts(prompts)
        classifier.check(inputs.backbone.image_size)
        photos = load_photos(self.photos, patterns, set(right), len(prompts), inputs)
        steps = inputs.steps(range(settings.steps.sampling))
        return ClassificationTask(inputs, prompts, right, len(given), photos, steps)

    def plan(self, task: ClassificationTask) -> Plan:
        backbone, left_out = task.inputs.backbone, task.given - len(task.prompts)
        photos = f"{len(task.photos.names)} {task.photos.description}" if task.photos else "no real photos"
        cost = (
            f"{backbone.name} on {backbone.device}: {len(task.prompts)} images of {len(set(task.right))} classes, "
            f"{len(task.steps)} of {task.inputs.settings.steps.sampling} steps, {photos}, classified by "
            f"{task.inputs.classifier.name}; {task.evaluations} network evaluations"
        )
        line = f"left out {left_out} of {task.given} prompts, which name no class or several"
        return Plan([line, cost] if left_out else [cost])

    def run(self, task: ClassificationTask, context: RunContext) -> tuple[ClassifierOutputs, ClassifierOutputs | None]:
        """What the classifier sees in the generated images, and in the photos."""
        from diffprobe.analyses.classification.classes import classify_photos, classify_steps

        settings, classifier = task.inputs.settings, task.inputs.classifier
        with context.progress("images", len(task.prompts)) as advance:
            generated = classify_steps(
                task.inputs.backbone,
                task.prompts,
                task.right,
                classifier,
                sampling_steps=settings.steps.sampling,
                steps=task.steps,
                batch_size=settings.features.batch_size,
                shown=settings.report.examples,
                advance=advance,
            )
        if task.photos is None:
            return generated, None
        return generated, classify_photos(task.photos, classifier, settings.features.batch_size)

    def report(
        self, task: ClassificationTask, result: tuple[ClassifierOutputs, ClassifierOutputs | None], context: RunContext
    ) -> Report:
        from diffprobe.analyses.classification.report import report

        real_images = task.photos.description if task.photos else ""
        made = report(task.inputs.backbone.name, task.inputs.classifier, task.prompts, *result, real_images)
        return replace(made, evaluations=task.evaluations)
