"""Label maps to targets, and scores of predicted maps and of whole banks, per image.

A prediction [..., images, h, w] at token resolution stands for its nearest-neighbour upsampling to the target's
[images, H, W]. If H and W are multiples of h and w, the score at image resolution follows exactly from the target's
mean over each token's pixels, so a target is pooled once and reused by every probe. Otherwise the prediction is
upsampled first. All results are [..., images] in float64 (float32 where the device has no float64).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.errors import UserError
from diffprobe.precision import to_float64
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.properties import Property, property_named
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.splits import PARTS, Split

Grid = tuple[int, int]
Threshold = float | Literal["validation"]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
_RADIX_FROM = 2**15  # from here on torch sorts a single row of integers on the CPU by radix, several times faster


@dataclass(frozen=True)
class PooledTarget:
    """Target maps on a grid of tokens: `mean` over each token's pixels [images, h, w], `variance` over all pixels of an
    image [images], and whether the image is `constant` [images]."""

    mean: Tensor
    variance: Tensor
    constant: Tensor


def token_means(maps: Tensor, grid: Grid) -> Tensor:
    """Mean of maps [images, H, W] over the pixels of each token of `grid` (h, w): [images, h, w].

    Patches overlap where H and W are no multiples of h and w.
    """
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]


def pool_target(target: Tensor, grid: Grid) -> PooledTarget:
    """Statistics of target maps [images, H, W] for predictions on `grid` (h, w), or on (H, W) if that is no divisor."""
    size = (target.shape[-2], target.shape[-1])
    divides = size[0] % grid[0] == 0 and size[1] % grid[1] == 0
    values = to_float64(target)
    flat = values.flatten(-2)
    return PooledTarget(
        mean=token_means(values, grid) if divides and grid != size else values,
        variance=(flat - flat.mean(-1, keepdim=True)).square().mean(-1),
        constant=flat.amax(-1) == flat.amin(-1),
    )


def average_ranks(values: Tensor) -> Tensor:
    """Ranks 1..n along the last axis of [..., n]; equal values share their mean rank (as scipy.stats.rankdata)."""
    keys = _sort_keys(values).reshape(-1, values.shape[-1])
    if keys.device.type == "cpu" and keys.dtype == torch.int32 and keys.shape[-1] >= _RADIX_FROM:
        ranks = torch.empty(keys.shape, dtype=torch.float64)
        for row, place in zip(keys, ranks, strict=True):
            place.copy_(_mean_ranks(*row.sort(stable=True)))
        return ranks.view(values.shape)
    return _mean_ranks(*keys.sort(dim=-1)).view(values.shape)


def _sort_keys(values: Tensor) -> Tensor:
    """Integers in the order of the values, and equal where those are: sorted faster than floats. Float64 stays."""
    if values.dtype == torch.float64:
        return values
    bits = (values.float() + 0.0).view(torch.int32)  # + 0.0: -0.0 equals 0.0 and must share its bits
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _mean_ranks(ordered: Tensor, order: Tensor) -> Tensor:
    """Average ranks [rows * n] of rows [rows, n] or one row [n], from what `sort` gives."""
    count = ordered.shape[-1]
    edge = torch.ones_like(ordered[..., :1], dtype=torch.bool)
    starts = torch.cat([edge, ordered[..., 1:] != ordered[..., :-1]], -1)
    group = starts.flatten().cumsum(0) - 1  # of equal values; numbered through all rows
    sizes = torch.bincount(group)
    twice = (2 * sizes.cumsum(0) - sizes + 1).index_select(0, group)  # twice the mean of the group's positions
    if ordered.ndim == 2:
        before = torch.arange(len(ordered), device=ordered.device)[:, None] * count
        order, twice = (order + before).flatten(), (twice.view_as(order) - 2 * before).flatten()
    ranks = to_float64(twice) / 2
    return torch.empty_like(ranks).index_copy_(0, order, ranks)


def rank_maps(maps: Tensor) -> Tensor:
    """Average ranks of the pixels of each map [..., h, w], as maps."""
    return average_ranks(maps.flatten(-2)).view(maps.shape)


class MaskAreas(NamedTuple):
    """Areas of predicted masks, of target masks, of both together, and of whole images, in tokens or pixels."""

    predicted: Tensor
    target: Tensor
    overlap: Tensor
    image: int

    def complements(self) -> MaskAreas:
        """Of the complements of the masks."""
        outside = self.image - self.predicted - self.target + self.overlap
        return MaskAreas(self.image - self.predicted, self.image - self.target, outside, self.image)

    def dice(self) -> Tensor:
        """2 |P and T| / (|P| + |T|) (Dice 1945); 1 where both are empty, 0 where one is."""
        total = self.predicted + self.target
        return torch.where(total > 0, 2 * self.overlap / total.where(total > 0, 1), 1.0)


def mask_areas(prediction: Tensor, target: Tensor | PooledTarget) -> MaskAreas:
    """Areas [..., images] of masks [..., images, h, w] and [images, H, W] in {0, 1}."""
    mask, pooled = _aligned(prediction, target)
    overlap = (mask * pooled.mean).sum((-2, -1))
    return MaskAreas(mask.sum((-2, -1)), pooled.mean.sum((-2, -1)), overlap, mask.shape[-2] * mask.shape[-1])


def areas_at_thresholds(maps: Tensor, target: PooledTarget, thresholds: Sequence[float]) -> MaskAreas:
    """Areas [thresholds, ..., images] of the masks maps > threshold, of maps [..., images, h, w].

    Each value is counted once, by the number of thresholds below it, whatever that number.

    Args:
        thresholds: in increasing order.
    """
    values = _upsampled(maps.nan_to_num(nan=-torch.inf), target).flatten(-2)
    means = target.mean.flatten(-2)
    bounds = torch.tensor(thresholds, dtype=values.dtype, device=values.device)
    below = torch.bucketize(values.contiguous(), bounds)  # thresholds below each value

    def above(weights: Tensor) -> Tensor:
        """Sums of weights [..., n] over the values above each threshold, [thresholds, ...]."""
        sums = weights.new_zeros((*below.shape[:-1], len(bounds) + 1)).scatter_add_(-1, below, weights)
        return sums.flip(-1).cumsum(-1).flip(-1)[..., 1:].movedim(-1, 0)

    predicted, overlap = above(torch.ones_like(means).expand_as(below)), above(means.expand_as(below))
    return MaskAreas(predicted, means.sum(-1), overlap, means.shape[-1])


def dice(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """`MaskAreas.dice` of masks [..., images, h, w] and [images, H, W] in {0, 1}."""
    return mask_areas(prediction, target).dice()


def background_dice(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Dice of the complements of two masks, see `dice`."""
    return mask_areas(prediction, target).complements().dice()


def pearson(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Pearson correlation over pixels; NaN where either map is constant or the prediction holds NaN."""
    values, pooled = _aligned(prediction, target)
    flat = values.flatten(-2)
    constant = (flat.amax(-1) == flat.amin(-1)) | pooled.constant
    deviation = flat - flat.mean(-1, keepdim=True)
    means = pooled.mean.flatten(-2)
    # Inner products, which need no maps in between
    covariance = torch.einsum("...in,in->...i", deviation, means - means.mean(-1, keepdim=True))
    variance = torch.einsum("...in,...in->...i", deviation, deviation)
    correlation = covariance / (variance * pooled.variance * flat.shape[-1]).sqrt()
    return correlation.clamp(-1, 1).masked_fill(constant, float("nan"))


def spearman(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Spearman rank correlation: the Pearson correlation of average ranks. NaN as in `pearson`.

    A `PooledTarget` must be of *ranks*: `pool_target(rank_maps(target), grid)`. The ranks of an upsampled prediction
    are an affine function of the ranks of its tokens, so ranking the tokens suffices.
    """
    grid = (prediction.shape[-2], prediction.shape[-1])
    ranks = pool_target(rank_maps(target), grid) if isinstance(target, Tensor) else target
    missing = prediction.isnan().flatten(-2).any(-1)
    return pearson(rank_maps(_upsampled(prediction, ranks)), ranks).masked_fill(missing, float("nan"))


def rmse(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Root mean squared error over pixels, in the units of the maps."""
    values, pooled = _aligned(prediction, target)
    within = (pooled.variance - pooled.mean.var((-2, -1), correction=0)).clamp(min=0)
    return ((values - pooled.mean).square().mean((-2, -1)) + within).sqrt()


def _aligned(prediction: Tensor, target: Tensor | PooledTarget) -> tuple[Tensor, PooledTarget]:
    """The prediction on the grid of the pooled target, upsampled only where it has to be."""
    pooled = pool_target(target, (prediction.shape[-2], prediction.shape[-1])) if isinstance(target, Tensor) else target
    return _upsampled(to_float64(prediction), pooled), pooled


def _upsampled(values: Tensor, pooled: PooledTarget) -> Tensor:
    """Values [..., images, h, w] on the grid of the pooled target, each pixel with its token's value."""
    grid = pooled.mean.shape[-2:]
    if values.shape[-2:] == grid:
        return values
    leading = values.shape[:-2]
    return F.interpolate(values.flatten(0, -3)[:, None], tuple(grid), mode="nearest").view(*leading, *grid)


def target_maps(targets: Mapping[str, Tensor], name: str, names: Sequence[str]) -> Tensor:
    """Target maps [images, H, W] of property `name`, from the label maps of the images called `names`.

    Raises UserError for an unknown property, a wrong number of label maps, and label maps that are not finite.
    """
    item = property_named(name)
    if name not in targets:
        raise UserError(f"no label maps for property {name!r}: there are {', '.join(targets) or 'none'}.")
    labels = targets[name]
    if labels.ndim != 3 or len(labels) != len(names):
        raise UserError(f"{name}: label maps of shape {tuple(labels.shape)}, expected [{len(names)}, height, width].")
    finite = labels.isfinite().flatten(1).all(1).tolist()
    broken = [image for image, good in zip(names, finite, strict=True) if not good]
    if broken:
        raise UserError(f"{name}: {len(broken)} label maps are not finite, the first is that of image {broken[0]!r}.")
    return item.target(labels)


def prepare_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    probe_config: ProbeConfig,
    seed: int,
) -> tuple[ProbeBank, dict[str, dict[Grid, Tensor]]]:
    """The probes at their start, and by property and grid the standardised mean target of each token [images, h, w].

    targets: label maps [images, H, W] by property, in the row order of `activations.names`. Raises UserError for
    unknown properties and for label maps that do not fit the activations or do not vary.
    """
    maps = {name: target_maps(targets, name, activations.names) for name in properties}
    statistics = {name: property_named(name).standardisation(maps[name][split.train]) for name in properties}
    bank = ProbeBank(
        {layer.name: layer.channels for layer in activations.layers},
        activations.steps,
        properties,
        head=probe_config.head,
        bias=probe_config.bias,
        seed=seed,
        standardisations=statistics,
    )
    standardised = {name: statistics[name].apply(maps[name]) for name in properties}
    return bank, {
        name: {grid: token_means(target, grid) for grid in activations.grids} for name, target in standardised.items()
    }


MASK_METRICS = {"dice": MaskAreas.dice, "dice_background": lambda areas: areas.complements().dice()}
METRICS = {
    "dice": dice,
    "dice_background": background_dice,
    "spearman": spearman,
    "pearson": pearson,
    "rmse": rmse,
}


def predict_maps(
    bank: ProbeBank, activations: ReadableActivations, name: str, layer: str, rows: Sequence[int]
) -> Tensor:
    """Predictions of the probes of property `name` on `layer` for some images: [steps, images, h, w].

    Probabilities of foreground for saliency, label units for depth and shading.
    """
    return bank.properties[name].decode_map(_outputs(bank, activations, layer, rows)[name], bank.standardisations[name])


def choose_thresholds(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    threshold: Threshold = "validation",
) -> dict[str, dict[str, list[float]]]:
    """Thresholds of the foreground probability, to be put into `bank.thresholds`: {property: {layer: one per step}}.

    'validation': per probe that of `THRESHOLDS` with the best mean Dice over the validation images. A number in (0, 1)
    is used as it is; 0.5 is the paper's argmax of two logits. Raises UserError for any other threshold.
    """
    binary = [name for name, item in bank.properties.items() if item.binary]
    if threshold != "validation":
        fixed = check_threshold(threshold)
        return {name: {layer: [fixed] * len(bank.steps) for layer in bank.layers} for name in binary}
    chosen: dict[str, dict[str, list[float]]] = {name: {} for name in binary}
    for name in binary:
        target = target_maps(targets, name, activations.names)[split.validation]
        pooled = {grid: pool_target(target, grid) for grid in activations.grids}
        for layer in bank.layers:
            maps = predict_maps(bank, activations, name, layer, split.validation)
            scores = areas_at_thresholds(maps, pooled[grid_of(maps)], THRESHOLDS).dice().mean(-1)
            chosen[name][layer] = [THRESHOLDS[index] for index in scores.argmax(0).tolist()]
    return chosen


def check_threshold(threshold: object) -> float:
    """The threshold, if it is a number in (0, 1). Raises UserError otherwise."""
    if isinstance(threshold, bool) or not isinstance(threshold, float | int) or not 0 < threshold < 1:
        raise UserError(f"threshold {threshold!r}: give a number between 0 and 1, or 'validation'.")
    return float(threshold)


def candidate_thresholds(threshold: Threshold) -> list[float]:
    """`THRESHOLDS`, to choose from on validation images, or the given one alone. Raises as `check_threshold`."""
    return list(THRESHOLDS) if threshold == "validation" else [check_threshold(threshold)]


def pooled_targets(item: Property, target: Tensor, grids: Iterable[Grid]) -> dict[Grid, dict[str, PooledTarget]]:
    """The target maps of every metric of a property, for each grid: computed once and shared by all probes."""
    ranks = rank_maps(target) if "spearman" in item.metrics else target
    found = {}
    for grid in grids:
        values = pool_target(target, grid)
        pooled_ranks = pool_target(ranks, grid) if "spearman" in item.metrics else values
        found[grid] = {metric: pooled_ranks if metric == "spearman" else values for metric in item.metrics}
    return found


def score_maps(
    item: Property, maps: Tensor, targets: Mapping[str, PooledTarget], thresholds: Sequence[float]
) -> dict[str, Tensor]:
    """Metrics of decoded maps [steps, images, h, w]: {metric: [steps, images]}; `thresholds` cut binary maps."""
    if not item.binary:
        return {metric: METRICS[metric](maps, targets[metric]) for metric in item.metrics}
    masks = maps > torch.tensor(thresholds, device=maps.device)[:, None, None, None]
    areas = mask_areas(masks, targets[item.headline])
    return {metric: MASK_METRICS[metric](areas) for metric in item.metrics}


def score_bank(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    *,
    model: str,
    control: str = "none",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """Every metric of every probe on every validation and test image, cut at `bank.thresholds`.

    targets: label maps [images, H, W] by property. rmse is in standard deviations of the training labels.
    """
    found: list[ScoreBlock] = []
    for part in PARTS[1:]:
        rows = split.rows(part)
        found += score_images(bank, activations, targets, rows, part, model=model, control=control, probe=probe)
    return found


def score_images(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    rows: Sequence[int],
    part: str,
    *,
    model: str,
    control: str = "none",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """As `score_bank`, on the images of these rows, which are of a `part` of a split."""
    found: list[ScoreBlock] = []
    moments = list(zip(bank.steps, activations.timesteps, strict=True))
    names = [activations.names[row] for row in rows]
    pooled = {}
    for name, item in bank.properties.items():
        maps = bank.standardisations[name].apply(target_maps(targets, name, activations.names)[list(rows)])
        pooled[name] = pooled_targets(item, maps, activations.grids)
    for layer in bank.layers:
        for name, outputs in _outputs(bank, activations, layer, rows).items():
            item = bank.properties[name]
            maps = item.decode(outputs)
            thresholds = bank.thresholds[name][layer] if item.binary else []
            for metric, values in score_maps(item, maps, pooled[name][grid_of(maps)], thresholds).items():
                keys = (model, layer, name, probe, control, part, metric)
                found.append(ScoreBlock(*keys, moments, names, values.double().cpu().numpy()))
    return found


@torch.no_grad()
def _outputs(bank: ProbeBank, activations: ReadableActivations, layer: str, rows: Sequence[int]) -> dict[str, Tensor]:
    return bank(layer, activations.values[layer][:, list(rows)])


def grid_of(maps: Tensor) -> Grid:
    """Height and width of maps [..., h, w]."""
    return maps.shape[-2], maps.shape[-1]
