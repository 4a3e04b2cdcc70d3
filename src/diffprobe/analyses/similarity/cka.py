"""Linear CKA of layers and steps, in which only tokens of different images are held against each other.

Linear CKA (Kornblith et al. 2019, arXiv 1905.00414) of two activations x and y is HSIC(x, y) / sqrt(HSIC(x, x)
HSIC(y, y)), where HSIC is the squared Frobenius norm of the covariance of x and y. Its plain estimate also pairs each
sample with itself, so that it is near 1 for independent noise once there are more channels than samples. The debiased
one (Song et al. 2012; Murphy et al. 2024, arXiv 2405.01012) leaves these pairs out, which is enough where samples are
independent. Tokens of one image are not: they share its objects, light and noise. So the sample here is the image. x is
the token at a random place of a random image, and HSIC is estimated by all pairs, triples and quadruples of tokens of
*different* images: the only symmetric estimate that is unbiased whatever tokens of one image have in common. With one
token an image it is the textbook's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffprobe.statistics.intervals import Interval, skewed_t

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Hsic:
    """HSIC of every two of c conditions (a layer at a step).

    Attributes:
        unbiased: [c, c]; may be below 0. NaN for fewer than four images.
        without: [images, c, c], the same without each image. NaN for fewer than five.
        biased: [c, c], of all pairs of tokens, as if these were independent samples.
    """

    unbiased: np.ndarray
    without: np.ndarray
    biased: np.ndarray


def hsic(conditions: Sequence[np.ndarray]) -> Hsic:
    """HSIC of conditions [images, tokens, channels each], which have the same places of the same images.

    With k and l the products of tokens of two conditions, and means over distinct images 1 to 4 and all their tokens,
    it is E k(1,2) l(1,2) - 2 E k(1,2) l(1,3) + E k(1,2) l(3,4). Rows of the Gram matrices are made for one image after
    the other, of all conditions together, and leave c x c sums: no Gram matrix is held whole.
    """
    centred = [_centred(tokens) for tokens in conditions]
    images, tokens = centred[0].shape[:2]
    count = len(centred)
    total = [own.mean(1).sum(0) for own in centred]
    sums = np.stack([own @ all_of for own, all_of in zip(centred, total, strict=True)])  # [c, images, tokens]
    sums -= np.stack([np.einsum("itc,ic->it", own, own.mean(1)) for own in centred])
    of_images = np.empty((count, images, images))
    pairs, triples, crossed = (np.empty((images, count, count)) for _ in range(3))
    biased = np.zeros((count, count))
    for image in range(images):
        rows = np.stack([_products(own[image], own) for own in centred])  # [c, tokens, images, tokens]
        biased += _with_itself(rows)
        rows[:, :, image] = 0  # pairs within the image
        each, to_it = rows.mean(-1), rows.mean(1)
        of_images[:, image] = each.mean(1)
        pairs[image] = _with_itself(rows)
        triples[image] = _with_itself(sums[:, image]) - _with_itself(each)
        leaving = sums.reshape(count, -1) @ to_it.reshape(count, -1).T
        crossed[image] = leaving + leaving.T - 2 * _with_itself(to_it)
    pairs /= tokens**2
    triples /= tokens
    crossed /= tokens
    all_pairs, all_triples = pairs.sum(0), triples.sum(0)
    unbiased = _joined(all_pairs, all_triples, _quadruples(of_images), images)
    without = np.empty_like(pairs)
    for image in range(images):
        others = np.delete(np.delete(of_images, image, 1), image, 2)
        without[image] = _joined(
            all_pairs - 2 * pairs[image],
            all_triples - triples[image] - crossed[image],
            _quadruples(others),
            images - 1,
        )
    return Hsic(unbiased, without, biased / (images * tokens) ** 2)


def _centred(tokens: np.ndarray) -> np.ndarray:
    """In float64, less the mean token, so that channels with large means lose no digits."""
    values = tokens.astype(np.float64)
    return values - values.mean((0, 1))


def _with_itself(values: np.ndarray) -> np.ndarray:
    """Products [c, c] of values [c, ...]."""
    flat = values.reshape(len(values), -1)
    return flat @ flat.T


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Products of tokens [..., channels] with those of [..., channels]: [*left, *right]."""
    flat = left.reshape(-1, left.shape[-1]) @ right.reshape(-1, right.shape[-1]).T
    return flat.reshape(*left.shape[:-1], *right.shape[:-1])


def _quadruples(products: np.ndarray) -> np.ndarray:
    """Sums [c, c] of k(1,2) l(3,4) over distinct images, of products [c, images, images] with 0 on the diagonal."""
    rows = products.sum(-1)
    total = rows.sum(-1)
    return np.outer(total, total) - 4 * _with_itself(rows) + 2 * _with_itself(products)


def _joined(pairs: np.ndarray, triples: np.ndarray, quadruples: np.ndarray, images: int) -> np.ndarray:
    """The three sums as means, put together; NaN for fewer than four images."""
    if images < 4:
        return np.full_like(pairs, np.nan)
    of_two = images * (images - 1)
    of_three = of_two * (images - 2)
    return pairs / of_two - 2 * triples / of_three + quadruples / (of_three * (images - 3))


def normalised(values: np.ndarray) -> np.ndarray:
    """CKA of HSIC [..., c, c]; NaN where a condition's own is not above 0, as of too few images of mere noise."""
    own = np.diagonal(values, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(own > 0, own, np.nan))
    return values / (scale[..., :, None] * scale[..., None, :])


@dataclass(frozen=True)
class Similarities:
    """CKA of every two of c conditions, [c, c] each, over so many images.

    Attributes:
        value: debiased; a condition with itself has 1. NaN where it is undefined.
        without: [images, c, c], the same without each image, of which intervals are made.
        biased: the plain estimate, of the same tokens.
    """

    value: np.ndarray
    without: np.ndarray
    biased: np.ndarray

    @property
    def images(self) -> int:
        return len(self.without)

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends, [c, c]."""
        return jackknifed(self.value, np.moveaxis(self.without, 0, -1))

    def mean(self, pairs: Pairs, less: Pairs = ()) -> Interval:
        """The mean over pairs of conditions, less that over others, if any; None where it is undefined, has no
        interval, or there are no pairs."""
        if not pairs:
            return Interval(None, None, None)
        every = np.concatenate([self.value[None], self.without])
        means = every[(slice(None), *np.array(pairs).T)].mean(1)
        if less:
            means = means - every[(slice(None), *np.array(less).T)].mean(1)
        low, high = jackknifed(means[0], means[1:])
        return Interval.of(float(means[0]), float(low), float(high))


def jackknifed(value: np.ndarray, without: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals over images of CKA [...], given without each image [..., images]; never above 1.

    Images are left out and not drawn anew: a draw would hold images twice, and an image with its own copy is no pair of
    different images. NaN where images are too few (`skewed_t`), or the value is undefined without one of them.
    """
    undefined = np.isnan(without).any(-1) | np.isnan(value)
    influences = (without.shape[-1] - 1) * (without.mean(-1, keepdims=True) - without)
    low, high = skewed_t(value, influences)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, np.minimum(high, 1))
