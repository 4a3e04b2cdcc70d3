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
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers import Classifier
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class ClassificationTask:
    """Validated inputs of the run.

    Attributes:
        prompts: those that name a class, of `given` prompts.
        right: the class that each names.
        steps: those that are classified, of `sampling_steps`.
        examples: how many images are shown.
    """

    backbone: Backbone
    classifier: Classifier
    prompts: list[Prompt]
    right: list[int]
    given: int
    photos: Photos | None
    steps: list[int]
    sampling_steps: int
    batch_size: int
    examples: int

    @property
    def evaluations(self) -> int:
        return len(self.prompts) * self.sampling_steps


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
        size = inputs.backbone.image_size
        classifier.check(size)
        sampling = settings.steps.sampling
        return ClassificationTask(
            inputs.backbone,
            classifier,
            prompts,
            right,
            len(given),
            load_photos(self.photos, patterns, data, classifier, set(right), len(prompts), size, inputs.log),
            inputs.steps(range(sampling)),
            sampling,
            settings.features.batch_size,
            settings.report.examples,
        )

    def plan(self, task: ClassificationTask) -> Plan:
        left_out = task.given - len(task.prompts)
        photos = f"{len(task.photos.names)} {task.photos.description}" if task.photos else "no real photos"
        cost = (
            f"{task.backbone.name} on {task.backbone.device}: {len(task.prompts)} images of {len(set(task.right))} "
            f"classes, {len(task.steps)} of {task.sampling_steps} steps, {photos}, classified by "
            f"{task.classifier.name}; {task.evaluations} network evaluations"
        )
        line = f"left out {left_out} of {task.given} prompts, which name no class or several"
        return Plan([line, cost] if left_out else [cost])

    def run(self, task: ClassificationTask, context: RunContext) -> tuple[ClassifierOutputs, ClassifierOutputs | None]:
        """What the classifier sees in the generated images, and in the photos."""
        from diffprobe.analyses.classification.classes import classify_photos, classify_steps

        with context.progress("images", len(task.prompts)) as advance:
            generated = classify_steps(
                task.backbone,
                task.prompts,
                task.right,
                task.classifier,
                sampling_steps=task.sampling_steps,
                steps=task.steps,
                batch_size=task.batch_size,
                shown=task.examples,
                log=lambda done, total: advance(done),
            )
        photos = task.photos
        if photos is None:
            return generated, None
        return generated, classify_photos(
            photos.names, photos.batches(task.batch_size), photos.class_indices, task.classifier
        )

    def report(
        self, task: ClassificationTask, result: tuple[ClassifierOutputs, ClassifierOutputs | None], context: RunContext
    ) -> Report:
        from diffprobe.analyses.classification.report import report

        real_images = task.photos.description if task.photos else ""
        found = report(task.backbone.name, task.classifier, task.prompts, task.steps, *result, real_images)
        return replace(found, evaluations=task.evaluations)
