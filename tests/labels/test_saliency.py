"""Salient-object models in .onnx files: pictures prepared as each family wants, maps stretched and cut."""

import sys

import numpy as np
import onnx
import pytest
import torch

from diffprobe.errors import UserError
from diffprobe.labels.saliency import FAMILIES, OnnxSaliency

WEIGHTS = np.array([1.0, -2.0, 0.5], np.float32)
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NAMES = list("abcd")


def save(path, size=16, batch=1, sigmoid=True, colours=3, kind=onnx.TensorProto.FLOAT, rank=4):
    """A model whose first output is a weighted sum of the colours, through a sigmoid if asked; the second is noise."""
    from onnx import helper, numpy_helper

    side = size if isinstance(size, int) else "side"
    wanted = helper.make_tensor_value_info("picture", kind, [batch, colours, side, side])
    kernel = numpy_helper.from_array(
        np.resize(WEIGHTS, colours).reshape(1, colours, 1, 1).astype(helper.tensor_dtype_to_np_dtype(kind)), "kernel"
    )
    nodes = [
        helper.make_node("Conv", ["picture", "kernel"], ["sum"]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["sum"], ["map"]),
        helper.make_node("Neg", ["map"], ["other"]),
    ]
    if rank != 4:
        nodes += [
            helper.make_node("GlobalAveragePool", ["map"], ["pool"]),
            helper.make_node("Flatten", ["pool"], ["flat"]),
        ]
    first = "map" if rank == 4 else "flat"
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in (first, "other")]
    graph = helper.make_graph(nodes, "tiny", [wanted], outputs, [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def slowly(image, mean, std, logits=False, brightest=False):
    """Pixel by pixel, for a model without sigmoid whose size is the image's."""
    levels = np.rint(image.numpy() * 255)
    scaled = levels / (levels.max() if brightest else 255)
    values = np.zeros(scaled.shape[1:])
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            values[y, x] = sum(WEIGHTS[c] * (scaled[c, y, x] - mean[c]) / std[c] for c in range(3))
    if logits:
        values = 1 / (1 + np.exp(-values))
    return ((values - values.min()) / (values.max() - values.min()) > 0.5).astype(np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_are_those_of_the_familys_recipe(tmp_path, family):
    known = FAMILIES[family]
    labeler = OnnxSaliency(save(tmp_path / "model.onnx", sigmoid=False), family=family, device="cpu")
    images = IMAGES * 0.7  # no picture is as bright as it can be
    found = labeler(images, NAMES, ["saliency"])["saliency"]
    expected = [slowly(image, known.mean, known.std, known.logits, known.to_brightest) for image in images]
    assert np.array_equal(found.numpy(), np.stack(expected))
    assert 0 < found.mean() < 1


def test_mean_and_std_can_be_given(tmp_path):
    mean, std = [0.1, 0.2, 0.3], [0.2, 0.5, 2.0]
    labeler = OnnxSaliency(save(tmp_path / "model.onnx", sigmoid=False), mean=mean, std=std, device="cpu")
    found = labeler(IMAGES[:1], NAMES[:1], ["saliency"])["saliency"][0]
    assert np.array_equal(found.numpy(), slowly(IMAGES[0], mean, std))
    with pytest.raises(UserError, match="three numbers"):
        OnnxSaliency(save(tmp_path / "model.onnx"), mean=[0.5], device="cpu")


@pytest.mark.parametrize(("size", "expected"), [(8, (8, 8)), (40, (40, 40)), ("open", (320, 320))])
def test_pictures_are_brought_to_the_models_size_and_maps_back(tmp_path, size, expected):
    labeler = OnnxSaliency(save(tmp_path / "model.onnx", size), family="u2net", device="cpu")
    assert labeler.size == expected
    picture = torch.zeros(1, 3, 24, 24)
    picture[:, 0, :, :12] = 1.0  # red counts for, the rest is black
    mask = labeler(picture, ["a"], ["saliency"])["saliency"]
    assert torch.equal(mask[0, :, :11], torch.ones(24, 11))
    assert torch.equal(mask[0, :, 13:], torch.zeros(24, 11))


def test_an_open_batch_and_half_precision_are_taken(tmp_path):
    path = save(tmp_path / "model.onnx", batch="n", kind=onnx.TensorProto.FLOAT16)
    assert OnnxSaliency(path, device="cpu")(IMAGES, NAMES, ["saliency"])["saliency"].shape == (4, 16, 16)


def test_a_picture_without_contrast_has_no_object(tmp_path):
    labeler = OnnxSaliency(save(tmp_path / "model.onnx", sigmoid=False), device="cpu")
    assert labeler(torch.full((1, 3, 16, 16), 0.2), ["a"], ["saliency"])["saliency"].sum() == 0


def test_the_fingerprint_tells_the_file_and_the_settings(tmp_path):
    path, other = save(tmp_path / "a.onnx"), save(tmp_path / "b.onnx", size=8)
    labelers = [
        OnnxSaliency(path, device="cpu"),
        OnnxSaliency(other, device="cpu"),
        OnnxSaliency(path, family="u2net", device="cpu"),
        OnnxSaliency(path, threshold=0.3, device="cpu"),
        OnnxSaliency(path, mean=[0, 0, 0], device="cpu"),
    ]
    assert len({labeler.fingerprint("saliency") for labeler in labelers}) == len(labelers)
    moved = path.rename(tmp_path / "moved.onnx")
    assert OnnxSaliency(moved, device="cpu").fingerprint("saliency") == labelers[0].fingerprint("saliency")


def test_maps_that_were_kept_stay_valid(tmp_path):
    """Another determinant is another folder of maps, and those of the last release would be computed again."""
    _, *rest = OnnxSaliency(save(tmp_path / "model.onnx"), family="u2net", device="cpu").determinants()
    colours = [[[[0.48500001430511475]], [[0.4560000002384186]], [[0.4059999883174896]]]]
    spread = [[[[0.2290000021457672]], [[0.2240000069141388]], [[0.22499999403953552]]]]
    family = {"size": 320, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert rest == [{**family, "to_brightest": True, "logits": False}, (16, 16), colours, spread, 0.5]


def test_what_is_no_saliency_model_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"no model is set .*labeler\.saliency\.path"):
        OnnxSaliency(None)
    with pytest.raises(UserError, match="there is no file nowhere"):
        OnnxSaliency("nowhere.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match="cannot load"):
        OnnxSaliency(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="takes tensor"):
        OnnxSaliency(save(tmp_path / "grey.onnx", colours=1))
    with pytest.raises(UserError, match=r"does not run as a saliency model: .*first output"):
        OnnxSaliency(save(tmp_path / "classifier.onnx", rank=2))
    with pytest.raises(UserError, match="isnet, u2net, birefnet"):
        OnnxSaliency(save(tmp_path / "model.onnx"), family="tracer")
    with pytest.raises(UserError, match="cannot label depth"):
        OnnxSaliency(save(tmp_path / "model.onnx")).check(NAMES, ["depth"], 64)


def test_without_onnxruntime_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[saliency\]'"):
        OnnxSaliency(save(tmp_path / "model.onnx"))
