"""Classes of pixels by models of transformers: as their own processors and models say, by the names of a property."""

import json

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from safetensors.torch import load_file, save_file

from diffprobe.errors import UserError
from diffprobe.labels.labeler import CachedLabeler
from diffprobe.labels.segmentation import TransformersSegmentation, main, segmentation_labeler
from diffprobe.properties import CustomProperty
from diffprobe.properties.categorical import Categorical
from tests.commands import ROOT
from tests.labels.tiny_onnx import linear, resized
from tests.labels.tiny_segmentation import CLASSES, NETWORKS, TOKENIZER, save_model

IMAGES = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b", "c"]
ALL = ("wall", "person", "sky", "screen door", "screen")


def segments(*classes, name="segments"):
    return {name: Categorical(name, classes=classes or ALL)}


def labelled(folder, properties, **settings):
    """The maps of a labeler that was told of the properties."""
    labeler = TransformersSegmentation(folder, device="cpu", **settings)
    labeler.set_properties(properties)
    labeler.check(NAMES, list(properties), 48)
    return labeler(IMAGES, NAMES, list(properties))


def pictures():
    return [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in IMAGES]


def by_transformers(folder, kind):
    """One picture at a time through the processor, network and post-processing of transformers."""
    import transformers

    network = getattr(transformers, NETWORKS[kind][1]).from_pretrained(folder).eval()
    more = {"class_info_file": None} if kind == "oneformer" else {}
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **more)
    maps = []
    for picture in pictures():
        if kind == "oneformer":
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
            both = transformers.OneFormerProcessor(processor, tokenizer, task_seq_length=24)
            inputs = both(picture, ["semantic"], return_tensors="pt")
        elif kind == "mobilevit":  # all of the picture instead of its middle
            whole = picture.resize((64, 64), Image.Resampling.BILINEAR)
            inputs = processor(whole, do_resize=False, do_center_crop=False, return_tensors="pt")
        else:
            inputs = processor(picture, return_tensors="pt")
        with torch.no_grad():
            output = network(**inputs)
        maps += processor.post_process_semantic_segmentation(output, [(48, 48)])
    return torch.stack(maps)


@pytest.mark.parametrize("kind", NETWORKS)
def test_classes_are_those_that_transformers_finds_in_each_picture(tmp_path, kind):
    folder = save_model(tmp_path, kind)
    found = labelled(folder, segments(), batch_size=2)["segments"]
    expected = by_transformers(folder, kind)
    assert len(expected.unique()) > 1
    assert found.shape == (3, 48, 48)
    assert found.dtype == torch.float32
    assert (found != expected).float().mean() < 1e-3  # a batch may round two equal logits otherwise


def test_segformer_step_by_step(tmp_path):
    """Resize, normalise, and the class with the largest logit after bilinear resizing, without transformers' code."""
    from transformers import SegformerForSemanticSegmentation

    folder = save_model(tmp_path)
    network = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    found = labelled(folder, segments())["segments"]
    for picture, numbers in zip(pictures(), found, strict=True):
        values = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR), np.float32) / 255
        values = (values - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.no_grad():
            logits = network(torch.from_numpy(values).float().permute(2, 0, 1)[None]).logits[0].numpy()
        assert logits.shape == (5, 16, 16)
        assert (resized(logits, 48, linear, 1).argmax(0) != numbers.numpy()).mean() < 1e-3


def test_pixels_have_the_numbers_of_the_property(tmp_path):
    folder = save_model(tmp_path)
    properties = segments("SKY", "individual", name="two") | segments("other", "wall", "screen", name="three")
    maps = labelled(folder, segments() | properties)
    numbers = maps["segments"].long()
    assert {0, 1, 4} < set(numbers.unique().tolist())
    assert torch.equal(maps["two"], torch.tensor([-1.0, 1.0, 0.0, -1.0, -1.0])[numbers])
    assert torch.equal(maps["three"], torch.tensor([1.0, 0.0, 0.0, 0.0, 2.0])[numbers])


def test_maps_are_kept_and_read_again(tmp_path):
    folder = save_model(tmp_path / "model")

    def labeler():
        made = segmentation_labeler(folder, str(tmp_path / "labels"), "cpu")
        made.set_properties(segments("wall", "sky"))
        return made

    first = labeler()(IMAGES, NAMES, ["segments"])["segments"]
    again = labeler()
    again.labeler.network = None  # whoever computes fails
    again.labeler._weights = first_weights = labeler().labeler._weights
    assert first_weights
    assert torch.equal(again(IMAGES, NAMES, ["segments"])["segments"], first)
    assert first.min() == -1
    assert not isinstance(segmentation_labeler(folder, None, "cpu"), CachedLabeler)


def test_the_fingerprint_tells_weights_preparation_and_classes(tmp_path):
    folder, other = save_model(tmp_path / "a"), save_model(tmp_path / "b", seed=1)
    prepared = save_model(tmp_path / "c")
    file = tmp_path / "c" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "size": 96}))
    renamed = save_model(tmp_path / "d", classes={**CLASSES, 0: "wall, partition"})

    def fingerprint(folder, *classes, name="segments", **settings):
        labeler = TransformersSegmentation(folder, device="cpu", **settings)
        labeler.set_properties(segments(*classes, name=name))
        return labeler.fingerprint(name)

    lists = [("wall", "sky"), ("sky", "wall"), ("wall", "sky", "other"), ("wall", "Sky"), ALL]
    found = [fingerprint(folder, *each) for each in lists]
    found += [fingerprint(each, "wall", "sky") for each in (other, prepared, renamed)]
    assert len(set(found)) == len(found)
    assert fingerprint(folder, "wall", "sky", batch_size=1) == found[0]
    assert fingerprint(folder, "wall", "sky", name="another") == found[0]


def test_oneformer_needs_neither_the_hub_nor_the_file_of_its_training_classes(tmp_path):
    folder = save_model(tmp_path, "oneformer")
    without = labelled(folder, segments())["segments"]
    info = {str(number): {"name": name, "isthing": 0} for number, name in CLASSES.items()}
    (tmp_path / "ade20k_panoptic.json").write_text(json.dumps(info))
    assert torch.equal(labelled(folder, segments())["segments"], without)


def test_oneformer_is_told_the_task(tmp_path):
    from transformers import CLIPTokenizer

    labeler = TransformersSegmentation(save_model(tmp_path, "oneformer"), device="cpu")
    words = CLIPTokenizer.from_pretrained(TOKENIZER)("the task is semantic").input_ids
    assert labeler.task is not None
    assert labeler.task.tolist() == [(words + [0] * 24)[:24]]


def test_oneformer_with_another_tokenizer_is_refused(tmp_path):
    folder = save_model(tmp_path, "oneformer")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "text_encoder_vocab_size": 49408, "is_training": False})
    )
    with pytest.raises(UserError, match=r"the tokenizer of .* has 130 words and its text encoder 49408"):
        TransformersSegmentation(folder, device="cpu")
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="tokenizer"):
        TransformersSegmentation(folder, device="cpu")


def test_the_positions_that_older_files_of_swin_hold_are_no_foreign_weights(tmp_path):
    folder = save_model(tmp_path, "mask2former")
    expected = labelled(folder, segments())["segments"]
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tables = [name for name in tensors if name.endswith("relative_position_bias_table")]
    assert tables
    tensors |= {name.replace("bias_table", "index"): torch.zeros(16, 16, dtype=torch.long) for name in tables}
    save_file(tensors, file, {"format": "pt"})
    assert torch.equal(labelled(folder, segments())["segments"], expected)


def refusal(call, *arguments, **settings):
    with pytest.raises(UserError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_segmentation_model_is_refused_before_any_work(tmp_path):
    def refused(model):
        return refusal(TransformersSegmentation, model, device="cpu")

    assert refused(None).startswith(
        "no segmentation model is set; give labeler.model=FOLDER or a hub id such as nvidia/"
    )
    assert refused("nowhere").startswith("no segmentation model 'nowhere': neither a folder here nor a hub id")
    assert refused(str(tmp_path)).endswith(f"{tmp_path} has no config.json")
    config = tmp_path / "config.json"
    for content, kind in (
        ({"model_type": "dpt", "architectures": ["DPTForDepthEstimation"]}, "DPTForDepthEstimation"),
        ({"model_type": "segformer", "architectures": ["SegformerForImageClassification"]}, "SegformerForImageClass"),
        ({"model_type": "clip"}, "clip"),
        ([], "no model of transformers"),
    ):
        config.write_text(json.dumps(content))
        assert f"{tmp_path} is no segmentation model: its config.json is of {kind}" in refused(str(tmp_path))
    config.write_text("{")
    assert "is not JSON" in refused(str(tmp_path))


def test_weights_that_are_missing_or_not_finite_are_refused(tmp_path):
    folder = save_model(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    infinite = {**tensors, "decode_head.classifier.bias": torch.full((5,), torch.inf)}
    save_file(infinite, file, {"format": "pt"})
    assert "gives logits that are not finite" in refusal(TransformersSegmentation, folder, device="cpu")
    save_file({name: each for name, each in tensors.items() if "classifier" not in name}, file, {"format": "pt"})
    lacks = refusal(TransformersSegmentation, folder, device="cpu")
    assert "lacks 2 of its" in lacks
    assert "decode_head.classifier.bias" in lacks


def test_properties_of_other_kinds_and_classes_that_are_unknown_are_refused_by_check(tmp_path):
    labeler = TransformersSegmentation(save_model(tmp_path), device="cpu")
    labeler.set_properties(segments("wall", "skies"))
    unknown = refusal(labeler.check, NAMES, ["segments"], 48)
    assert unknown == "property segments: the model knows no class 'skies' among its 5; did you mean sky?"
    assert refusal(labeler.check, NAMES, ["albedo"], 48) == (
        "a segmentation model labels classes and cannot label albedo, which is continuous; use "
        "property.kind=categorical, or one labeler a property: labeler=image_models"
    )


def test_the_command_prints_names_that_property_classes_takes(tmp_path, capsys):
    folder = save_model(tmp_path / "model")
    for file in (tmp_path / "model").iterdir():
        if file.name != "config.json":
            file.unlink()  # weights are not read
    assert main([folder]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines() == [*ALL]
    (tmp_path / "classes.txt").write_text(printed)
    (item,) = CustomProperty("segments", "categorical", str(tmp_path / "classes.txt")).properties
    assert isinstance(item, Categorical)
    assert item.classes == ALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "vit"}, "is no segmentation model"),
        ({"id2label": None}, "does not name its classes"),
        ({"id2label": {"0": "bat", "1": "bat"}}, "has two classes called 'bat'"),
    ],
)
def test_the_command_refuses_a_configuration_without_names_in_one_line(tmp_path, capsys, change, message):
    folder = save_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    capsys.readouterr()  # what saving said
    assert main([folder]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert main(["nowhere"]) == 1
    assert capsys.readouterr().err.startswith("no segmentation model 'nowhere'")


def configured(*overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return instantiate(compose("train", ["model.device=cpu", *overrides]).labeler)


def test_it_is_a_labeler_by_itself_or_a_part_beside_others(tmp_path):
    folder = save_model(tmp_path / "model")
    cache = f"labeler.cache={tmp_path / 'labels'}"
    alone = configured("labeler=segmentation", f"labeler.model={folder}", cache)
    part = ("+labeler/own@labeler.segments=segmentation", f"labeler.segments.model={folder}")
    files = ("+labeler/own@labeler.mine=files", f"labeler.mine.path={tmp_path / 'maps'}")
    beside = configured("labeler=image_models", *part, *files, cache)
    (tmp_path / "maps" / "mine").mkdir(parents=True)
    for name in NAMES:
        np.save(tmp_path / "maps" / "mine" / f"{name}.npy", np.eye(48))
    for labeler in (alone, beside):
        labeler.set_properties(segments() | segments("no", "yes", name="mine"))
    maps = beside(IMAGES, NAMES, ["segments", "mine"])
    assert torch.equal(maps["segments"], alone(IMAGES, NAMES, ["segments"])["segments"])
    assert torch.equal(maps["mine"][0], torch.eye(48))
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["segments"]
    assert len(list((tmp_path / "labels").rglob("*.safetensors"))) == 3  # one folder for both
    message = refusal(configured("labeler=image_models").check, NAMES, ["segments"], 48)
    assert message.endswith("Give it one: +labeler/own@labeler.segments=files, or segmentation")
