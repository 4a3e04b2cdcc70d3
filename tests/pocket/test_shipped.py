"""The weights inside the package: their form, and that they do what the card says."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from diffprobe.backbone.load import denoiser_without_weights, load_backbone
from diffprobe.backbone.trajectory import generate
from diffprobe.errors import UserError
from diffprobe.pocket.networks import LabelerNetwork, load_classifier, load_labeler, load_surfaces, load_weights
from diffprobe.pocket.scenes import COLOURS, sample_scene
from diffprobe.pocket.training.card import (
    BARS,
    measure_autoencoder,
    measure_classifier,
    measure_labeler,
    measure_surfaces,
)
from diffprobe.pocket.training.fit import load_scenes
from diffprobe.weights import check_unchanged, record_checksums

WEIGHTS = Path(str(files("diffprobe.pocket"))) / "weights"


@pytest.fixture(scope="module")
def pocket():
    return load_backbone("pocket", guidance=2.5, device="cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffprobe.pocket.training.fit.SHARD", 100)
        return load_scenes(tmp_path_factory.mktemp("scenes"), "validation", 100, workers=1)


@pytest.fixture(scope="module")
def card() -> dict[str, dict[str, float]]:
    return json.loads((WEIGHTS / "measures.json").read_text())


def test_all_files_together_are_at_most_20_megabytes_and_none_is_a_pickle():
    paths = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) <= 20_000_000
    assert {path.suffix for path in paths} <= {".safetensors", ".json", ".md"}


def test_no_file_tells_where_it_was_made():
    assert not [path for path in WEIGHTS.rglob("*.json") if "_name_or_path" in path.read_text()]


def test_the_denoiser_has_exactly_the_module_names_of_stable_diffusion(pocket):
    own = [name for name, _ in pocket.denoiser.named_modules()]
    assert own == [name for name, _ in denoiser_without_weights("sd14").named_modules()]


def test_the_pipeline_loads_whole_in_float32_and_frozen(pocket):
    parts = (pocket.denoiser, pocket.vae, pocket.pipeline.text_encoder)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_reconstructions_are_as_good_as_the_card_says(pocket, scenes, card):
    found = measure_autoencoder(pocket.vae, scenes.images)["psnr_db"]
    assert found >= 30
    assert found == pytest.approx(card["autoencoder"]["psnr_db"], abs=1)


def test_the_labeler_is_as_good_as_the_card_says(scenes, card):
    for name, value in measure_labeler(load_labeler(), scenes).items():
        assert value == pytest.approx(card["labeler"][name], abs=0.03)


def test_its_second_decoder_is_as_good_as_the_card_says(scenes, card):
    for name, value in measure_surfaces(load_labeler(), load_surfaces(), scenes).items():
        expected = card["surfaces"][name]
        assert value == pytest.approx(expected, abs=2 if name == "normals_mean_angle" else 0.06)


def test_the_classifier_is_as_good_as_the_card_says(scenes, card):
    for name, value in measure_classifier(load_classifier(), scenes).items():
        assert value == pytest.approx(card["classifier"][name], abs=0.06)


@pytest.mark.slow
def test_pictures_of_one_object_mostly_show_its_colour(pocket, card):
    wanted = [sample_scene(index, "prompts", 1) for index in range(8)]
    *_, last = generate(pocket, [scene.caption for scene in wanted], range(8), steps=6, decode=True)
    by_colour, _ = load_classifier()(last.images)
    right = [
        COLOURS[guess] == scene.objects[0].colour
        for guess, scene in zip(by_colour[:, 0, :-1].argmax(-1).tolist(), wanted, strict=True)
    ]
    assert sum(right) / len(right) >= card["one object"]["colours_right"] - 0.2


def test_the_card_states_every_bar_and_what_was_measured(card):
    text = (WEIGHTS / "MODEL_CARD.md").read_text()
    assert text.count("reached") + text.count("missed") == len(BARS)
    for part in ("autoencoder", "labeler", "surfaces", "one object", "two objects"):
        for value in card[part].values():
            assert f"{value:.4g}" in text


def test_the_scenes_defeat_pixel_position(card):
    found = card["position only"]
    assert found["depth_rank_correlation"] <= 0.6
    assert found["shading_rank_correlation"] <= 0.35
    assert found["saliency_dice"] <= 0.4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda weights: {name: w for name, w in weights.items() if name != "mean"},
            r"lacks 1 of its \d+ weights: mean",
        ),
        (lambda weights: weights | {"other": torch.zeros(1)}, r"holds 1 weight .* no place for: other"),
        (lambda weights: weights | {"mean": torch.zeros(5)}, r"mean is \[5\] in the file and \[3\]"),
    ],
)
def test_a_network_takes_exactly_its_weights(tmp_path, change, said):
    from safetensors.torch import load_file, save_file

    save_file(change(load_file(WEIGHTS / "labeler.safetensors")), tmp_path / "labeler.safetensors")
    with pytest.raises(UserError, match=said):
        load_weights(LabelerNetwork(), tmp_path / "labeler.safetensors")


def test_a_network_file_that_is_cut_short_is_named(tmp_path):
    (tmp_path / "labeler.safetensors").write_bytes((WEIGHTS / "labeler.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"labeler\.safetensors is cut short"):
        load_weights(LabelerNetwork(), tmp_path / "labeler.safetensors")


def test_the_shipped_weights_are_those_whose_checksums_are_recorded():
    check_unchanged(WEIGHTS)


def test_checksums_are_recorded_of_what_is_there(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.safetensors").write_bytes(b"abc")
    record_checksums(tmp_path)
    check_unchanged(tmp_path)
    (tmp_path / "part" / "a.safetensors").unlink()
    with pytest.raises(UserError, match=r"a\.safetensors is missing"):
        check_unchanged(tmp_path)


def test_weights_that_are_not_what_they_were_are_refused(tmp_path, monkeypatch):
    """Flipped bits, another file in the place of one, and files more or less."""
    import diffprobe.pocket.networks as networks
    from diffprobe.backbone import model_folder as locate

    root = tmp_path / "package"
    weights = shutil.copytree(WEIGHTS, root / "pocket" / "weights")
    monkeypatch.setattr(networks, "files", lambda name: root / "pocket")
    monkeypatch.setattr(locate, "files", lambda name: root)
    assert locate.find_model("pocket") == weights / "pipeline"
    load_labeler()
    unet = weights / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    data = unet.read_bytes()
    unet.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    with pytest.raises(UserError, match=r"unet.*is not what it was"):
        locate.find_model("pocket")
    unet.write_bytes(data)
    (unet.parent / "more.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"more\.safetensors is not what it was"):
        locate.find_model("pocket")
    (weights / "labeler.safetensors").write_bytes((weights / "classifier.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"labeler\.safetensors is not what it was"):
        load_labeler()
    load_classifier()
    (weights / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"checksums\.json is missing"):
        load_classifier()
