"""Classes that a configuration names (`_target_`): their arguments are checked against signatures, and they are made.

A configuration that the user composes may name any class. One that is read from a run folder may be a stranger's, and a
name such as os.system, or diffprobe.labels.files.os.system, would run what it names; so only the classes of `CLASSES`
are made from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from omegaconf import OmegaConf

from diffprobe.errors import UserError
from diffprobe.ranges import checked_value, shown
from diffprobe.signatures import Signature, signature_of

# By group of conf/.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "labeler": (
        "diffprobe.labels.pocket.PocketLabeler",
        "diffprobe.labels.files.FilesLabeler",
        "diffprobe.labels.labeler.PerProperty",
        "diffprobe.labels.depth.TransformersDepth",
        "diffprobe.labels.onnx_depth.OnnxDepth",
        "diffprobe.labels.onnx_normals.OnnxNormals",
        "diffprobe.labels.saliency.OnnxSaliency",
        "diffprobe.labels.segmentation.TransformersSegmentation",
        "diffprobe.labels.segmentation.segmentation_labeler",
        "diffprobe.labels.shading.IntrinsicShading",
    ),
    "classifier": (
        "diffprobe.labels.pocket.PocketClassifier",
        "diffprobe.labels.classifiers.TransformersClassifier",
        "diffprobe.labels.classifiers.TorchvisionClassifier",
    ),
    "analysis": (
        "diffprobe.analyses.classification.analysis.Classification",
        "diffprobe.analyses.comparison.analysis.Comparison",
        "diffprobe.analyses.drift.analysis.Denoising",
        "diffprobe.analyses.drift.analysis.Transforms",
        "diffprobe.analyses.drift.analysis.Video",
        "diffprobe.analyses.emergence.analysis.Emergence",
        "diffprobe.analyses.intervention.analysis.Intervention",
        "diffprobe.analyses.separation.analysis.Separation",
        "diffprobe.analyses.shortcuts.analysis.Shortcuts",
        "diffprobe.analyses.similarity.analysis.Similarity",
    ),
    "model": ("diffprobe.backbone.load.load_backbone",),
    "data": (
        "diffprobe.data.images.ImageData",
        "diffprobe.data.prompts.PromptData",
    ),
    "trajectory": (
        "diffprobe.activations.sources.Generation",
        "diffprobe.activations.sources.ImageToImage",
        "diffprobe.activations.sources.Inversion",
        "diffprobe.activations.sources.Noised",
    ),
    "layers": ("diffprobe.activations.activations.LayerSelection",),
    "steps": ("diffprobe.activations.sources.StepSelection",),
    "property": ("diffprobe.properties.CustomProperty", "diffprobe.properties.PropertySelection"),
    "probe": ("diffprobe.probes.bank.ProbeConfig",),
    "control": ("diffprobe.probes.study.study.ControlSelection",),
    "features": ("diffprobe.activations.extraction.ActivationConfig",),
    "objects": (
        "diffprobe.data.coco.load_coco",
        "diffprobe.data.mask_folders.load_davis",
        "diffprobe.data.mask_folders.load_voc",
        "diffprobe.data.scenes.load_moving_scenes",
        "diffprobe.data.scenes.load_scenes",
    ),
    "masks": ("diffprobe.prototypes.pooling.MaskResizing",),
    "measure": ("diffprobe.prototypes.distances.DistanceConfig",),
    "report": ("diffprobe.report.report.ReportConfig",),
    "prototypes": ("diffprobe.prototypes.store.PrototypeConfig",),
    "statistics": ("diffprobe.prototypes.resampling.Resampling",),
    "trainer": ("lightning.Trainer",),
    "callbacks": (
        "diffprobe.activations.progress.ImageProgressBar",
        "diffprobe.activations.progress.TqdmProgressBar",
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.EarlyStopping",
    ),
    "logger": tuple(
        f"lightning.pytorch.loggers.{name}"
        for name in ("CSVLogger", "MLFlowLogger", "TensorBoardLogger", "WandbLogger")
    ),
}
OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


@dataclass(frozen=True, eq=False)  # hints are hashed
class Part:
    """A class with its arguments, each of the type and range of its signature.

    Attributes:
        given: arguments that the run gives, with a few words on what decides them.
        limits: hints of arguments for which this package takes fewer values than the class.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    def checked(self, value: Any, key: str) -> dict[str, Any]:
        """The arguments as they are used.

        Raises:
            UserError: it names no class, an unknown argument or a wrong value, or lacks an argument.
        """
        if not isinstance(value, Mapping) or not str(value.get("_target_") or "").strip():
            group = key.replace(".", "/")
            raise UserError(f"{key}={shown(value)}: names no class; choose one of the configurations in conf/{group}")
        takes = _signature(str(value["_target_"]), key)
        for name in value:
            if name not in OF_HYDRA:
                self._check_name(str(name), takes, key)
        found = {
            str(name): given if name in OF_HYDRA else _checked(given, self._hint(name, takes), f"{key}.{name}")
            for name, given in value.items()
        }
        if not value.get("_partial_"):
            lacking = [name for name, one in takes.arguments.items() if one.required and name not in value]
            lacking = [f"{key}.{name}" for name in lacking if name not in self.given]
            if lacking:
                raise UserError(f"{lacking[0]} is not set, and {takes.name} needs it; give it as {lacking[0]}=VALUE")
        return found

    def _check_name(self, name: str, takes: Signature, key: str) -> None:
        """Raises UserError for an argument that the class does not take from the configuration."""
        if name in self.given:
            raise UserError(f"{key}.{name} is set by the run itself, {self.given[name]}; leave it out")
        if name in takes.arguments or takes.open_ended:
            return
        if name == "kind":
            raise UserError(f"unknown key '{key}.kind'; the kind is a choice of its group, {key}=NAME")
        there = [each for each in takes.arguments if each not in self.given]
        near = get_close_matches(name, there, n=1)
        if near:
            raise UserError(f"unknown key '{key}.{name}'; the nearest valid key is '{key}.{near[0]}'")
        raise UserError(f"unknown key '{key}.{name}'; {takes.name} takes {', '.join(there) or 'nothing'}")

    def _hint(self, name: str, takes: Signature) -> Any:
        argument = takes.arguments.get(name)
        return self.limits.get(name, argument.hint if argument else Any)


@dataclass(frozen=True)
class Parts:
    """Any number of parts, each with a name; null leaves one out."""

    def checked(self, value: Any, key: str) -> dict[str, Any]:
        """Raises UserError for what is no mapping of parts, and for one that does not fit its class."""
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={shown(value)}: must be a mapping, {{NAME: {{_target_: MODULE.CLASS}}}}")
        return {str(name): Part().checked(each, f"{key}.{name}") for name, each in value.items() if each is not None}


def _signature(target: str, key: str) -> Signature:
    found = signature_of(target)
    if found is None:
        raise UserError(
            f"{key}._target_={target}: there is no such class; it is written MODULE.CLASS, and the folder of a module "
            "of your own is to be in PYTHONPATH"
        )
    return found


def _checked(value: Any, hint: Any, key: str) -> Any:
    """An argument, which may be a part itself, or hold some."""
    if value == "???":
        return value
    if isinstance(value, Mapping) and "_target_" in value:
        return Part().checked(value, key)
    if isinstance(value, list) and any(isinstance(each, Mapping) and "_target_" in each for each in value):
        return [_checked(each, Any, f"{key}[{at}]") for at, each in enumerate(value)]
    return checked_value(value, hint, key)


def make(chosen: Any, **given: Any) -> Any:
    """The object that a group of the configuration describes, with the arguments that the run gives.

    Raises:
        UserError: it names no class.
    """
    from hydra.utils import instantiate

    if not chosen or (not OmegaConf.is_config(chosen) and not isinstance(chosen, Mapping)) or "_target_" not in chosen:
        raise UserError(f"{shown(chosen)} names no class; choose one of the configurations in conf/")
    return instantiate(chosen, _partial_=True, _convert_="all")(**given)


def class_name(chosen: Mapping[str, Any]) -> str:
    """The name of the class that a group names, as its choice is called: 'image_to_image' of ImageToImage."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(chosen["_target_"]).rpartition(".")[2]).lower()


# `${class_name:${analysis}}`: the name of the folder that runs of an analysis go to.
OmegaConf.register_new_resolver("class_name", class_name, replace=True)


def check_recorded(config: Any, also: Collection[str] = ()) -> None:
    """Raises UserError for a class in the configuration of a run folder, at any depth, that is not in `CLASSES`.

    also: other classes that may be named, since the user names them himself.
    """
    for key, target in targets(OmegaConf.to_container(config) if OmegaConf.is_config(config) else config):
        own = CLASSES.get(key.split(".")[0], ())
        if target not in own and target not in also:
            raise UserError(
                f"{key}._target_={target}: a run folder may be a stranger's, so only classes of this package are made "
                f"from what it records, here {', '.join(own) or 'none'}"
            )


def targets(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The classes that a configuration names at any depth, each with its key."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield key, str(value["_target_"])
        for name, inner in value.items():
            yield from targets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from targets(inner, key)
