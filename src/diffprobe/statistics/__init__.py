"""The one set of rules for intervals, p-values and rankings that all rooms use; they hold from five images on."""

from diffprobe.statistics.differences import Paired, images_needed, paired_differences, sign_flip_p, smallest_p
from diffprobe.statistics.intervals import MINIMUM_IMAGES, SIGNIFICANT, Interval, skewed_t, skewed_t_p
from diffprobe.statistics.jackknife import jackknife_interval, jackknife_p, left_out_weights
from diffprobe.statistics.means import Means, cluster_mean, mean_intervals
from diffprobe.statistics.multiple import holm
from diffprobe.statistics.ranking import best_of, rank_value, well_covered
from diffprobe.statistics.shares import clopper_pearson, is_share, share_of_clusters
from diffprobe.statistics.steps import Steps, median_step, steps_reaching
from diffprobe.statistics.strata import Stratified, stratified_difference

__all__ = [
    "MINIMUM_IMAGES",
    "SIGNIFICANT",
    "Interval",
    "Means",
    "Paired",
    "Steps",
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
