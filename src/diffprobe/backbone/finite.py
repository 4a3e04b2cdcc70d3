"""The one check that latents, activations and decoded images are finite: whatever runs a network goes through it.

`trajectory` and `noising` check every step, and `calls` what a VAE encodes and decodes. They know an image by its place
in the batch; whoever has names for images puts them in with `naming_images`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.backbone.load import Backbone

Found = TypeVar("Found")


class NotFinite(UserError):
    """NaN or infinity in what a network gives: in what, of which image, when, and what to do.

    Attributes:
        what: 'the latents', say.
        image: the image's place in its batch; `name`: what it is called, if that is known.
        when: the step, ' at step 3, timestep 661', if there is one.
        edited: whether activations were edited on the way.
    """

    def __init__(
        self, what: str, image: int, advice: str, *, edited: bool = False, name: str = "", when: str = ""
    ) -> None:
        whose = f"image {name!r}" if name else f"image {image + 1} of its batch"
        super().__init__(f"NaN or infinity in {what} of {whose}{when}: {advice}")
        self.what, self.image, self.advice, self.edited, self.name, self.when = what, image, advice, edited, name, when

    def told(self, *, image: int | None = None, name: str = "", when: str = "", advice: str | None = None) -> NotFinite:
        """The same with more that is known, or other advice; name and step that were known before stay."""
        return NotFinite(
            self.what,
            self.image if image is None else image,
            self.advice if advice is None else advice,
            edited=self.edited,
            name=self.name or name,
            when=self.when or when,
        )


def check_finite(
    backbone: Backbone,
    values: Mapping[str, Tensor],
    *,
    images: int,
    network: nn.Module | None,
    when: str = "",
    edited: bool = False,
) -> None:
    """Makes sure of values {what they are: [rows, ...]} of a batch of `images`, of which rows may be a multiple.

    NaN and infinity make every sum so. A sum that overflows is looked into. So the check costs one sum of each, and one
    wait for the device.

    Args:
        network: what has computed them; None in pixel space.
        when: `at_step(...)`.
        edited: whether activations are edited on the way.

    Raises:
        NotFinite: for the first image with values that are not.
    """
    sums = torch.stack([each.sum(dtype=torch.float32) for each in values.values()])
    if bool(sums.isfinite().all()):
        return
    for what, each in values.items():
        bad = (~each.isfinite().flatten(1).all(1)).nonzero()[:, 0] % images
        if len(bad):
            raise NotFinite(what, int(bad.min()), _advice(backbone, network, edited), edited=edited, when=when)


def at_step(step: int | None, timestep: object) -> str:
    """When a step is, for messages. Steps count from 0, as in settings and tables; None: it has no number."""
    where = "" if step is None else f"step {step}, "
    return f" at {where}timestep {float(timestep):g}"  # type: ignore[arg-type]


def layer_values(activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Activations by layer as the values of `check_finite`."""
    return {f"the activation of {layer}": values for layer, values in activations.items()}


@contextmanager
def naming_images(names: Sequence[str], when: str = "") -> Iterator[None]:
    """Says what the images of a batch are called, and at which step they are, where a `NotFinite` did not."""
    try:
        yield
    except NotFinite as error:
        raise error.told(name=names[error.image] if error.image < len(names) else "", when=when) from None


def one_at_a_time(function: Callable[[Tensor], Found], batch: Iterable[Tensor]) -> list[Found]:
    """`function` of every image of a batch as a batch of its own, so that the others make no difference to it.

    Raises:
        NotFinite: as the function, with the image's place in the whole batch.
    """
    found = []
    for place, one in enumerate(batch):
        try:
            found.append(function(one[None]))
        except NotFinite as error:
            raise error.told(image=place) from None
    return found


def _advice(backbone: Backbone, network: nn.Module | None, edited: bool) -> str:
    """What to do, which depends on what the network is and computes in."""
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
