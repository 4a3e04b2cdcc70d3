"""How the four sets of pairs, and objects against themselves, look in every figure: by more than colour."""

from __future__ import annotations

from diffprobe.report.looks import Look
from diffprobe.report.style import BLACK, BLUE, ORANGE, PURPLE, SKY, VERMILION

SET_LABELS = {
    "scsi": "same class, same image (scsi)",
    "scdi": "same class, different images (scdi)",
    "dcsi": "different classes, same image (dcsi)",
    "dcdi": "different classes, different images (dcdi)",
    "self": "an object and itself, changed",
    "other": "an object and another instance",
}
# Blue tones: same class; red tones: different classes. Light and dashed: within one image.
SET_LOOKS = {
    "scsi": Look(SKY, (0, (3, 1)), "^"),
    "scdi": Look(BLUE, (0, (5, 2)), "s"),
    "dcsi": Look(ORANGE, (0, (1, 1)), "v"),
    "dcdi": Look(VERMILION, "-.", "D"),
    "self": Look(BLACK, "-", "o", band=0.2),
    "other": Look(PURPLE, "--", "P"),
}
