"""The studies of `train.py` and `analyze.py` as functions: the same settings, defaults and numbers, in this process.

What these functions do not name is given as it is typed for a command: `overrides=["probe.epochs=10"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.api.layers import Layers
from diffprobe.api.models import LayerItems, Model
from diffprobe.api.results import Result, Run
from diffprobe.api.running import Given, run_analysis
from diffprobe.api.settings import as_list, choice_or_names
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.properties import CustomProperty

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.labels.labeler import Labeler

AnyModel = str | Path | Model
Prompts = str | Path | Sequence[str | Prompt]
Steps = str | int | Sequence[int | str]
Overrides = Sequence[str]


def probe(
    model: AnyModel = "pocket",
    *,
    prompts: Prompts | None = None,
    images: str | Path | None = None,
    timesteps: Sequence[int] | None = None,
    labels: str | Path | Labeler | Callable[[Tensor], Any] | None = None,
    properties: str | CustomProperty | Sequence[str | CustomProperty] | None = None,
    layers: LayerItems | None = None,
    steps: Steps | None = None,
    sampling_steps: int | None = None,
    probe: str | None = None,
    controls: str | Sequence[str] | None = None,
    features: str | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """Trains and scores linear probes of properties at every layer and step: the study of `train.py`.

    Args:
        model: of `dp.load`, or what it takes.
        prompts: texts, prompts with seeds, or a CSV file of them; by default captions of the built-in world.
        images: in place of prompts, a folder or a list of real images (docs/images.md).
        timesteps: of the noise that is added to `images`; 0, whose noise is faint, by default.
        labels: a folder of maps (docs/labels.md), a labeler, or a function: images [images, 3, H, W] in [0, 1] ->
            {property: maps [images, H, W]}. By default the built-in labeler, which knows the built-in world alone.
        properties: names of known ones, or `dp.CustomProperty`; saliency, depth and shading by default.
        layers: as of `Model.layers`; the self-attention layers by default.
        steps: counted from 0: 'all', 'first', 'last', 'first_third', a number, or a list of these.
        sampling_steps: of the sampler; 15 by default.
        probe: 'linear', 'ridge', 'exact', 'mlp', or another choice of the group `probe`.
        controls: 'both', 'all', 'none' or another choice of the group `control`, or names (docs/controls.md).
        features: 'memory', 'disk', or 'none', which keeps no activation and needs probe='ridge'.
        count: images; 200 captions by default.
        seed: of captions, split, probes and permutation.
        overrides: other settings, as they are typed for `train.py`.
        verbose: prints the plan and shows progress.

    Raises:
        UserError: of what is wrong with any of these, before any image is made.

    >>> import diffprobe as dp
    >>> result = dp.probe("pocket", count=12, properties="depth", layers="resolution=8 & self_attention & decoder",
    ...                   sampling_steps=2, probe="ridge", verbose=False)
    >>> tested = result.summary.query("control == 'none' and split == 'test' and metric == 'spearman'")
    >>> len(tested), result.figures[0]
    (6, 'scores_over_steps')
    """
    settings: dict[str, Any] = {
        "data": None if images is None else "images",
        "data.images": images,
        "trajectory.timesteps": None if timesteps is None else list(timesteps),
        **_properties(properties),
        **where_and_when(layers, steps, sampling_steps),
        "probe": probe,
        **dict(choice_or_names("control", controls)),
        "features": features,
        "data.count": count,
        "seed": seed,
    }
    given = Given(settings, overrides, prompts, labels)
    return Result(run_analysis("train", model, given, verbose=verbose))


def emergence(
    model: AnyModel = "pocket",
    *,
    prompts: Prompts | None = None,
    labels: str | Path | Labeler | Callable[[Tensor], Any] | None = None,
    properties: str | CustomProperty | Sequence[str | CustomProperty] | None = None,
    layers: LayerItems | None = None,
    steps: Steps | None = None,
    probes: str | Path | Run | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """Whether probes know a property before an image model sees it in the unfinished picture (docs/emergence.md).

    Args:
        probes: a finished run whose probes are taken; by default they are trained first.
        others: as of `dp.probe`.

    >>> import diffprobe as dp
    >>> result = dp.emergence("pocket", count=12, properties="depth", overrides=["steps.sampling=2"], verbose=False)
    >>> "emergence" in result.tables
    True
    """
    settings = {
        **_properties(properties),
        **where_and_when(layers, steps, None),
        "analysis.probes": _folder(probes),
        "data.count": count,
        "seed": seed,
    }
    return run_study("emergence", model, Given(settings, overrides, prompts, labels), verbose)


def similarity(
    model: AnyModel = "pocket",
    *,
    prompts: Prompts | None = None,
    labels: str | Path | Labeler | Callable[[Tensor], Any] | None = None,
    properties: str | CustomProperty | Sequence[str | CustomProperty] | None = None,
    layers: LayerItems | None = None,
    steps: Steps | None = None,
    tokens: int | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """Which layers and steps know the same: debiased CKA of their activations, and probes at the other steps of their
    layer (docs/similarity.md).

    Args:
        layers: the first self-attention of every block by default.
        tokens: places of each test image that CKA compares; 16 by default.
        others: as of `dp.probe`.

    >>> import diffprobe as dp
    >>> result = dp.similarity("pocket", count=20, properties="depth", layers="up_blocks.3.attentions.?",
    ...                        overrides=["steps.sampling=2"], verbose=False)
    >>> result.tables["cka"].query("layer == other_layer")[["step", "other_step", "n"]].values.tolist()
    [[0, 1, 7], [0, 1, 7], [0, 1, 7]]
    """
    settings = {
        **_properties(properties),
        **where_and_when(layers, steps, None),
        "analysis.tokens": tokens,
        "data.count": count,
        "seed": seed,
    }
    return run_study("similarity", model, Given(settings, overrides, prompts, labels), verbose)


def intervene(
    model: AnyModel = "pocket",
    *,
    properties: str | None = None,
    target: str = "translation",
    range: Sequence[float] | None = None,
    mask: str | Path | None = None,
    methods: str | Sequence[str] | None = None,
    layers: LayerItems | None = None,
    steps: Steps | None = None,
    probes: str | Path | Run | None = None,
    prompts: str | Path | None = None,
    count: int = 50,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """Edits activations so that probes read another map, denoises on, and measures whether the picture follows.

    Args:
        properties: the one whose map is edited; saliency by default.
        target: how the map is changed: 'translation', 'rotation', 'scale', or 'file', which takes `mask`.
        range: of pixels, degrees or factors, from which each change is drawn.
        methods: 'pattern', 'minimum_norm', 'steering', 'gradient' (docs/intervention.md).
        layers: that are edited.
        probes: a finished run whose probes are taken; by default they are trained first.
        prompts: CSV file of the images to edit; by default captions that no probe was trained on.
        count: images to edit.
        others: as of `dp.probe`.

    >>> import diffprobe as dp
    >>> result = dp.intervene("pocket", layers="up_blocks.3.resnets.0", count=3, verbose=False, overrides=[
    ...     "data.count=15", "steps.sampling=2", "steps=first", "analysis.frames=0"])
    >>> result.figures
    ['intervention_scores', 'intervention_examples']
    """
    settings = {
        "property": properties,
        **where_and_when(layers, steps, None),
        "analysis.target": target,
        "analysis.range": range if range is None else list(range),
        "analysis.mask": mask,
        "analysis.methods": as_list(methods),
        "analysis.probes": _folder(probes),
        "analysis.prompts": prompts,
        "analysis.count": count,
        "seed": seed,
    }
    return run_study("intervention", model, Given(settings, overrides), verbose)


def classify(
    model: AnyModel = "pocket",
    *,
    prompts: Prompts | None = None,
    classifier: str | None = None,
    steps: Steps | None = None,
    sampling_steps: int | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """From which step on an image classifier sees the class in the unfinished picture (docs/classification.md).

    Args:
        classifier: 'pocket', 'transformers' or 'vgg16'.
        others: as of `dp.probe`.

    >>> import diffprobe as dp
    >>> result = dp.classify("pocket", count=8, sampling_steps=2, verbose=False)
    >>> result.figures[0]
    'class_over_steps'
    """
    settings = {
        "classifier": classifier,
        **where_and_when(None, steps, sampling_steps),
        "data.count": count,
        "seed": seed,
    }
    return run_study("classification", model, Given(settings, overrides, prompts), verbose)


def shortcuts(
    model: AnyModel = "pocket",
    *,
    prompts: Prompts | None = None,
    labels: str | Path | Labeler | Callable[[Tensor], Any] | None = None,
    properties: str | CustomProperty | Sequence[str | CustomProperty] | None = None,
    shortcuts: str | Sequence[str] | None = None,
    steps: Steps | None = None,
    probes: str | Path | Run | None = None,
    count: int | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    verbose: bool = True,
) -> Result:
    """From which step on the sampler can do less, and when probes could read what is fixed then (docs/shortcuts.md).

    Args:
        shortcuts: of 'guidance_off', 'half_the_steps', 'third_of_the_steps', 'deep_features', 'empty_prompt' and
            'other_prompt'; all by default.
        steps: after which shortcuts are begun, and at which probes are read.
        probes: a finished run whose probes are taken; by default they are trained first.
        others: as of `dp.probe`.

    >>> import diffprobe as dp
    >>> result = dp.shortcuts("pocket", count=12, properties="depth", shortcuts="guidance_off", steps="all",
    ...                       overrides=["steps.sampling=2"], verbose=False)
    >>> result.figures[:2]
    ['shortcuts', 'shortcuts_over_steps']
    """
    settings = {
        **_properties(properties),
        **where_and_when(None, steps, None),
        "analysis.shortcuts": as_list(shortcuts),
        "analysis.probes": _folder(probes),
        "data.count": count,
        "seed": seed,
    }
    return run_study("shortcuts", model, Given(settings, overrides, prompts, labels), verbose)


def compare(*runs: str | Path | Run, seed: int = 0, verbose: bool = True) -> Result:
    """Finished runs side by side, paired over the images that they share.

    >>> import diffprobe as dp
    >>> dp.compare("runs/one")
    Traceback (most recent call last):
    diffprobe.errors.UserError: give at least two runs to compare
    """
    if len(runs) < 2:
        raise UserError("give at least two runs to compare")
    settings = {"analysis.runs": [_folder(run) for run in runs], "seed": seed}
    return run_study("compare", None, Given(settings), verbose)


def run_study(name: str, model: AnyModel | None, given: Given, verbose: bool) -> Result:
    """Runs `analyze.py analysis=NAME` in this process."""
    overrides = [f"analysis={name}", *given.overrides]
    return Result(
        run_analysis("analyze", model, Given(given.settings, overrides, given.prompts, given.labels), verbose=verbose)
    )


def where_and_when(layers: LayerItems | None, steps: Steps | None, sampling_steps: int | None) -> dict[str, Any]:
    """The settings of layers and steps."""
    names = layers.names if isinstance(layers, Layers) else layers
    return {"layers.select": names, "steps.select": steps, "steps.sampling": sampling_steps}


def _properties(properties: Any) -> dict[str, Any]:
    """Names of known properties, and definitions of others."""
    if properties is None:
        return {}
    items = [properties] if isinstance(properties, str | CustomProperty) else list(properties)
    names = [item for item in items if isinstance(item, str)]
    own = [
        {key: value for key, value in vars(item).items() if value is not None and key in CustomProperty.__match_args__}
        for item in items
        if isinstance(item, CustomProperty)
    ]
    for definition in own:
        definition.pop("threshold", None)
    return {"property.names": names, "property.own": own or None}


def _folder(run: str | Path | Run | Result | None) -> str | None:
    if isinstance(run, Result):
        raise UserError("a result is in memory; give the folder that result.save(FOLDER) returns")
    return None if run is None else str(run.folder if isinstance(run, Run) else run)
