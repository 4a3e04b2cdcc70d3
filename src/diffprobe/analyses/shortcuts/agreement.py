"""How far two pictures agree: their label maps, their class, and the pictures themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffprobe.errors import UserError, one_line
from diffprobe.properties import Property
from diffprobe.properties.base import Standardisation
from diffprobe.properties.metrics import metric_named
from diffprobe.properties.tokens import grid_of

PICTURE, CLASS = "picture", "class"  # in the column `property`, beside properties
PSNR, SSIM, LPIPS, SAME_CLASS = "psnr", "ssim", "lpips", "same_class"
CUT = 0.5  # a labeler's masks are 0 or 1 already
OTHERS = 5  # unrelated pictures that each picture is compared with

Values = dict[tuple[str, str], Tensor]
"""Of each property and metric, one number an image, [images]; NaN where it is undefined."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""From two batches of pictures [images, 3, H, W] in [0, 1] to [images]."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures [images, 3, H, W] in [0, 1], and what is seen in them: label maps [images, H, W] (of vectors with
    channels) by property, and the number of each picture's class [images], where there is a classifier."""

    pictures: Tensor
    maps: Mapping[str, Tensor]
    classes: Tensor | None

    def __getitem__(self, rows: Sequence[int]) -> Seen:
        maps = {name: values[list(rows)] for name, values in self.maps.items()}
        return Seen(self.pictures[list(rows)], maps, None if self.classes is None else self.classes[list(rows)])

    @staticmethod
    def joined(parts: Sequence[Seen]) -> Seen:
        """All images of the parts, in their order."""
        classes = [part.classes for part in parts if part.classes is not None]
        return Seen(
            torch.cat([part.pictures for part in parts]),
            {name: torch.cat([part.maps[name] for part in parts]) for name in parts[0].maps},
            torch.cat(classes) if classes else None,
        )


@dataclass(frozen=True)
class Agreement:
    """Compares pictures one by one.

    Attributes:
        items: the properties by name; each is compared by the headline metric of its kind.
        standardisations: of the probes' training labels.
        lpips: of `lpips_distance`, where it is wanted.
    """

    items: Mapping[str, Property]
    standardisations: Mapping[str, Standardisation]
    lpips: Distance | None = None

    def __call__(self, whole: Seen, other: Seen) -> Values:
        """How far the pictures of `other` are those of `whole`. Equal pictures have no PSNR."""
        found = {(name, item.headline): self._of_maps(name, whole, other) for name, item in self.items.items()}
        if whole.classes is not None and other.classes is not None:
            found[CLASS, SAME_CLASS] = (whole.classes == other.classes).double()
        return found | {(PICTURE, metric): values for metric, values in self._of_pictures(whole, other).items()}

    def _of_maps(self, name: str, whole: Seen, other: Seen) -> Tensor:
        """A map of one value everywhere has no rank correlation, and agrees by 0 with one that has several. Where the
        whole run's is such a map, nothing is said; of masks neither of their Dice."""
        item, standardisation = self.items[name], self.standardisations[name]
        target, metric = item.target(whole.maps[name]), metric_named(item.headline)
        predicted = item.of_labels(item.target(other.maps[name]), standardisation)[None]
        grid = grid_of(predicted)
        prepared = item.prepared(target, standardisation, [grid])[grid]
        values = item.scores(predicted, prepared, [CUT])[metric.name][0].double().cpu()
        flat = item.one_valued(target).cpu()
        if metric.higher_is_better:
            values = values.masked_fill(values.isnan() & ~flat, 0.0)
        return values.masked_fill(flat, float("nan")) if item.binary else values

    def _of_pictures(self, whole: Seen, other: Seen) -> dict[str, Tensor]:
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

        one, two = other.pictures.float(), whole.pictures.float()
        psnr = peak_signal_noise_ratio(one, two, data_range=1.0, reduction="none", dim=(1, 2, 3))
        ssim = structural_similarity_index_measure(one, two, data_range=1.0, reduction="none")
        assert isinstance(ssim, Tensor)  # no images of it are asked for
        found = {PSNR: psnr.masked_fill(psnr.isinf(), float("nan")), SSIM: ssim}
        if self.lpips is not None:
            found[LPIPS] = self.lpips(one, two)
        return {name: values.double().reshape(-1).cpu() for name, values in found.items()}


def unrelated(agree: Agreement, whole: Seen, texts: Sequence[str], seeds: Sequence[int]) -> Values:
    """How far each picture agrees, on average, with up to `OTHERS` pictures of other prompts and other seeds.

    They are the next ones in the list, which begins anew at its end. NaN for a picture without such.
    """
    count = len(texts)
    chosen: list[list[int]] = []
    for row in range(count):
        after = [(row + offset) % count for offset in range(1, count)]
        chosen.append([at for at in after if texts[at] != texts[row] and seeds[at] != seeds[row]][:OTHERS])
    sums: Values = {}
    for place in range(max(map(len, chosen), default=0)):
        rows = [row for row in range(count) if len(chosen[row]) > place]
        for key, values in agree(whole[rows], whole[[chosen[row][place] for row in rows]]).items():
            sums.setdefault(key, torch.zeros(count, dtype=torch.float64))[rows] += values
    numbers = torch.tensor([len(others) for others in chosen], dtype=torch.float64)
    return {key: values / numbers for key, values in sums.items()}


def lpips_distance() -> Distance:
    """LPIPS (Zhang et al. 2018, arXiv 1801.03924) with AlexNet, by torchmetrics.

    Raises:
        UserError: torchvision, or the weights of AlexNet that it downloads, are not to be had.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        measure = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: a build that does not fit this torch
        raise UserError(
            f"analysis.lpips=true needs torchvision and its weights of AlexNet: {one_line(error)}; install the build "
            "that belongs to your torch (https://pytorch.org/get-started), or leave it at false"
        ) from error

    @torch.no_grad()
    def distance(one: Tensor, other: Tensor) -> Tensor:
        found = []
        for pair in zip(one.cpu().split(1), other.cpu().split(1), strict=True):
            measure.update(*pair)
            found.append(measure.compute())
            measure.reset()
        return torch.stack(found)

    return distance
