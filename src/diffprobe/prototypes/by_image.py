"""Objects put in the order of their images, so that pairs of one image, and of two, are blocks of the matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffprobe.errors import UserError


@dataclass(frozen=True, slots=True)
class ObjectsByImage:
    """Objects sorted by image. The objects of image i are `starts[i]` to `starts[i + 1]`.

    distances: [n, n], on the CPU; classes: [n], counted from 0; image_of: [n], counted from 0; starts: [images + 1].
    """

    distances: Tensor
    classes: np.ndarray
    image_of: np.ndarray
    starts: np.ndarray

    @property
    def images(self) -> int:
        return len(self.starts) - 1

    def pairs_within(self) -> tuple[np.ndarray, np.ndarray]:
        """Both objects, a < b, of every pair within an image: [pairs], [pairs]."""
        first, second = [], []
        for slots in self.slots():
            upper, lower = np.triu_indices(slots.shape[1], 1)
            first.append(slots[:, upper].ravel())
            second.append(slots[:, lower].ravel())
        return np.concatenate(first), np.concatenate(second)

    def slots(self) -> list[np.ndarray]:
        """The objects of the images, of all with equally many together: [images, objects of each]."""
        sizes = np.diff(self.starts)
        return [self.starts[:-1][sizes == size][:, None] + np.arange(size) for size in np.unique(sizes)]


def by_image(distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike) -> ObjectsByImage:
    """Sort objects by image, keeping their order within it.

    Args:
        distances: [n, n], symmetric.
        classes: [n], the class of each object, any integers.
        images: [n], the image of each object, any integers.

    Raises:
        UserError: as `checked`.
    """
    matrix, labels, owners = checked(distances, classes, images)
    order = np.argsort(owners, kind="stable")
    if (np.diff(owners) < 0).any():
        matrix = matrix[torch.from_numpy(order)][:, torch.from_numpy(order)]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners))])
    return ObjectsByImage(matrix, labels[order], owners[order], starts)


def checked(
    distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The matrix on the CPU [n, n], classes [n] and images [n] counted from 0 in the order of their values.

    Raises:
        UserError: there are no objects, the shapes do not fit each other, or distances are not finite.
    """
    matrix = torch.as_tensor(distances).detach().cpu()
    labels, owners = np.asarray(classes), np.asarray(images)
    n = len(labels)
    if n == 0 or matrix.shape != (n, n) or owners.shape != (n,):
        raise UserError(
            f"distances {list(matrix.shape)}, classes {list(labels.shape)} and images {list(owners.shape)} do not "
            "belong together: pass [n, n], [n] and [n] of the same n > 0 objects"
        )
    undefined = n * n - int(matrix.isfinite().sum())
    if undefined:
        raise UserError(
            f"{undefined} of {n * n} distances are not finite numbers: leave out the objects whose prototypes have none"
        )
    return matrix, np.unique(labels, return_inverse=True)[1], np.unique(owners, return_inverse=True)[1]
