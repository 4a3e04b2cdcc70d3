"""The check that latents, activations and decoded images are finite, and its error.

The check knows an image by its place in the batch; `naming_images` adds the image's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone

Result = TypeVar("Result")


class NotFinite(UserError):
    """NaN or infinity in `what` (such as 'the latents') of an image, by its place in the batch and its name if known.

    `when` is the step, see `at_step`, and `edited` whether activations were edited on the way.
    """

    def __init__(self, what: str, image: int, advice: str, *, edited: bool = False, when: str = "") -> None:
        super().__init__(what, image, advice)
        self.what, self.image, self.advice, self.edited, self.when = what, image, advice, edited, when
        self.name = ""

    def __str__(self) -> str:
        whose = f"image {self.name!r}" if self.name else f"image {self.image + 1} of its batch"
        return f"NaN or infinity in {self.what} of {whose}{self.when}: {self.advice}"


def check_finite(
    backbone: Backbone,
    values: Mapping[str, Tensor],
    *,
    images: int,
    network: nn.Module | None,
    when: str = "",
    edited: bool = False,
) -> None:
    """Checks the values of a batch of images by one sum each, since NaN and infinity make every sum so.

    Args:
        values: by what they are, [rows, ...], with a multiple of `images` rows.
        network: what has computed them; None in pixel space.

    Raises:
        NotFinite: for the first image with values that are not.
    """
    sums = torch.stack([each.sum(dtype=torch.float32) for each in values.values()])
    if bool(sums.isfinite().all()):
        return
    for what, each in values.items():  # a sum may also have overflowed
        bad = (~each.isfinite().flatten(1).all(1)).nonzero()[:, 0] % images
        if len(bad):
            raise NotFinite(what, int(bad.min()), _advice(backbone, network, edited), edited=edited, when=when)


def at_step(step: int | None, timestep: float) -> str:
    """Where in a trajectory, for messages; steps count from 0, as in settings and tables."""
    return f" at timestep {timestep:g}" if step is None else f" at step {step}, timestep {timestep:g}"


def layer_values(activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Activations by layer as the values of `check_finite`."""
    return {f"the activation of {layer}": values for layer, values in activations.items()}


@contextmanager
def naming_images(names: Sequence[str], when: str = "") -> Iterator[None]:
    """Adds the names of a batch's images, and their step, to a `NotFinite` without."""
    try:
        yield
    except NotFinite as error:
        error.name = error.name or (names[error.image] if error.image < len(names) else "")
        error.when = error.when or when
        raise


def in_parts(function: Callable[[Tensor], Result], batch: Tensor, size: int = 1) -> list[Result]:
    """`function` of `size` images of a batch after another; of one at a time, no result depends on the others.

    Raises:
        NotFinite: as the function, with the image's place in the whole batch.
    """
    results = []
    for start in range(0, len(batch), size):
        try:
            results.append(function(batch[start : start + size]))
        except NotFinite as error:
            error.image += start
            raise
    return results


def _advice(backbone: Backbone, network: nn.Module | None, edited: bool) -> str:
    """What to do, by what the network is and computes in."""
    name = "the VAE" if network is not None and network is backbone.vae else "the denoiser"
    parameters = {} if network is None else dict(network.named_parameters())
    broken = [key for key, weights in parameters.items() if not bool(weights.isfinite().all())]
    if broken:
        return (
            f"{len(broken)} weights of {name} hold such numbers, first {broken[0]}; the file is damaged, or was saved "
            "in a precision that they overflow: choose another model.path"
        )
    if edited:
        return (
            "the edits drive the network out of its range; ask for less of them (analysis.margin, analysis.strength or "
            "analysis.learning_rate)"
        )
    own = next(iter(parameters.values())).dtype if parameters else backbone.dtype
    cast = None if network is backbone.vae else backbone.autocast
    coarse = {str(own).removeprefix("torch."), cast} & {"float16", "bfloat16"}
    instead = "float32 or bfloat16" if own == torch.float16 else "float32"
    keys = [f"model.dtype={instead}"] * (own != torch.float32) + ["model.autocast=null"] * (cast is not None)
    leave = "" if network in (None, backbone.denoiser, backbone.vae) else ", or leave out this control (control.names)"
    if coarse:
        return f"{name} computes in {' and '.join(sorted(coarse))}; use {' '.join(keys)}{leave}"
    return f"{name} computes in float32 already; see whether model.scheduler and model.guidance suit it{leave}"
