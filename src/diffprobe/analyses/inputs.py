"""From `data` and `trajectory` settings to the source of activations that they mean.

From `layers` and `features` settings to the layers and the stores that they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffprobe.cli.schema import chosen_steps
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.activations.groups import LayerGroup
    from diffprobe.activations.sources.real_images import DenoisedAgain
    from diffprobe.activations.sources.source import Source
    from diffprobe.activations.stores import Stores
    from diffprobe.backbone.layers import Layer
    from diffprobe.backbone.load import Backbone
    from diffprobe.cli.schema import ProbingSettings
    from diffprobe.data.pictures import Pictures
    from diffprobe.data.prompts import Prompt


OF_IMAGES = ("noised", "inversion", "image_to_image")


def make_source(settings: ProbingSettings, tell: Callable[[str], None]) -> Source:
    """The source of a run; `tell` takes a line for each image that is left out, and for what is odd about a list.

    Raises:
        UserError: trajectory and data do not go together, or the data cannot be read.
    """
    from diffprobe.activations.sources.generation import Generation
    from diffprobe.data.prompts import load_prompts, same_pictures

    kind, data = settings.trajectory.kind, settings.data
    if kind not in ("generation", *OF_IMAGES):
        raise UserError(f"trajectory.kind={kind}: choose one of generation, {', '.join(OF_IMAGES)}")
    if kind != "generation":
        return _of_images(settings, tell)
    if data.images is not None:
        raise UserError("trajectory=generation makes its own images; for data=images choose trajectory=noised")
    prompts = load_prompts(data.prompts, data.count, settings.seed, tell)
    names = {prompt.name for prompt in prompts}
    tested = test_prompts(settings, tell)
    twice = [prompt.name for prompt in tested if prompt.name in names]
    if twice:
        raise UserError(
            f"data.test_prompts={data.test_prompts} has {len(twice)} images of data.prompts, first {twice[0]}"
        )
    same = same_pictures(tested, prompts)
    if same:
        raise UserError(
            f"data.test_prompts={data.test_prompts}: {len(same)} prompts have the words and the seed of one of "
            f"data.prompts, first {same[0][1].name}, which makes the picture of {same[0][0].name}; leave them out"
        )
    return Generation([*prompts, *tested], settings.steps.sampling, settings.features.half)


def test_prompts(settings: ProbingSettings, tell: Callable[[str], None]) -> list[Prompt]:
    """The prompts whose images are to be tested on, where a file names them; `tell` takes what is odd about it.

    Raises:
        UserError: the file cannot be read, or there is no file for the other images.
    """
    from diffprobe.data.prompts import load_prompts

    data = settings.data
    if data.test_prompts is None:
        return []
    if data.prompts is None:
        raise UserError("data.test_prompts names the images to test on; give those to train on as data.prompts=FILE")
    return load_prompts(data.test_prompts, data.count, tell=tell)


def _of_images(settings: ProbingSettings, tell: Callable[[str], None]) -> Source:
    from diffprobe.data.images import load_images, sort_out
    from diffprobe.data.pictures import PictureFiles

    data, trajectory = settings.data, settings.trajectory
    if data.images is None:
        raise UserError(f"trajectory={trajectory.kind} needs real images: data=images data.images=FOLDER")
    files, bad = sort_out(load_images(data.images, root=data.root, count=data.count, tell=tell), data.on_error)
    for image in bad:
        tell(f"left out {image.name}: {image.reason}")
    return source_of_pictures(settings, PictureFiles(files, data.fit), settings.features.half)


def check_noise(settings: ProbingSettings, backbone: Backbone) -> None:
    """Raises UserError for noise and timesteps of `trajectory=noised` that the model does not have."""
    from diffprobe.backbone.noising import check_noising

    trajectory = settings.trajectory
    if trajectory.kind == "noised":
        check_noising(backbone, list(trajectory.timesteps), trajectory.noise, trajectory.draws)


def source_of_pictures(
    settings: ProbingSettings, images: Pictures, half: str, again: DenoisedAgain | None = None
) -> Source:
    """Shows the network real images as `trajectory` says, as they are or noised and denoised `again`.

    Raises:
        UserError: for a trajectory that makes its own.
    """
    from diffprobe.activations.sources.real_images import ImageToImage, Inversion, Noised

    trajectory, sampling = settings.trajectory, settings.steps.sampling
    if trajectory.kind == "noised":
        return Noised(images, list(trajectory.timesteps), trajectory.noise, trajectory.draws, again)
    if trajectory.kind == "inversion":
        return Inversion(images, sampling, again)
    if trajectory.kind == "image_to_image":
        return ImageToImage(images, trajectory.strength, sampling, half, again)
    raise UserError(f"trajectory.kind={trajectory.kind}: for real images choose one of {', '.join(OF_IMAGES)}")


def chosen_layers(select: Any, backbone: Backbone) -> list[Layer]:
    """The layers of the denoiser that one item or a list of them means.

    Raises:
        UserError: an item that fits none, with the nearest names.
    """
    from diffprobe.backbone.layers import catalogue, select_layers

    if select is None:
        raise UserError("layers.select is null; give at least one layer, such as layers=headline")
    return select_layers(catalogue(backbone.denoiser), select if isinstance(select, str) else list(select))


def chosen_groups(groups: Any, backbone: Backbone) -> list[LayerGroup]:
    """The groups of layers that `layers.groups` means. Raises UserError as `parse_groups`."""
    from diffprobe.activations.groups import parse_groups
    from diffprobe.backbone.layers import catalogue

    return parse_groups(OmegaConf.to_container(groups), catalogue(backbone.denoiser)) if groups else []  # type: ignore[arg-type]


def make_stores(settings: ProbingSettings, backbone: Backbone, source: Source) -> Stores | None:
    """Where activations are kept on disk, and which; None where they stay in memory, or are not kept.

    Raises:
        UserError: no such place, or layers and steps to keep that the network or the source does not have.
    """
    from diffprobe.activations.budget import STORES
    from diffprobe.activations.stores import Stores

    features = settings.features
    if features.store not in STORES:
        raise UserError(f"features.store={features.store}: choose one of {', '.join(STORES)}")
    if features.store == "none" and settings.probe.solver != "ridge":
        raise UserError("features=none keeps nothing, which only probe.solver=ridge can do without (probe=ridge)")
    if features.store != "disk":
        if features.layers is not None or features.steps is not None:
            raise UserError("features.layers and features.steps say what a store keeps: choose features=disk")
        return None
    return Stores(
        Path(features.folder),
        None if features.layers is None else chosen_layers(features.layers, backbone),
        None if features.steps is None else chosen_steps(features.steps, source.timesteps(backbone), "features.steps"),
    )
