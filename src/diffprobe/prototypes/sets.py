"""The four sets of object pairs: same class or different, same image or different."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from diffprobe.errors import UserError

SETS = ("scsi", "scdi", "dcsi", "dcdi")  # s, d: same or different; c, i: class, image


def set_sizes(classes: np.ndarray, images: np.ndarray) -> dict[str, int]:
    """How many unordered pairs of objects are in each set. classes, images: integers [objects]."""
    both = _pairs_within(np.stack([classes, images], axis=1))
    same_class, same_image = _pairs_within(classes[:, None]), _pairs_within(images[:, None])
    pairs = len(classes) * (len(classes) - 1) // 2
    sizes = (both, same_class - both, same_image - both, pairs - same_class - same_image + both)
    return dict(zip(SETS, sizes, strict=True))


def split_pairs(distances: Tensor | np.ndarray, classes: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    """The distances of each set, ascending: the order is what most statistics of a set need.

    distances: [objects, objects], of which the part above the diagonal is read, so every pair counts once and no
    object is paired with itself; classes, images: integers [objects]. The values keep the type of `distances`; beyond
    them and `distances`, memory is a few numbers per object.

    Raises UserError when shapes do not fit, and when a distance is not a finite number.
    """
    if isinstance(distances, Tensor):
        distances = distances.detach().cpu().numpy()
    classes, images = np.asarray(classes), np.asarray(images)
    _check(distances, classes, images)
    sizes = set_sizes(classes, images)
    values = {name: np.empty(size, distances.dtype) for name, size in sizes.items()}
    filled = dict.fromkeys(SETS, 0)
    for row in range(len(classes) - 1):
        others = slice(row + 1, None)
        same_class, same_image = classes[others] == classes[row], images[others] == images[row]
        wanted = (same_class & same_image, same_class & ~same_image, ~same_class & same_image)
        for name, pairs in zip(SETS, (*wanted, ~(same_class | same_image)), strict=True):
            found = distances[row, others][pairs]
            values[name][filled[name] : filled[name] + len(found)] = found
            filled[name] += len(found)
    for of_set in values.values():
        of_set.sort()
    return values


def _pairs_within(keys: np.ndarray) -> int:
    """Pairs of objects whose keys [objects, columns] are equal."""
    counts = np.unique(keys, axis=0, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _check(distances: np.ndarray, classes: np.ndarray, images: np.ndarray) -> None:
    objects = len(classes)
    if distances.shape != (objects, objects) or images.shape != classes.shape or classes.ndim != 1:
        raise UserError(
            f"distances {list(distances.shape)}, classes {list(classes.shape)} and images {list(images.shape)} are not "
            "of the same objects: give [n, n], [n] and [n]"
        )
    wrong = [np.count_nonzero(~np.isfinite(distances[row, row + 1 :])) for row in range(objects)]
    if any(wrong):
        row = int(np.argmax(np.array(wrong) > 0))
        column = row + 1 + int(np.argmax(~np.isfinite(distances[row, row + 1 :])))
        raise UserError(
            f"{sum(wrong)} of {objects * (objects - 1) // 2} distances are not finite numbers, the first between "
            f"objects {row} and {column}: leave out the objects whose prototypes have none, or choose another measure"
        )
