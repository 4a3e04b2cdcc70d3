"""What an analysis is given: the checked settings of a run, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffprobe.errors import UserError
from diffprobe.parts import class_name, make
from diffprobe.ranges import shown

if TYPE_CHECKING:
    from diffprobe.activations.activations import LayerGroup
    from diffprobe.activations.extraction import ActivationConfig
    from diffprobe.activations.sources import PartialDenoising, Source
    from diffprobe.backbone.layers import Layer
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.images import ImageCollection
    from diffprobe.data.objects import ObjectImages, Problem
    from diffprobe.data.prompts import Prompt
    from diffprobe.properties import Property


class Inputs:
    """Each part is made once, when it is first read, and raises UserError for what the user got wrong.

    Attributes:
        settings: the checked settings by group.
        log: takes a line for people, such as on an image that is left out.
        settings_of: reads the settings of a finished run from its folder.
    """

    def __init__(self, settings: Any, log: Callable[[str], None], settings_of: Callable[[Path], Any]) -> None:
        self.settings, self.log, self.settings_of = settings, log, settings_of

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen pipeline of `model`, on the device of the trainer that takes images through it."""
        from diffprobe.activations.module import device_of_model
        from diffprobe.runs.trainers import make_trainer

        device = device_of_model(self.settings.model.device, make_trainer(self.settings, "predict", None))
        return make(self.settings.model, device=device)

    @cached_property
    def source(self) -> Source:
        """Where activations come from: `data` on the `trajectory`."""
        from diffprobe.activations.sources import Generation

        source = make_source(self.settings, self.log)
        if isinstance(source, Generation):
            self.tell_of_texts(source.prompts)
        return source

    def tell_of_texts(self, prompts: Sequence[Prompt]) -> None:
        """Tells people of prompts that the model does not see as they are written."""
        from diffprobe.backbone.texts import text_warnings

        for line in text_warnings(self.backbone, {prompt.name: prompt.text for prompt in prompts}):
            self.log(line)

    @cached_property
    def properties(self) -> list[Property]:
        """What is probed."""
        return make(self.settings.property).properties

    @cached_property
    def labeler(self) -> Any:
        """The labeler, which knows the properties."""
        from diffprobe.labels.labeler import DefinitionAwareLabeler

        labeler = make(self.settings.labeler)
        if isinstance(labeler, DefinitionAwareLabeler):
            labeler.set_properties({item.name: item for item in self.properties})
        return labeler

    @cached_property
    def classifier(self) -> Any:
        return make(self.settings.classifier)

    @cached_property
    def features(self) -> ActivationConfig:
        """What is kept of activations, and how."""
        return make(self.settings.features)

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers that `layers.select` names; none where there are groups of layers alone."""
        select, groups = self.settings.layers.select, self.settings.layers.groups
        if not select and not groups:
            raise UserError(
                "layers.select and layers.groups are both empty; choose at least one layer or group of layers, such as "
                "layers=headline"
            )
        return chosen_layers(select, self.backbone) if select else []

    @cached_property
    def groups(self) -> list[LayerGroup]:
        """The groups of layers that `layers.groups` names."""
        return chosen_groups(self.settings.layers.groups, self.backbone)

    def steps(self, available: Iterable[int]) -> list[int]:
        """The available steps that `steps.select` names."""
        return chosen_steps(self.settings.steps.select, available)

    @cached_property
    def objects(self) -> tuple[ObjectImages, list[Problem]]:
        """The images of `objects`, and what was left out of them."""
        return make(self.settings.objects, seed=self.settings.seed, log=self.log)


def make_source(settings: Any, log: Callable[[str], None]) -> Source:
    """The source of a run; `log` takes a line for each image that is left out, and for what is odd about a list.

    Raises:
        UserError: trajectory and data do not go together, or the data cannot be read.
    """
    from diffprobe.activations.sources import Generation
    from diffprobe.data.images import ImageFileCollection, load_images, split_readable
    from diffprobe.data.prompts import duplicate_prompts, load_prompts

    data, trajectory = settings.data, class_name(settings.trajectory)
    if trajectory != "generation":
        if "images" not in data:
            raise UserError(f"{trajectory} needs real images: data=images data.images=FOLDER")
        files, bad = split_readable(load_images(data.images, root=data.root, count=data.count, log=log), data.on_error)
        for image in bad:
            log(f"left out {image.name}: {image.reason}")
        return source_of_pictures(settings, ImageFileCollection(files, data.fit), settings.features.half)
    if "images" in data:
        raise UserError("trajectory=generation makes its own images; for data=images choose trajectory=noised")
    prompts = load_prompts(data.prompts, data.count, settings.seed, log)
    names = {prompt.name for prompt in prompts}
    tested = test_prompts(settings, log)
    twice = [prompt.name for prompt in tested if prompt.name in names]
    if twice:
        raise UserError(
            f"data.test_prompts={data.test_prompts} has {len(twice)} images of data.prompts, first {twice[0]}"
        )
    same = duplicate_prompts(tested, prompts)
    if same:
        raise UserError(
            f"data.test_prompts={data.test_prompts}: {len(same)} prompts have the words and the seed of one of "
            f"data.prompts, first {same[0][1].name}, which makes the picture of {same[0][0].name}; leave them out"
        )
    return Generation([*prompts, *tested], settings.steps.sampling, settings.features.half)


def test_prompts(settings: Any, log: Callable[[str], None]) -> list[Prompt]:
    """The prompts whose images are to be tested on, where a file names them; `log` takes what is odd about it.

    Raises:
        UserError: the file cannot be read, or there is no file for the other images.
    """
    from diffprobe.data.prompts import load_prompts

    data = settings.data
    if data.get("test_prompts") is None:
        return []
    if data.prompts is None:
        raise UserError("data.test_prompts names the images to test on; give those to train on as data.prompts=FILE")
    return load_prompts(data.test_prompts, data.count, log=log)


def check_noise(settings: Any, backbone: Backbone) -> None:
    """Raises UserError for noise and timesteps of `trajectory=noised` that the model does not have."""
    from diffprobe.backbone.real_images import check_noising

    trajectory = settings.trajectory
    if class_name(trajectory) == "noised":
        check_noising(backbone, list(trajectory.timesteps), trajectory.noise, trajectory.draws)


def source_of_pictures(
    settings: Any, images: ImageCollection, half: str, partial_denoising: PartialDenoising | None = None
) -> Source:
    """The source that shows the network real images as `trajectory` says, as they are or after `partial_denoising`.

    Raises:
        UserError: for a trajectory that makes its own.
    """
    trajectory = class_name(settings.trajectory)
    if trajectory == "generation":
        raise UserError("trajectory=generation makes its own images; for real ones choose trajectory=noised")
    options: dict[str, Any] = {"images": images, "partial_denoising": partial_denoising}
    if trajectory in ("inversion", "image_to_image"):
        options["sampling_steps"] = settings.steps.sampling
    if trajectory == "image_to_image":
        options["half"] = half
    return make(settings.trajectory, **options)


def chosen_layers(select: Any, backbone: Backbone) -> list[Layer]:
    """The layers of the denoiser that an item, or a list of items, means. Raises UserError if an item fits none."""
    from diffprobe.backbone.layers import catalogue, select_layers

    return select_layers(catalogue(backbone.denoiser), select if isinstance(select, str) else list(select))


def chosen_groups(groups: Any, backbone: Backbone) -> list[LayerGroup]:
    """The groups of layers that `layers.groups` means. Raises UserError as `parse_groups`."""
    from diffprobe.activations.activations import parse_groups
    from diffprobe.backbone.layers import catalogue

    return parse_groups(OmegaConf.to_container(groups), catalogue(backbone.denoiser)) if groups else []  # type: ignore[arg-type]


def chosen_steps(select: Any, available: Iterable[int], key: str = "steps.select") -> list[int]:
    """The available steps that the setting `key` means: 'all', 'first', 'last', 'first_third' (rounded,
    at least one: five of 15), a number, or a list of numbers and these words.

    Raises:
        UserError: anything else, or a step that is not available.
    """
    possible = sorted(available)
    words: dict[Any, list[int]] = {
        "all": possible,
        "first": possible[:1],
        "last": possible[-1:],
        "first_third": possible[: max(1, round(len(possible) / 3))],
    }
    wanted: Any = [select] if isinstance(select, str | int) else select
    try:
        steps: list[Any] = [step for item in wanted for step in words.get(item, [item])]
    except TypeError:
        steps = []
    if not steps or any(isinstance(step, bool) or not isinstance(step, int) for step in steps):
        raise UserError(f"{key}={shown(select)}: give a list of steps such as [0,4,last], or {', '.join(words)}")
    bad = [step for step in steps if step not in possible]
    if bad:
        there_are = f"{possible[0]} to {possible[-1]}" if len(possible) > 1 else f"{possible[0]} alone"
        raise UserError(
            f"{key}={shown(select)}: choose from {there_are}, counted from 0, or 'last'; there is no step {bad[0]}"
        )
    return sorted(set(steps))
