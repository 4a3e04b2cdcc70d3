"""Depth by models of transformers: as their own processors and models say, larger is nearer, at the image's size."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffprobe.errors import UserError
from diffprobe.labels.depth import TransformersDepth

# As Intel/dpt-large has it, but for the size.
MIDAS = {
    "do_normalize": True,
    "do_resize": True,
    "ensure_multiple_of": 1,
    "feature_extractor_type": "DPTFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "keep_aspect_ratio": False,
    "resample": 2,
    "size": 32,
}
# As Depth Anything V2 has it, but for the size.
DEPTH_ANYTHING = {
    "image_processor_type": "DPTImageProcessor",
    "do_normalize": True,
    "do_pad": False,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 14,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "keep_aspect_ratio": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": 42, "width": 42},
}
IMAGES = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
NAMES = ["a", "b", "c"]
SMALL = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}


def save(network, processor, folder):
    """Saves with weights large enough for the answer to differ over the picture."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(0.3 * torch.randn(weights.shape, generator=generator))
        network.head.head[-2].bias.fill_(3.0) if hasattr(network.head, "head") else network.head.conv3.bias.fill_(3.0)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def dpt(folder, **config):
    from transformers import DPTConfig, DPTForDepthEstimation

    vit = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    sizes = {"image_size": 32, "patch_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    return save(DPTForDepthEstimation(DPTConfig(**vit, **sizes, **SMALL, **config)), MIDAS, folder)


def depth_anything(folder, processor=DEPTH_ANYTHING, **config):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    sizes = {"reassemble_hidden_size": 16, "head_hidden_size": 4, **SMALL}
    network = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **sizes, **config))
    return save(network, processor, folder)


def slowly(folder, images):
    """One picture at a time through transformers' processor and model, and one bicubic resize; inverse depth."""
    from transformers import AutoModelForDepthEstimation
    from transformers.models.dpt import DPTImageProcessorPil

    processor = DPTImageProcessorPil.from_pretrained(folder)
    network = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    maps = []
    for image in images:
        picture = (image * 255).round().byte().permute(1, 2, 0).numpy()
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            answer = network(pixel_values=pixels).predicted_depth[None]
        maps.append(functional.interpolate(answer, size=image.shape[-2:], mode="bicubic", align_corners=False)[0, 0])
    return torch.stack(maps)


@pytest.fixture(params=[dpt, depth_anything])
def model(request, tmp_path):
    return request.param(tmp_path)


def test_depth_is_what_the_model_says_of_each_picture(model):
    found = TransformersDepth(model, device="cpu", batch_size=2)(IMAGES, NAMES, ["depth"])["depth"]
    expected = slowly(model, IMAGES)
    assert found.shape == (3, 48, 48)
    assert expected.std() > 0.01
    assert (found - expected).abs().max() < 1e-5 * expected.max()


def test_depth_is_that_of_transformers_own_pipeline(model):
    from PIL import Image
    from transformers import AutoModelForDepthEstimation
    from transformers.models.dpt import DPTImageProcessorPil
    from transformers.pipelines import pipeline

    network = AutoModelForDepthEstimation.from_pretrained(model)
    estimate = pipeline("depth-estimation", network, image_processor=DPTImageProcessorPil.from_pretrained(model))
    picture = Image.fromarray((IMAGES[0] * 255).round().byte().permute(1, 2, 0).numpy())
    found = TransformersDepth(model, device="cpu")(IMAGES[:1], NAMES[:1], ["depth"])["depth"][0]
    assert np.allclose(found, estimate(picture)["predicted_depth"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["DPTImageProcessorFast", "DPTImageProcessorPil"])
def test_whatever_the_processor_is_called_it_is_the_one_on_pillow(tmp_path, name):
    folder = depth_anything(tmp_path, {**DEPTH_ANYTHING, "image_processor_type": name})
    labeler = TransformersDepth(folder, device="cpu")
    assert type(labeler.processor).__name__ == "DPTImageProcessorPil"


def test_a_metric_model_is_inverted_so_that_larger_is_nearer(tmp_path):
    folder = depth_anything(tmp_path, depth_estimation_type="metric", max_depth=20)
    found = TransformersDepth(folder, device="cpu")(IMAGES, NAMES, ["depth"])["depth"]
    distance = slowly(folder, IMAGES)
    assert distance.max() > 1
    assert torch.allclose(found, 1 / distance.clamp_min(0.1), rtol=1e-3)


def test_a_model_that_does_not_say_what_it_gives_has_to_be_told(tmp_path):
    from transformers import Dinov2Config

    backbone = Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14)
    backbone.out_indices = [1, 2, 3, 4]
    folder = dpt(tmp_path, backbone_config=backbone)
    with pytest.raises(UserError, match=r"labeler\.depth\.output=inverse_depth"):
        TransformersDepth(folder, device="cpu")
    with pytest.raises(UserError, match="use inverse_depth or distance"):
        TransformersDepth(folder, device="cpu", output="disparity")


def without(folder, *names):
    """Takes tensors out of the saved weights."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(f"{folder}/model.safetensors")
    for name in names:
        del tensors[name]
    save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})


def test_weights_that_are_never_used_may_be_missing_and_do_not_change_the_fingerprint(tmp_path):
    folder = dpt(tmp_path)
    whole = TransformersDepth(folder, device="cpu")(IMAGES, NAMES, ["depth"])["depth"]
    without(folder, "neck.fusion_stage.layers.0.residual_layer1.convolution1.weight")
    one, other = TransformersDepth(folder, device="cpu"), TransformersDepth(folder, device="cpu")
    assert torch.equal(one(IMAGES, NAMES, ["depth"])["depth"], whole)
    assert one.fingerprint("depth") == other.fingerprint("depth")


def test_missing_weights_that_are_used_are_an_error_and_not_random(tmp_path):
    folder = dpt(tmp_path)
    without(folder, "head.head.2.weight")
    with pytest.raises(UserError, match=r"lacks 1 of its \d+ weights: head\.head\.2\.weight"):
        TransformersDepth(folder, device="cpu")


def with_weights(folder, **more):
    """Puts tensors among the saved weights, a dot for each double underscore of their names."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(f"{folder}/model.safetensors")
    tensors |= {name.replace("__", "."): values for name, values in more.items()}
    save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})


def test_weights_without_a_place_and_of_another_shape_are_errors(tmp_path):
    with_weights(dpt(tmp_path / "more"), neck__other__weight=torch.zeros(2))
    with pytest.raises(UserError, match=r"holds 1 weight that its network has no place for: neck\.other\.weight"):
        TransformersDepth(str(tmp_path / "more"), device="cpu")
    with_weights(dpt(tmp_path / "wide"), head__head__4__weight=torch.zeros(1, 7, 1, 1))
    with pytest.raises(UserError, match=r"head\.head\.4\.weight is \[1, 7, 1, 1\] in the file"):
        TransformersDepth(str(tmp_path / "wide"), device="cpu")


def test_code_that_comes_with_weights_is_not_run_nor_asked_about(tmp_path):
    folder = dpt(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    foreign = {"AutoConfig": "evil.Evil", "AutoModelForDepthEstimation": "evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": foreign}))
    with pytest.raises(UserError, match="cannot load"):
        TransformersDepth(folder, device="cpu")
    assert not ran.exists()


def test_the_fingerprint_tells_weights_and_settings(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    first = TransformersDepth(dpt(tmp_path / "a"), device="cpu")
    same = TransformersDepth(dpt(tmp_path / "b"), device="cpu", batch_size=1)
    assert first.fingerprint("depth") == same.fingerprint("depth")
    inverted = TransformersDepth(str(tmp_path / "a"), device="cpu", output="distance")
    (tmp_path / "b" / "preprocessor_config.json").write_text(json.dumps({**MIDAS, "size": 40}))
    resized = TransformersDepth(str(tmp_path / "b"), device="cpu")
    other = TransformersDepth(dpt(tmp_path / "c", readout_type="ignore"), device="cpu")
    assert len({labeler.fingerprint("depth") for labeler in (first, inverted, resized, other)}) == 4


def test_what_is_no_depth_model_is_said_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"no depth model 'nowhere'.*labeler\.depth\.model"):
        TransformersDepth("nowhere", device="cpu")
    with pytest.raises(UserError, match=r"cannot load .* as the depth model"):
        TransformersDepth(str(tmp_path), device="cpu")
    with pytest.raises(UserError, match="cannot label shading"):
        TransformersDepth(dpt(tmp_path), device="cpu").check(NAMES, ["depth", "shading"], 64)
