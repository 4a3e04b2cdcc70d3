"""The parts that a configuration names by class (`_target_`): made of this package's own classes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from diffprobe.errors import UserError

# By group of conf/. A configuration may come from a stranger's run folder, and a name such as os.system, or
# diffprobe.labels.files.os.system, would run what it says; so a name that begins with the package is not enough.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "labeler": (
        "diffprobe.labels.pocket.PocketLabeler",
        "diffprobe.labels.files.FilesLabeler",
        "diffprobe.labels.per_property.PerProperty",
        "diffprobe.labels.depth.TransformersDepth",
        "diffprobe.labels.saliency.OnnxSaliency",
        "diffprobe.labels.shading.IntrinsicShading",
    ),
    "classifier": (
        "diffprobe.labels.classifiers.pocket.PocketClassifier",
        "diffprobe.labels.classifiers.image_models.TransformersClassifier",
        "diffprobe.labels.classifiers.torchvision_models.TorchvisionClassifier",
    ),
    "logger": ("diffprobe.report.tracking.CsvTracker", "diffprobe.report.tracking.WandbTracker"),
}


def make(chosen: Any, group: str, **options: Any) -> Any:
    """What a group of the configuration stands for.

    Args:
        chosen: the group's settings.
        group: its name, a key of `CLASSES`.
        options: of Hydra's `instantiate`.

    Raises:
        UserError: it names no class, or one that is not in `CLASSES`, at any depth.
    """
    from hydra.utils import instantiate

    plain = OmegaConf.to_container(chosen, resolve=True) if OmegaConf.is_config(chosen) else chosen
    if not isinstance(plain, dict) or "_target_" not in plain:
        raise UserError(f"{group} names no class; choose one of the configurations in conf/{group}")
    for key, target in _targets(plain, group):
        if target not in CLASSES[group]:
            raise UserError(
                f"{key}._target_={target}: only classes of this package can be named in a configuration, here "
                f"{', '.join(CLASSES[group])}"
            )
    return instantiate(chosen, **options)


def _targets(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield key, value["_target_"]
        for name, inner in value.items():
            yield from _targets(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _targets(inner, key)
