"""Draws what labelers and classifiers see: python -m diffprobe.try_labels --images PHOTOS labeler=... property=...

A picture of a few images beside their maps, and a few numbers, with the settings of train.py, so that whether an image
model is wired rightly is seen before a run. Settings are composed, checked and made as those of train.py are.
`classifier=CHOICE`, as of analyze.py analysis=classification, names what the images show; then maps are drawn only if a
labeler or property is given too. Without --images the model of the settings makes the images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from diffprobe.cli.composing import compose_typed
from diffprobe.cli.errors import explanation
from diffprobe.errors import UserError
from diffprobe.parts import Part
from diffprobe.ranges import shown, typed_path
from diffprobe.runs.settings import ProbingSettings, checked
from diffprobe.signals import run_command
from diffprobe.terminal import module_command

if TYPE_CHECKING:
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.cli.few_images import FewImages
    from diffprobe.labels.trial import ClassTrial, PropertyTrial, Seconds
    from diffprobe.properties import Property

PHOTO_SIZE, POCKET_SIZE = 512, 64  # of images of Stable Diffusion 1.x, and of the pocket world
POCKET = "diffprobe.labels.pocket."
NOT_SHOWN = ("device", "batch_size", "cache")  # what changes no map
NAMED = 3  # images in a line


@dataclass
class TrialSettings(ProbingSettings):
    """Everything `train.py` takes, and a classifier."""

    classifier: Annotated[Any, Part()] | None = None


@dataclass(frozen=True)
class Asked:
    """What the command is to do.

    Attributes:
        overrides: as typed for `train.py`.
        images: a folder or list of photographs; None: `data` says what they are.
        count: of images, at most.
        size: of photographs; None: 64 pixels for the built-in labeler and classifier, else 512.
        out: the picture.
    """

    overrides: Sequence[str]
    images: Path | None = None
    count: int = 6
    size: int | None = None
    out: Path = Path("labels.png")

    def typed(self, *groups: str) -> bool:
        """Whether a choice or a setting of one of the groups is typed."""
        keys = [item.lstrip("+~").partition("=")[0] for item in self.overrides]
        return any(key.replace("/", ".").split(".")[0] in groups for key in keys)

    @property
    def wants_maps(self) -> bool:
        return not self.typed("classifier") or self.typed("labeler", "property")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=module_command("diffprobe.try_labels"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", help="settings as of train.py, GROUP=CHOICE and KEY=VALUE")
    parser.add_argument("--images", type=typed_path, help="folder or list of photographs, as data.images")
    parser.add_argument("--count", type=_positive, default=6, help="images at most (6)")
    parser.add_argument("--size", type=_positive, help="pixels a side of photographs (512; 64 for the built-in models)")
    parser.add_argument("--out", type=typed_path, default=Path("labels.png"), help="the picture, a .png (labels.png)")
    asked = Asked(**vars(parser.parse_intermixed_args(arguments)))
    try:
        try_labels(asked)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # Hydra's, which are told in one line
        line = explanation(error, "analyze" if asked.typed("classifier") else "train")
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 1
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def try_labels(asked: Asked) -> None:
    """Labels and classifies, prints what was found and the path of the picture.

    Raises:
        UserError: of what the user got wrong, before any image is labelled; or the labeler gives what no label is.
    """
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.cli.few_images import few_images
    from diffprobe.labels.trial import try_classifier, try_labeler
    from diffprobe.report.label_trial import label_figure, save_label_figure
    from diffprobe.runs.folder import read_settings
    from diffprobe.runs.trainers import quiet_libraries

    _check_out(asked.out)
    settings = trial_settings(asked)
    with quiet_libraries():
        inputs = Inputs(settings, lambda line: print(line, flush=True), read_settings)
        items = inputs.properties if asked.wants_maps else []
        few = few_images(inputs, asked.count, _size(asked, settings))
        loading = _load_labeler(inputs, items, few)
        loading_classifier = _load_classifier(inputs, few) if asked.typed("classifier") else None
        images = few.images()
        trials = try_labeler(inputs.labeler, items, images, few.names, loading) if items else []
        classes = None
        if loading_classifier is not None:
            classes = try_classifier(inputs.classifier, images, loading_classifier)
    print(f"{len(few.names)} images of {few.size} pixels")
    for trial in trials:
        print("\n".join(_lines(trial, settings.labeler, few.names)))
    if classes is not None:
        print("\n".join(_lines_of_classes(classes, settings.classifier, few.names)))
    save_label_figure(label_figure(images, few.names, trials, classes), asked.out)
    print(f"picture: {asked.out}")


def trial_settings(asked: Asked) -> Any:
    """The settings of the overrides, and of --images.

    Raises:
        UserError: as of `train.py`, or images are given twice.
    """
    # train.py has no group of classifiers in its defaults, to which a choice is added
    overrides = [f"+{item}" if item.startswith("classifier=") else item for item in asked.overrides]
    if asked.images is None:
        return checked(compose_typed(overrides)[0], TrialSettings)
    twice = [item for item in overrides if item.startswith(("data=", "data.images="))]
    if twice:
        raise UserError(f"--images and {twice[0]} both say which images to take; leave one of them out")
    config, _ = compose_typed(["data=images", *overrides])
    config.data.images = str(asked.images)
    return checked(config, TrialSettings)


def _check_out(path: Path) -> None:
    """Raises UserError for a picture that could not be written."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: the picture is a PNG; give a name that ends in .png")
    if path.is_dir() or not path.absolute().parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"lies in no folder that there is ({path.absolute().parent})"
        raise UserError(f"--out {path} {problem}; give the name of a file in a folder that there is")


def _size(asked: Asked, settings: Any) -> int | None:
    """Pixels a side of photographs; None of images that the model makes, unless a size is typed."""
    if asked.size is not None or "images" not in settings.data:
        return asked.size
    used = [settings.labeler] if asked.wants_maps else []
    used += [settings.classifier] if asked.typed("classifier") else []
    built_in = any(str(each["_target_"]).startswith(POCKET) for each in used)
    return POCKET_SIZE if built_in else PHOTO_SIZE


def _load_labeler(inputs: Inputs, items: Sequence[Property], few: FewImages) -> list[float]:
    """Checks that all properties of the images can be labelled. Returns how many seconds each of them took to load."""
    from diffprobe.labels.labeler import GeometryAwareLabeler

    seconds = []
    for item in items:
        start = time.perf_counter()
        if isinstance(inputs.labeler, GeometryAwareLabeler):
            inputs.labeler.set_geometries(few.geometries)
        inputs.labeler.check(few.names, [item.name], few.size)
        seconds.append(time.perf_counter() - start)
    return seconds


def _load_classifier(inputs: Inputs, few: FewImages) -> float:
    """Checks that the images can be classified. Returns how many seconds the classifier took to load."""
    start = time.perf_counter()
    inputs.classifier.check(few.size)
    return time.perf_counter() - start


def _lines(trial: PropertyTrial, labeler: Any, names: Sequence[str]) -> list[str]:
    """The model of a property, what it took, and what is odd about its maps."""
    from diffprobe.report.label_trial import contents

    item = trial.item
    part = labeler.get(item.name)
    lines = [f"{item.name}: {_described(part if isinstance(part, Mapping) else labeler)}", _in_seconds(trial.seconds)]
    if trial.folder is not None:
        lines.append(f"  kept in {trial.folder}, where {trial.found} of {len(names)} were before")
    width = max(map(len, names))
    for name, label in zip(names, trial.maps, strict=True):
        lines.append(f"  {name:{width}}  {contents(item, label.numpy())}")
    odd = {
        f"have {item.flat[0]}": item.one_valued(trial.maps),
        "have values that are infinite or not numbers": ~trial.maps.flatten(1).isfinite().all(1),
    }
    for what, rows in odd.items():
        found = [name for name, row in zip(names, rows.tolist(), strict=True) if row]
        if found:
            more = ", ..." if len(found) > NAMED else ""
            lines.append(f"  ! {len(found)} of {len(names)} maps {what}: {', '.join(found[:NAMED])}{more}")
    return lines


def _lines_of_classes(trial: ClassTrial, classifier: Any, names: Sequence[str]) -> list[str]:
    """The classifier, what it took, and the likeliest classes of every image."""
    width = max(map(len, names))
    lines = [f"classifier {trial.classifier}: {_described(classifier)}", _in_seconds(trial.seconds)]
    for name, top in zip(names, trial.top, strict=True):
        seen = ", ".join(f"{label.split(',')[0]} {probability:.2f}" for label, probability in top)
        lines.append(f"  {name:{width}}  {seen}")
    return lines


def _described(part: Any) -> str:
    """The class of a part of the configuration, and its settings that are set."""
    given = {key: value for key, value in part.items() if key[0] != "_" and key not in NOT_SHOWN and value is not None}
    own = [f"{key}={shown(value)}" for key, value in given.items() if not isinstance(value, Mapping)]
    return " ".join([str(part["_target_"]).rpartition(".")[2], *own])


def _in_seconds(seconds: Seconds) -> str:
    others = "" if seconds.others is None else f", {seconds.others:.2f} s for each after it"
    return f"  loaded in {seconds.loading:.2f} s; {seconds.first:.2f} s for the first image{others}"


if __name__ == "__main__":
    sys.exit(run_command(main))
