"""What was asked, in plain words, from the composed configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from diffprobe.parts import class_name

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
    if class_name(trajectory) == "generation":
        prompts = f"prompts of {data['prompts']}" if data.get("prompts") else "captions of the scene grammar"
        return f"made by the model from {count}{prompts}, in {sampling} steps"
    return f"{count}images of {data.get('images')}, {_shown(trajectory, sampling)}"


def _shown(trajectory: Configuration, sampling: int) -> str:
    """How real images are shown to the network."""
    if class_name(trajectory) == "noised":
        return f"noised at timesteps {_listed(trajectory['timesteps'])}"
    if class_name(trajectory) == "inversion":
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
    """Its name, and its own settings."""
    chosen = config["analysis"]
    own = {key: value for key, value in chosen.items() if key != "_target_" and value not in (None, {}, [])}
    return "; ".join([class_name(chosen), *(f"{key} {_listed(value)}" for key, value in own.items())])


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
