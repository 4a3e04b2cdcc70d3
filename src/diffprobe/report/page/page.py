"""What report.html shows, as plain data that any door can fill.

What figures show, in a sentence, by the beginning of their names.

What was asked, in plain words, from the composed configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffprobe.tables import Step


@dataclass(frozen=True)
class Film:
    """Pictures over steps, or one picture that stays the same.

    Attributes:
        frames: [steps or 1, H, W, 3] in [0, 1], or maps [steps or 1, H, W].
        colours: a colour map of matplotlib, for maps.
        low, high: the values of the ends of the colour map.
    """

    frames: np.ndarray
    colours: str = "gray"
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Example:
    """One image as it is denoised, under a slider: `films` by what they show, each of one frame a step or of one."""

    title: str
    steps: Sequence[Step]
    films: Mapping[str, Film]


@dataclass(frozen=True)
class Cell:
    """A score with its interval and number of images, and sentences that belong to it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class HeatMap:
    """Scores of layers (rows, in the order given) and steps (columns); a cell opens what belongs to it.

    Attributes:
        title: what is mapped.
        score: what the numbers are, 'Dice'.
        cells: (layer, step) -> its score; steps count from 0.
        films: layer -> what its probe shows of an image, one frame for each step of the map, in order.
        beside: what to compare it with, by name; of one frame a step, or of one.
        caption: what the opened pictures are of.
    """

    title: str
    score: str
    cells: Mapping[tuple[str, Step], Cell]
    films: Mapping[str, Film] = field(default_factory=dict)
    beside: Mapping[str, Film] = field(default_factory=dict)
    caption: str = ""

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(layer for layer, _ in self.cells))

    @property
    def steps(self) -> list[Step]:
        return sorted({step for _, step in self.cells})


@dataclass(frozen=True)
class Page:
    """
    Attributes:
        title: the heading.
        asked: what was asked, as (what, answer), in plain words; see `asked`.
        verdict: sentences, with their intervals.
        tables: name -> rows of a data class; what is shown is the fields with values.
        figures: name -> (PNG file, caption).
        examples: images under step sliders.
        heat_maps: maps of layers and steps.
        reproduce: (what, answer) such as the command; see `reproduce`.
    """

    title: str
    asked: Sequence[tuple[str, str]] = ()
    verdict: Sequence[str] = ()
    tables: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    figures: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    heat_maps: Sequence[HeatMap] = ()
    reproduce: Sequence[tuple[str, str]] = ()


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


Configuration = Mapping[str, Any]


def asked(config: Configuration, topics: Iterable[str]) -> list[tuple[str, str]]:
    """(what, answer) of the `topics`, which are groups of the configuration ('model', 'data', 'layers' ...)."""
    return [(TITLES.get(topic, topic), _TOLD[topic](config)) for topic in topics]


TITLES = {"data": "images", "labeler": "labels", "property": "properties", "control": "controls"}


def _model(config: Configuration) -> str:
    model = config["model"]
    size = f", {model['size']} pixels" if model.get("size") else ""
    return f"{model['path']} in {model['dtype']}{size}; sampler {model['scheduler']}, guidance {model['guidance']:g}"


def _data(config: Configuration) -> str:
    data, trajectory, sampling = config["data"], config["trajectory"], config["steps"]["sampling"]
    count = f"{data['count']} " if data.get("count") else ""
    if trajectory["kind"] == "generation":
        prompts = f"prompts of {data['prompts']}" if data.get("prompts") else "captions of the scene grammar"
        return f"made by the model from {count}{prompts}, in {sampling} steps"
    return f"{count}images of {data.get('images')}, {_shown(trajectory, sampling)}"


def _shown(trajectory: Configuration, sampling: int) -> str:
    """How real images are shown to the network."""
    if trajectory["kind"] == "noised":
        return f"noised at timesteps {_listed(trajectory['timesteps'])}"
    if trajectory["kind"] == "inversion":
        return f"inverted in {sampling} steps"
    return f"noised and denoised again, {trajectory['strength']:g} of {sampling} steps"


def _objects(config: Configuration) -> str:
    objects = config["objects"]
    given = [f"{name} {objects[name]}" for name in ("root", "split", "list", "count") if objects.get(name) is not None]
    return ", ".join([f"annotated images: {objects['kind']}", *given])


def _layers(config: Configuration) -> str:
    layers = config["layers"]
    each = [_listed(layers["select"])] if layers["select"] else []
    joined = [f"joined: {', '.join(layers['groups'])}"] if layers.get("groups") else []
    return "; ".join([*each, *joined])


def _steps(config: Configuration) -> str:
    select = config["steps"]["select"]
    if select == "all":
        return "all"
    steps = [select] if isinstance(select, str | int) else select
    told = [step.replace("_", " ") if isinstance(step, str) else step + 1 for step in steps]
    return _listed(told) + " (counted from 1)" * any(isinstance(step, int) for step in told)


def _property(config: Configuration) -> str:
    return _listed(config["property"]["names"])


def _probe(config: Configuration) -> str:
    probe = config["probe"]
    bias = "with bias" if probe["bias"] else "without bias"
    return f"{probe['name']}: {probe['head']} head {bias}, solved by {probe['solver']}"


def _control(config: Configuration) -> str:
    return _listed(config["control"]["names"]) or "none"


def _class_named(group: str) -> Callable[[Configuration], str]:
    """Of a group that names a class and its arguments: the model where there is one, and the class."""

    def told(config: Configuration) -> str:
        chosen = config[group]
        name = str(chosen["_target_"]).rpartition(".")[2]
        return f"{chosen['model']} ({name})" if chosen.get("model") else name

    return told


def _measure(config: Configuration) -> str:
    return _listed(config["measure"]["names"])


def _analysis(config: Configuration) -> str:
    """The kind, and what is set of its own."""
    chosen = config["analysis"]
    own = [f"{key} {_listed(value)}" for key, value in chosen.items() if key != "kind" and value not in (None, {}, [])]
    return "; ".join([str(chosen["kind"]), *own])


def _seed(config: Configuration) -> str:
    return str(config["seed"])


def _listed(values: Any) -> str:
    if isinstance(values, str | int | float):
        return f"{values}"
    if isinstance(values, Mapping):
        return ", ".join(f"{key}: {_listed(value)}" for key, value in values.items())
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


_TOLD: dict[str, Callable[[Configuration], str]] = {
    "analysis": _analysis,
    "model": _model,
    "data": _data,
    "objects": _objects,
    "layers": _layers,
    "steps": _steps,
    "property": _property,
    "probe": _probe,
    "control": _control,
    "labeler": _class_named("labeler"),
    "classifier": _class_named("classifier"),
    "measure": _measure,
    "seed": _seed,
}
