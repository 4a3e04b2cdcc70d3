"""Classes of pixels by a segmentation model of transformers: SegFormer, BEiT, UperNet, Mask2Former, OneFormer, others.

`python -m diffprobe.labels.segmentation MODEL` prints the names of a model's classes, one a line, as property.classes
takes them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Annotated, Any

import torch
from torch import Tensor

from diffprobe.backbone.load import chosen_device
from diffprobe.backbone.model_folder import check_tokenizer, fingerprint_of, read_config
from diffprobe.errors import UserError, one_line
from diffprobe.labels.class_names import class_names, numbers_in, short_names
from diffprobe.labels.depth import UNUSED
from diffprobe.labels.labeler import (
    CachedLabeler,
    Labeler,
    image_model_folder,
    load_image_model,
    processed,
    try_on_noise,
)
from diffprobe.properties import Property, property_named
from diffprobe.properties.categorical import Categorical
from diffprobe.ranges import Number, Place, Text
from diffprobe.signals import run_command

WHAT, SETTING, EXAMPLE = "segmentation model", "labeler.model", "nvidia/segformer-b0-finetuned-ade-512-512"
TASK = "the task is semantic"  # what OneFormer is told, as in OneFormerProcessor of transformers


class TransformersSegmentation:
    """Class numbers of categorical properties, whatever their names, at the size of the images.

    A class of a property is the model's class with that name or synonym. A class 'other' that the model does not have
    stands for all pixels of classes that are not listed; without one they are -1, no class.

    Args:
        model: a folder written by `save_pretrained`, or a hub id such as 'nvidia/segformer-b0-finetuned-ade-512-512',
            of AutoModelForSemanticSegmentation or AutoModelForUniversalSegmentation.
        device: as in `load_backbone`.
        batch_size: of the images that the model sees at once.

    Raises:
        UserError: the model is missing, is of another kind, cannot be loaded or run, or lacks weights.
    """

    def __init__(
        self,
        model: Annotated[str, Text()] | None,
        device: Annotated[str, Text()] = "auto",
        batch_size: Annotated[int, Number(1, 100_000)] = 8,
    ) -> None:
        task, config = _task_and_config(model)
        assert model is not None
        self.device, self.batch_size = chosen_device(device), batch_size
        is_oneformer = config["model_type"] == "oneformer"
        # OneFormer's class_info_file is for training alone, and would be looked for on the hub
        settings: dict[str, Any] = {"class_info_file": None} if is_oneformer else {}
        self.processor, self.network, _ = load_image_model(model, task, WHAT, SETTING, EXAMPLE, UNUSED, **settings)
        if not hasattr(self.processor, "post_process_semantic_segmentation"):
            raise UserError(f"{model}: {type(self.processor).__name__} cannot make classes of pixels from the output")
        _see_all(self.processor)
        self.task = _task_tokens(model, self.network.config) if is_oneformer else None
        self.names = class_names(self.network.config.id2label, model)
        self.network.to(self.device).requires_grad_(False).eval()
        self._properties: Mapping[str, Property] = {}
        try_on_noise(self._numbers, f"the {WHAT} {model!r} does not run here")

    def set_properties(self, properties: Mapping[str, Property]) -> None:
        """Sets properties of the user's own, by name; others are known ones."""
        self._properties = properties

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Raises UserError for a property of another kind, and for a class that the model does not know."""
        for name in properties:
            self._mapping(name)

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1] -> {property: class numbers [images, height, width] from -1 on}."""
        mappings = {name: self._mapping(name) for name in properties}
        numbers = torch.cat([self._numbers(batch) for batch in images.split(self.batch_size)])
        return {name: mapping[numbers] for name, mapping in mappings.items()}

    def fingerprint(self, name: str) -> str:
        """Of the model, its preparation of images, and the property's class of each class of the model."""
        task = None if self.task is None else self.task.tolist()
        described = [self._weights, self.processor.to_dict(), task, self._mapping(name).tolist()]
        described.append(self._classes(name))
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()

    @cached_property
    def _weights(self) -> str:
        return fingerprint_of(self.network)

    def _classes(self, name: str) -> tuple[str, ...]:
        item = self._properties.get(name) or property_named(name)
        if not isinstance(item, Categorical):
            raise UserError(
                f"a {WHAT} labels classes and cannot label {name}, which is {item.kind}; use "
                "property.kind=categorical, or one labeler a property: labeler=image_models"
            )
        return item.classes

    def _mapping(self, name: str) -> Tensor:
        """The number in property `name` of each class of the model, float32; -1 for none."""
        return torch.tensor(numbers_in(name, self._classes(name), self.names), dtype=torch.float32)

    @torch.no_grad()
    def _numbers(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> numbers of the model's classes [images, height, width]."""
        inputs = processed(self.processor, images)
        if self.task is not None:
            inputs["task_inputs"] = self.task.expand(len(images), -1)
        output = self.network(**inputs.to(self.device))
        for values in (output.get(key) for key in ("logits", "class_queries_logits", "masks_queries_logits")):
            if values is not None and not values.isfinite().all():
                raise UserError(f"the {WHAT} {self.network.name_or_path} gives logits that are not finite")
        # Sizes by position: processors give this argument different names
        maps = self.processor.post_process_semantic_segmentation(output, [tuple(images.shape[-2:])] * len(images))
        return torch.stack(list(maps)).long().cpu()


def segmentation_labeler(
    model: Annotated[str, Text()] | None,
    cache: Annotated[str, Place()] | None = None,
    device: Annotated[str, Text()] = "auto",
    batch_size: Annotated[int, Number(1, 100_000)] = 8,
) -> Labeler:
    """`TransformersSegmentation` that keeps its maps in the folder `cache`, see `CachedLabeler`; None to keep none."""
    labeler = TransformersSegmentation(model, device, batch_size)
    return labeler if cache is None else CachedLabeler(labeler, cache)


def _task_and_config(model: str | None) -> tuple[str, dict[str, Any]]:
    """What its loader is called, and the configuration of a model. Raises UserError for what is no such model."""
    if model is None:
        raise UserError(f"no {WHAT} is set; give {SETTING}=FOLDER or a hub id such as {EXAMPLE}")
    config = read_config(image_model_folder(model, WHAT, SETTING, EXAMPLE, ["config.json"]) / "config.json")
    from transformers.models.auto import modeling_auto

    config: dict[str, Any] = config if isinstance(config, dict) else {}
    kind, network = config.get("model_type"), (config.get("architectures") or [None])[0]
    tasks: dict[str, Mapping[Any, Any]] = {
        "SemanticSegmentation": modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
        "UniversalSegmentation": modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
    }
    for task, known in tasks.items():
        if kind in known and network in (None, known[kind]):
            return task, config
    raise UserError(f"{model} is no {WHAT}: its config.json is of {network or kind or 'no model of transformers'}")


def _see_all(processor: Any) -> None:
    """Lets a processor that cuts out the middle of a resized image resize the whole image to that size.

    The map would else be of the middle, and be stretched over the image (MobileViT, MobileNetV2).
    """
    if getattr(processor, "do_center_crop", False):
        processor.do_center_crop, processor.size = False, processor.crop_size


def _task_tokens(model: str, config: Any) -> Tensor:
    """OneFormer's tokens of `TASK`, [1, length]; 0 after the end, as in OneFormerProcessor of transformers."""
    from transformers import CLIPTokenizer

    folder = image_model_folder(model, WHAT, SETTING, EXAMPLE, ["*.json", "merges.txt"])
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a broken file makes the library raise
        raise UserError(f"cannot load the tokenizer of {model}: {one_line(error)}") from error
    check_tokenizer(f"the tokenizer of {model}", tokenizer, SimpleNamespace(vocab_size=config.text_encoder_vocab_size))
    length = config.task_seq_len
    tokens = tokenizer([TASK], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return tokens["input_ids"] * tokens["attention_mask"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diffprobe.labels.segmentation", description="Name the classes.")
    parser.add_argument("model", help="a folder of a segmentation model of transformers, or a hub id")
    model = parser.parse_args(arguments).model
    try:
        _, config = _task_and_config(model)
        names = short_names(class_names(config.get("id2label"), model), model)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
