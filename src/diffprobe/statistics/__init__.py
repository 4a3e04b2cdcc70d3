"""Rules for intervals, p-values and rankings that the whole package uses; they hold from five images on."""

from diffprobe.statistics.differences import (
    PairedDifferences,
    holm,
    images_needed,
    paired_differences,
    sign_flip_p,
    smallest_p,
)
from diffprobe.statistics.intervals import (
    MINIMUM_IMAGES,
    SIGNIFICANT,
    Interval,
    MeanIntervals,
    clopper_pearson,
    cluster_mean,
    is_share,
    mean_intervals,
    share_of_clusters,
    skewed_t,
    skewed_t_p,
)
from diffprobe.statistics.jackknife import jackknife_interval, jackknife_p, left_out_weights
from diffprobe.statistics.steps import StepInterval, best_of, median_step, rank_value, steps_reaching, well_covered
from diffprobe.statistics.strata import Stratified, stratified_difference

__all__ = [
    "MINIMUM_IMAGES",
    "SIGNIFICANT",
    "Interval",
    "MeanIntervals",
    "PairedDifferences",
    "StepInterval",
    "Stratified",
    "best_of",
    "clopper_pearson",
    "cluster_mean",
    "holm",
    "images_needed",
    "is_share",
    "jackknife_interval",
    "jackknife_p",
    "left_out_weights",
    "mean_intervals",
    "median_step",
    "paired_differences",
    "rank_value",
    "share_of_clusters",
    "sign_flip_p",
    "skewed_t",
    "skewed_t_p",
    "smallest_p",
    "steps_reaching",
    "stratified_difference",
    "well_covered",
]
