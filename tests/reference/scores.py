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


SCORES = {
    "dice": dice,
    "dice_background": dice_background,
    "spearman": spearman,
    "pearson": pearson,
    "rmse": rmse,
}


def _correlation(statistic, prediction: np.ndarray, target: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return float(statistic(upsample(prediction, target.shape).ravel(), target.ravel()).statistic)
