"""What figures show, in a sentence, by the beginning of their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CAPTIONS = {
    "scores_over_steps": "Scores on test images over denoising steps with 95 % intervals, of the best layer (chosen on "
    "validation images), the papers' layer and the controls. The vertical line is where the best layer has come near "
    "its last score.",
    "layers_": "Scores on test images of every layer and step.",
    "learning_curves": "Scores on test images over the number of images that probes were trained on.",
    "example_": "One test image as it is denoised, and what the best layer's probes see in its activations.",
    "separation": "How far apart the classes are at every layer and step.",
    "distributions": "The distances of the four sets of pairs of objects.",
    "drift": "How far objects move when their image changes, beside other pairs of objects.",
    "video": "How far objects of a video move from frame to frame, beside other instances.",
    "retrieval": "Objects and those that are nearest to them.",
    "emergence": "Scores over denoising steps of probes and of image models that look at the unfinished picture, with "
    "95 % intervals; vertical lines where each has come near its last score.",
    "intervention_scores": "How well the map of the new image agrees with the target, with 95 % intervals: edited, "
    "edited at random, and not edited.",
    "intervention_examples": "Images, their maps, the maps asked for, and what came of it.",
    "class_over_steps": "How many images the classifier names right after each step, and how sure it is.",
    "class_example": "One image after some of the steps, and the classifier's first five answers; the right one in "
    "colour.",
    "runs_scores": "Scores of several runs with 95 % intervals, each at its chosen layer and last step.",
    "runs_over_steps": "Scores of several runs over denoising steps with 95 % intervals.",
}


def captioned(figures: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Figures with what is known to be in them; one that is not known has its name, in words."""
    return {name: (path, caption_of(name)) for name, path in figures.items()}


def caption_of(name: str) -> str:
    found = next((text for start, text in CAPTIONS.items() if name.startswith(start)), "")
    return found or name.replace("_", " ")
