"""Scores of one image the slow way: upsample the prediction, then ask numpy and scipy about every pixel."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import stats


def upsample(prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour: pixel (y, x) shows token (floor(y h / H), floor(x w / W))."""
    rows = np.arange(size[0]) * prediction.shape[0] // size[0]
    columns = np.arange(size[1]) * prediction.shape[1] // size[1]
    return prediction[rows][:, columns]


def dice(prediction: np.ndarray, target: np.ndarray) -> float:
    first, second = upsample(prediction, target.shape) > 0, target > 0
    if not first.any() and not second.any():
        return 1.0
    return 2 * int((first & second).sum()) / int(first.sum() + second.sum())


def dice_background(prediction: np.ndarray, target: np.ndarray) -> float:
    return dice(1 - prediction, 1 - target)


def spearman(prediction: np.ndarray, target: np.ndarray) -> float:
    return _correlation(stats.spearmanr, prediction, target)


def pearson(prediction: np.ndarray, target: np.ndarray) -> float:
    return _correlation(stats.pearsonr, prediction, target)


def rmse(prediction: np.ndarray, target: np.ndarray) -> float:
    return float(np.sqrt(np.mean((upsample(prediction, target.shape) - target) ** 2)))


def ssi_error(prediction: np.ndarray, target: np.ndarray) -> float:
    """Ranftl et al. (2020), equations 5 to 7, of inverse depths."""

    def normalised(values: np.ndarray) -> np.ndarray:
        shift = np.sort(values.ravel())[(values.size - 1) // 2]
        scale = np.abs(values - shift).mean()
        return (values - shift) / scale if scale else np.full(values.shape, np.nan)

    return float(np.abs(normalised(upsample(prediction, target.shape)) - normalised(target)).mean())


def aligned_depths(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted depths, no larger than the true ones, and true depths, in pixels."""
    values, nearness = upsample(prediction, target.shape).ravel().astype(float), target.ravel().astype(float)
    if values.min() == values.max() or nearness.min() <= 0:
        return np.full(values.shape, np.nan), 1 / nearness
    (scale, shift), *_ = np.linalg.lstsq(np.stack([values, np.ones_like(values)], 1), nearness, rcond=None)
    return np.minimum(1 / np.maximum(scale * values + shift, 1e-300), 1 / nearness.min()), 1 / nearness


def abs_rel(prediction: np.ndarray, target: np.ndarray) -> float:
    found, true = aligned_depths(prediction, target)
    return float((np.abs(found - true) / true).mean())


def delta1(prediction: np.ndarray, target: np.ndarray) -> float:
    found, true = aligned_depths(prediction, target)
    return float("nan") if np.isnan(found).any() else float((np.maximum(found / true, true / found) < 1.25).mean())


OF_LABELS = ("ssi_error", "abs_rel", "delta1")  # of labels as they are, the others of standardised ones
SCORES = {
    "dice": dice,
    "dice_background": dice_background,
    "spearman": spearman,
    "pearson": pearson,
    "rmse": rmse,
    "ssi_error": ssi_error,
    "abs_rel": abs_rel,
    "delta1": delta1,
}


def _correlation(statistic, prediction: np.ndarray, target: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return float(statistic(upsample(prediction, target.shape).ravel(), target.ravel()).statistic)
