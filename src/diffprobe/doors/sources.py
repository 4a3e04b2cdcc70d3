"""From `data` and `trajectory` settings to the source of activations that they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.pictures import Pictures
    from diffprobe.data.prompts import Prompt
    from diffprobe.doors.schema import ProbingSettings
    from diffprobe.features.sources.real_images import DenoisedAgain
    from diffprobe.features.sources.source import Source

OF_IMAGES = ("noised", "inversion", "image_to_image")


def make_source(settings: ProbingSettings, tell: Callable[[str], None]) -> Source:
    """The source of a run; `tell` takes a line for each image that is left out, and for what is odd about a list.

    Raises:
        UserError: trajectory and data do not go together, or the data cannot be read.
    """
    from diffprobe.data.prompts import load_prompts, same_pictures
    from diffprobe.features.sources.generation import Generation

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
    from diffprobe.features.sources.real_images import ImageToImage, Inversion, Noised

    trajectory, sampling = settings.trajectory, settings.steps.sampling
    if trajectory.kind == "noised":
        return Noised(images, list(trajectory.timesteps), trajectory.noise, trajectory.draws, again)
    if trajectory.kind == "inversion":
        return Inversion(images, sampling, again)
    if trajectory.kind == "image_to_image":
        return ImageToImage(images, trajectory.strength, sampling, half, again)
    raise UserError(f"trajectory.kind={trajectory.kind}: for real images choose one of {', '.join(OF_IMAGES)}")
