"""Whatever reaches the network is in the fingerprint of what it computes: every argument of every family's network and
of every source is changed, and seen to change the fingerprint when it changes the evaluation."""

from __future__ import annotations

import copy
import inspect
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffprobe.activations.sources import Generation, ImageToImage, Inversion, Noised, PartialDenoising, Source
from diffprobe.activations.store.manifest import describe
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.data.images import ImageFileCollection, load_images
from diffprobe.data.prompts import Prompt
from diffprobe.prototypes.pooling import MaskResizing
from diffprobe.prototypes.store import cache_folder
from tests.tiny import listed_layers

FAMILIES = ("sd2", "sdxl", "pixart", "sd3", "flux", "ddpm")
FLOW = ("sd3", "flux")

# Of `load_backbone`: what each argument is changed to, and those that change nothing but where and how fast the same
# is computed.
LOADED: dict[str, dict[str, Any]] = {
    "guidance": {"guidance": 9.0},
    "dtype": {"dtype": "bfloat16"},
    "scheduler": {"scheduler": "euler"},
    "size": {"size": 16},
    "autocast": {"autocast": "bfloat16"},
}
# Which files are read: the tests of `EDITS` change what is in them. A family: tests/integration/examples/test_dit.py
ELSEWHERE = {"path", "revision", "tokenizer", "family"}
SAME_NUMBERS = {"device", "channels_last", "compile"}


@pytest.fixture(scope="module")
def folders(family_folders: Mapping[str, Path]) -> Mapping[str, Path]:
    return family_folders


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Values of the arguments `images` and `prompts` of sources, each the usual one and others."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for place, name in (("a", "one"), ("b", "one"), ("a", "two")):
        (folder / place).mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8)).save(folder / place / f"{name}.png")
    (folder / "captions.csv").write_text("path,caption\none.png,a red ball\n")
    first, other = load_images(folder / "a")[:1], load_images(folder / "b")
    described = load_images(folder / "captions.csv", root=str(folder / "a"))
    return {
        "images": [
            ImageFileCollection(first),
            ImageFileCollection(other),
            ImageFileCollection(first, "crop"),
            ImageFileCollection(described),
        ],
        "prompts": [
            [Prompt(name="one", text="a red ball", seed=1)],
            [Prompt(name="one", text="two cubes", seed=1)],
            [Prompt(name="one", text="a red ball", seed=2)],
        ],
    }


@dataclass(frozen=True)
class Evaluation:
    """The arguments of every call of the network, by name, and the activations that came of them."""

    arguments: list[dict[str, Any]]
    activations: dict[str, Tensor]


@contextmanager
def recorded(denoiser: Any) -> Iterator[list[dict[str, Any]]]:
    calls: list[dict[str, Any]] = []
    takes = inspect.signature(type(denoiser).forward)

    def compute_activations(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(takes.bind(module, *args, **kwargs).arguments)
        given.pop("self")
        for name, value in list(given.items()):
            if isinstance(value, dict):  # SDXL's and PixArt's further conditions
                given |= {f"{name}.{key}": inner for key, inner in given.pop(name).items()}
        calls.append({name: value.clone() if isinstance(value, Tensor) else value for name, value in given.items()})

    handle = denoiser.register_forward_pre_hook(compute_activations, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def a_layer(denoiser: Any) -> Layer:
    return listed_layers(denoiser)[1]


def evaluated(backbone: Backbone, source: Source) -> Evaluation:
    layer = a_layer(backbone.denoiser)
    step = max(source.timesteps(backbone))
    with recorded(backbone.denoiser) as calls:
        found = [
            each
            for each in source.run(backbone, source.batch([0], backbone.image_size), [layer.name], [step])
            if each.index == step
        ]
    return Evaluation(calls, found[0].activations)


def fingerprint(backbone: Backbone, source: Source) -> str:
    step = min(source.timesteps(backbone))
    return describe(backbone, source, [a_layer(backbone.denoiser)], [step], "float32", 4, identified=True).fingerprint


def changed_arguments(one: Evaluation, other: Evaluation) -> set[str]:
    if len(one.arguments) != len(other.arguments):
        return {"(how often)"}
    names = {name for call in (*one.arguments, *other.arguments) for name in call}
    return {
        name
        for name in names
        if any(not _same(a.get(name), b.get(name)) for a, b in zip(one.arguments, other.arguments, strict=True))
    }


def changes(one: Evaluation, other: Evaluation) -> bool:
    return bool(changed_arguments(one, other)) or any(
        not _same(value, other.activations.get(name)) for name, value in one.activations.items()
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and one == other


# Arguments of every source: the usual value, and others that make a difference.
ARGUMENTS: dict[type[Source], dict[str, list[Any]]] = {
    Generation: {"sampling_steps": [2, 3], "half": ["conditional", "unconditional", "both"]},
    Noised: {"timesteps": [[300], [301]], "noise": ["seeded"], "draws": [1, 2]},
    Inversion: {"sampling_steps": [2, 3]},
    ImageToImage: {"strength": [0.5, 1.0], "sampling_steps": [2, 3], "half": ["conditional", "unconditional", "both"]},
}
AGAIN = [None, PartialDenoising(0.5, 2)]


def variants(kind: type[Source], values: dict[str, Any]) -> Iterator[tuple[str, Source]]:
    """A source as usual, then with each of its arguments changed."""
    table = {**values, **ARGUMENTS[kind], "partial_denoising": AGAIN}
    takes = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    assert set(takes) <= set(table), f"{kind.__name__} takes {set(takes) - set(table)}: say here what to change it to"
    usual = {name: table[name][0] for name in takes}
    yield "", kind(**usual)
    for name in takes:
        for value in table[name][1:]:
            yield f"{name}={value}", kind(**{**usual, name: value})
    if kind is Noised:
        yield "again.strength", Noised(usual["images"], [300], partial_denoising=PartialDenoising(1.0, 2))
        yield "again.sampling_steps", Noised(usual["images"], [300], partial_denoising=PartialDenoising(0.5, 3))
        yield "noise at 0", Noised(usual["images"], [0])
        yield "noise off", Noised(usual["images"], [0], "off")


def kinds(name: str) -> list[type[Source]]:
    return [kind for kind in ARGUMENTS if not (kind is Inversion and name in FLOW)]


def load(folder: Path, name: str, **options: Any) -> Backbone:
    own: dict[str, Any] = {
        "scheduler": "own" if name in FLOW else "ddim",
        "guidance": 3.0,
        "size": 32 if name == "flux" else None,
    }
    return load_backbone(str(folder), device="cpu", **{**own, **options})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_argument_of_every_source_is_in_the_fingerprint(
    folders: Mapping[str, Path], pictures: dict[str, Any], name: str
) -> None:
    backbone = load(folders[name], name)
    for kind in kinds(name):
        (_, usual), *others = variants(kind, pictures)
        first, prints = evaluated(backbone, usual), {fingerprint(backbone, usual)}
        for what, source in others:
            if not backbone.guided and "half" in what:
                continue  # there is one half only
            found = fingerprint(backbone, source)
            if found in prints:
                assert not changes(first, evaluated(backbone, source)), f"{kind.__name__} with {what}"
            prints.add(found)


def test_every_argument_of_loading_is_accounted_for() -> None:
    assert set(inspect.signature(load_backbone).parameters) == {*LOADED, *ELSEWHERE, *SAME_NUMBERS}


def _weights(part: str) -> Callable[[Backbone], None]:
    def change(backbone: Backbone) -> None:
        with torch.no_grad():
            for weight in getattr(backbone.pipeline, part).parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))

    return change


def _tokenizer(part: str) -> Callable[[Backbone], None]:
    """Two letters exchange their ids."""

    def change(backbone: Backbone) -> None:
        from tokenizers import Tokenizer

        words = getattr(backbone.pipeline, part)
        rules = json.loads(words.backend_tokenizer.to_str())
        vocabulary = rules["model"]["vocab"]
        if isinstance(vocabulary, dict):
            for one, other in (("a", "z"), ("a</w>", "z</w>"), ("r", "y"), ("d</w>", "x</w>")):
                vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
        else:
            places = [word for word, _ in vocabulary]
            one, other = places.index("a"), places.index("q")
            vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
        words._tokenizer = Tokenizer.from_str(json.dumps(rules))

    return change


def _betas(backbone: Backbone) -> None:
    other = {"beta_end": 0.015, "shift": 2.0, "base_shift": 1.0}  # each scheduler takes what it knows
    scheduler = backbone.pipeline.scheduler
    backbone.pipeline.scheduler = type(scheduler).from_config(scheduler.config, **other)


def _settings(backbone: Backbone) -> None:
    backbone.pipeline.register_to_config(force_zeros_for_empty_prompt=False)


def edits(backbone: Backbone) -> dict[str, Callable[[Backbone], None]]:
    """Changes of a loaded pipeline, by the part that they change."""
    found: dict[str, Callable[[Backbone], None]] = {}
    for part, value in backbone.pipeline.components.items():
        if isinstance(value, torch.nn.Module):
            found[part] = _weights(part)
        elif hasattr(value, "get_vocab"):
            found[part] = _tokenizer(part)
        elif part == "scheduler":
            found[part] = _betas
    if "force_zeros_for_empty_prompt" in backbone.settings:
        found["settings"] = _settings
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_whatever_changes_an_evaluation_changes_the_fingerprint(
    folders: Mapping[str, Path], pictures: dict[str, Any], name: str
) -> None:
    plain = load(folders[name], name)
    bare, described = pictures["images"][0], pictures["images"][3]
    sources = [Generation(pictures["prompts"][0], 2), Noised(described, [300])]
    # With an empty caption guidance counts where the unconditional half is no empty prompt.
    sources += [ImageToImage(bare, 0.5, 2), Noised(bare, [300], partial_denoising=PartialDenoising(0.5, 2))]
    sources += [] if name in FLOW else [Inversion(described, 1)]
    before = [evaluated(plain, source) for source in sources]
    prints = [fingerprint(plain, source) for source in sources]
    others: dict[str, Callable[[], Backbone]] = {
        what: (lambda options=options: load(folders[name], name, **options))
        for what, options in {**LOADED, "size": {"size": 8 if name == "ddpm" else 16}}.items()
        if not (what == "scheduler" and name in FLOW)
    }
    untouched = load(folders[name], name)  # and without fingerprints, which are kept once they are known
    for part, edit in edits(plain).items():

        def edited(edit: Callable[[Backbone], None] = edit) -> Backbone:
            backbone = copy.deepcopy(untouched)
            edit(backbone)
            return backbone

        others[part] = edited
    touched: dict[str, set[str]] = {}
    for what, make in others.items():
        backbone = make()
        touched[what] = set()
        for source, first, known in zip(sources, before, prints, strict=True):
            told = fingerprint(backbone, source) != known
            if told and source is not sources[0] and touched[what]:
                continue  # whatever the evaluation is, it is told apart
            second = evaluated(backbone, source)
            if changes(first, second):
                assert told, f"{what} reaches the network of {type(source).__name__}"
                touched[what] |= changed_arguments(first, second) | {"(activations)"}
    # Every change made a difference somewhere, and every argument of the network was changed by one.
    idle = {what for what, found in touched.items() if not found}
    assert idle <= ({"guidance"} if name == "ddpm" else set())
    reached = {key for call in before[0].arguments for key, value in call.items() if isinstance(value, Tensor)}
    by_the_source = {"timestep", "encoder_attention_mask"}  # of steps and texts
    assert reached <= by_the_source.union(*touched.values())


def test_guidance_that_the_network_is_told_tells_stores_apart(
    folders: Mapping[str, Path], pictures: dict[str, Any], tmp_path: Path
) -> None:
    backbone = load(folders["flux"], "flux")
    source = Noised(pictures["images"][0], [300])
    places = {
        cache_folder(tmp_path, replace(backbone, guidance=guidance), source, source.records(), MaskResizing())
        for guidance in (1.0, 3.5, 3.5, 0.5)
    }
    assert len(places) == 3


def test_guidance_that_nothing_hears_of_does_not(folders: Mapping[str, Path], pictures: dict[str, Any]) -> None:
    backbone = load(folders["sd2"], "sd2")
    for source in (
        Noised(pictures["images"][3]),
        Inversion(pictures["images"][3]),
        ImageToImage(pictures["images"][0]),
    ):
        assert fingerprint(replace(backbone, guidance=9.0), source) == fingerprint(backbone, source)


def test_moving_a_model_changes_nothing(folders: Mapping[str, Path], pictures: dict[str, Any], tmp_path: Path) -> None:
    source = Generation(pictures["prompts"][0], 2)
    for name in ("sdxl", "flux"):
        moved = load(shutil.copytree(folders[name], tmp_path / "elsewhere" / name), name)
        here = load(folders[name], name)
        list(
            source.run(here, source.batch([0], here.image_size), [], [0])
        )  # tokenizers remember how the last text was cut
        assert fingerprint(moved, source) == fingerprint(here, source)
