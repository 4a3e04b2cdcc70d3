"""Tables 1 to 5 of Bonechi, Andreini, Corradini and Scarselli, "Diff-Props: is Semantics Preserved within a Diffusion
Model?", KES 2024: the separation of objects in Stable Diffusion.

One evaluation at t = 0 of images of 512x512, 1000 of Pascal VOC 2012 and 1000 of COCO 2017. Layer groups have this
project's names; the paper's correlation distance is `pearson`, since its sizes rule out distance correlation. Values
that contradict the rest of their table are kept as printed, with the likely value beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffprobe.prototypes.sets import PAIRS, SETS

MODEL = "Stable Diffusion"
MEASURE = "pearson"  # of tables 2 to 5
TIMESTEP = 0


@dataclass(frozen=True, slots=True)
class PublishedMean:
    """Mean and standard deviation of a set; `likely` is what a misprint probably stands for."""

    mean: float
    std: float
    likely: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PublishedTest:
    """Kruskal-Wallis p (0 where it underflowed) and Dunn index of two sets; `likely_p` where p is a misprint."""

    p: float
    dunn: float
    likely_p: float | None = None


PublishedMeans = Mapping[str, Mapping[str, PublishedMean]]  # layer group -> set
PublishedTests = Mapping[tuple[str, str], Mapping[tuple[str, str], PublishedTest]]  # (layer group, measure) -> pair

# Tables 2, 3 and 4: mean, std of the four sets. "13+32+64" in table 2 is 16+32+64.
_MEANS = {
    "voc": {
        "all": (0.29, 0.09, 0.49, 0.14, 0.54, 0.12, 0.67, 0.10),
        "64": (0.06, 0.03, 0.16, 0.06, 0.18, 0.18, 0.08, 0.21),
        "32": (0.31, 0.10, 0.55, 0.16, 0.60, 0.14, 0.73, 0.12),
        "16": (0.40, 0.11, 0.56, 0.16, 0.66, 0.15, 0.78, 0.09),
        "encoder16": (0.42, 0.10, 0.61, 0.13, 0.74, 0.14, 0.81, 0.11),
        "decoder16": (0.39, 0.12, 0.56, 0.16, 0.66, 0.15, 0.78, 0.09),
        "down_blocks.2.resnets.0": (0.42, 0.10, 0.59, 0.13, 0.72, 0.15, 0.77, 0.12),
        "down_blocks.2.resnets.1": (0.42, 0.11, 0.63, 0.15, 0.75, 0.14, 0.85, 0.10),
    },
    "coco": {
        "all": (0.38, 0.11, 0.62, 0.12, 0.58, 0.12, 0.71, 0.09),
        "64": (0.11, 0.05, 0.19, 0.07, 0.18, 0.08, 0.22, 0.08),
        "32": (0.41, 0.12, 0.69, 0.14, 0.64, 0.14, 0.80, 0.12),
        "16": (0.45, 0.14, 0.70, 0.14, 0.68, 0.12, 0.82, 0.09),
        "encoder16": (0.52, 0.13, 0.72, 0.11, 0.77, 0.13, 0.84, 0.10),
        "decoder16": (0.45, 0.15, 0.70, 0.14, 0.67, 0.12, 0.82, 0.09),
        "down_blocks.2.resnets.0": (0.50, 0.13, 0.67, 0.12, 0.75, 0.15, 0.80, 0.12),
        "down_blocks.2.resnets.1": (0.54, 0.12, 0.78, 0.10, 0.79, 0.12, 0.89, 0.08),
    },
}
# Scrambled in print: dcdi is the largest in every other row, and no other std is as large.
_LIKELY_MEANS = {("voc", "64", "dcsi"): (0.18, 0.08), ("voc", "64", "dcdi"): (0.21, 0.08)}

# Tables 1 and 5: p and Dunn index of the six pairs of sets, in the order of PAIRS.
_TESTS = {
    "voc": {
        ("all", "euclidean"): (
            (3.1e-32, 1.3e-20, 1.9e-52, 0.02742, 0, 9.1e-18),
            (0.30312, 0.65856, 0.60352, 0.04510, 0.23696, 0.21439),
        ),
        ("all", "pearson"): (
            (1.3e-33, 9.2e-22, 2.0e-54, 0.00028, 0, 1.5e-18),
            (0.33343, 0.80092, 0.79657, 0.08312, 0.29406, 0.26777),
        ),
        ("all", "manhattan"): (
            (1.2e-38, 2.2e-23, 4.4e-54, 0.01164, 0, 1.0e-19),
            (0.41411, 0.80684, 0.66042, 0.06120, 0.27972, 0.22345),
        ),
        ("all", "cosine"): (
            (3.7e-33, 9.5e-22, 3.3e-54, 0.00012, 0, 2.0e-17),
            (0.33027, 0.78081, 0.79998, 0.08946, 0.29364, 0.26179),
        ),
        ("encoder16", "pearson"): (
            (6.7e-29, 2.8e-22, 1.5e-31, 4.5e-13, 0, 0.00011),
            (0.36537, 0.84087, 0.69247, 0.25030, 0.35424, 0.12253),
        ),
        ("down_blocks.2.resnets.0", "pearson"): (
            (4.9e-25, 1.0e-20, 9.1e-49, 1.1e-13, 0, 0.02609),
            (0.29680, 0.79547, 0.64157, 0.24274, 0.32514, 0.08500),
        ),
        ("down_blocks.2.resnets.1", "pearson"): (
            (4.6e-31, 7.4e-23, 5.7e-33, 3.9e-11, 0, 8.2e-9),
            (0.45131, 0.89908, 0.71561, 0.25346, 0.35593, 0.15392),
        ),
    },
    "coco": {
        ("all", "euclidean"): (
            (1.4e-45, 5.6e-17, 2.3e-60, 0.00516, 0, 3.8e-15),
            (0.35941, 0.37309, 0.48857, 0.07081, 0.11407, 0.19077),
        ),
        ("all", "pearson"): (
            (2.3e-53, 4.0e-21, 2.8e-70, 0.00195, 0, 5.4e-27),
            (0.50012, 0.59327, 0.67989, 0.08545, 0.19403, 0.27705),
        ),
        ("all", "manhattan"): (
            (9.6e-51, 7.0e-20, 1.6e-64, 0.01620, 0, 5.6e-16),
            (0.39991, 0.42288, 0.56369, 0.05874, 0.13810, 0.20624),
        ),
        ("all", "cosine"): (
            (2.3e-52, 4.5e-21, 7.4e-70, 0.00816, 0, 1.4e-25),
            (0.49589, 0.59863, 0.67637, 0.07451, 0.19816, 0.27002),
        ),
        ("encoder16", "pearson"): (
            (1.3e-34, 1.1e-19, 3.2e-34, 0.00029, 0, 3.3e-7),
            (0.37752, 0.59547, 0.59327, 0.09334, 0.22620, 0.13545),
        ),
        ("down_blocks.2.resnets.0", "pearson"): (
            (2.7e-25, 1.0e-17, 1.0e-47, 2.2e-7, 0, 0.00769),
            (0.29486, 0.52241, 0.54425, 0.14350, 0.22631, 0.08647),
        ),
        ("down_blocks.2.resnets.1", "pearson"): (
            (3.0e-43, 1.0e-20, 8.9e-58, 0.36489, 0, 4.0e-16),
            (0.41562, 0.69764, 0.64197, 0.01823, 0.20175, 0.19083),
        ),
    },
}
# These imply about 50 pairs in scsi, where all other columns imply 73 to 107: digits of the exponent.
_LIKELY_P = {
    ("voc", "encoder16", ("scsi", "dcdi")): 1.5e-51,
    ("voc", "down_blocks.2.resnets.1", ("scsi", "dcdi")): 5.7e-53,
    ("coco", "encoder16", ("scsi", "dcdi")): 3.2e-54,
}


def published_means(dataset: str) -> PublishedMeans:
    """Tables 2, 3 and 4 by layer group and set, for `pearson`; empty for other data sets than voc and coco."""
    return {
        group: {
            name: PublishedMean(numbers[2 * at], numbers[2 * at + 1], _LIKELY_MEANS.get((dataset, group, name)))
            for at, name in enumerate(SETS)
        }
        for group, numbers in _MEANS.get(dataset, {}).items()
    }


def published_tests(dataset: str) -> PublishedTests:
    """Tables 1 and 5 by (layer group, measure) and pair of sets; empty for other data sets than voc and coco."""
    return {
        (group, measure): {
            pair: PublishedTest(p, dunn, _LIKELY_P.get((dataset, group, pair)))
            for pair, p, dunn in zip(PAIRS, *numbers, strict=True)
        }
        for (group, measure), numbers in _TESTS.get(dataset, {}).items()
    }
