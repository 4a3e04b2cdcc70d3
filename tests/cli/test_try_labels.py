"""`python -m diffprobe.try_labels` draws and tells what labelers see, with the settings of train.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from diffprobe.analyses.inputs import Inputs
from diffprobe.backbone.load import load_backbone
from diffprobe.backbone.trajectory import generate
from diffprobe.cli.few_images import few_images
from diffprobe.data.prompts import load_prompts
from diffprobe.pocket.__main__ import write_scenes
from diffprobe.runs.folder import read_settings
from diffprobe.try_labels import Asked, main, trial_settings
from tests.labels.test_saliency import save
from tests.labels.tiny_segmentation import save_model
from tests.tiny import build_tiny_classifier

SEGMENTS = ["property=custom", "property.name=segments", "property.kind=categorical"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of 64 pixels with their maps."""
    folder = tmp_path_factory.mktemp("scenes") / "made"
    write_scenes(folder, 4)
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, in place of their files' pixels."""
    found: list[Figure] = []
    real = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        found.append(figure)
        real(figure, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """The lines of a command that succeeds."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    return said.out.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a command that fails, and draws nothing."""
    assert main([str(argument) for argument in arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert not Path("labels.png").exists()
    return line


def below(figure: Figure, row: int, column: int, columns: int) -> str:
    return figure.axes[row * columns + column].get_xlabel()


def test_generated_images_are_those_of_the_run(capsys, drawn):
    settings = trial_settings(Asked(["steps.sampling=2", "features.batch_size=2", "model.device=cpu"]))
    few = few_images(Inputs(settings, print, read_settings), 3, None)
    prompts = load_prompts(None, None, 0)[:3]
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
    *_, last = generate(load_backbone("pocket", device="cpu", guidance=2.5), texts, seeds, steps=2, decode=True)
    assert few.names == [prompt.name for prompt in prompts]
    assert last.images is not None
    torch.testing.assert_close(few.images(), last.images, rtol=0, atol=1e-4)

    lines = run(capsys, "--count", 3, "steps.sampling=2", "model.device=cpu", "property=everything", "--out", "a.png")
    assert lines[0] == "3 images of 64 pixels"
    assert lines[-1] == "picture: a.png"
    (figure,) = drawn
    titles = [axes.get_title() for axes in figure.axes[:9]]
    wanted = ["image", "saliency", "depth", "shading", "normals", "albedo", "shape", "colour", "shadow"]
    assert titles == wanted
    assert len(figure.axes) == 27
    assert Image.open("a.png").size[0] > 1000


def test_numbers_below_a_map_are_those_of_the_map(capsys, drawn, scenes):
    words = ["labeler=files", f"labeler.path={scenes / 'maps'}", "property.names=[saliency,depth]", "--count", 2]
    lines = run(capsys, "--images", scenes / "images", "--size", 64, *words)
    mask = np.asarray(Image.open(scenes / "maps" / "saliency" / "scene_00001.png")) > 0
    depth = np.load(scenes / "maps" / "depth" / "scene_00001.npy")
    (figure,) = drawn
    assert below(figure, 1, 0, 3) == "scene_00001"
    assert below(figure, 1, 1, 3) == f"0 to 1, foreground {mask.mean():.1%}"
    assert below(figure, 1, 2, 3) == f"{depth.min():.3g} to {depth.max():.3g}"
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), mask)
    assert f"  scene_00001  0 to 1, foreground {mask.mean():.1%}" in lines
    assert lines[1] == f"saliency: FilesLabeler path={scenes / 'maps'}"
    assert re.fullmatch(r"  loaded in [\d.]+ s; [\d.]+ s for the first image, [\d.]+ s for each after it", lines[2])


def test_a_model_is_told_with_its_settings_and_where_its_maps_are_kept(capsys, drawn, scenes):
    model = save(Path("tiny.onnx"), size="open")
    words = ["labeler=image_models", f"labeler.saliency.path={model}", "property=saliency", "labeler.cache=kept"]
    command = ["--images", scenes / "images", "--size", 32, *words]
    first, second = run(capsys, *command, "--count", 3), run(capsys, *command)
    assert first[1] == "saliency: OnnxSaliency path=tiny.onnx family=isnet threshold=0.5"
    (folder,) = Path("kept/saliency").iterdir()
    assert first[3] == f"  kept in {folder}, where 0 of 3 were before"
    assert second[3] == f"  kept in {folder}, where 3 of 4 were before"
    assert len(list(folder.iterdir())) == 4
    np.testing.assert_array_equal(drawn[0].axes[1].images[0].get_array(), drawn[1].axes[1].images[0].get_array())


def test_maps_of_photographs_are_cropped_as_they_are(capsys, drawn):
    Path("wide").mkdir()
    Path("maps/saliency").mkdir(parents=True)
    Image.new("RGB", (16, 8)).save("wide/a.png")
    mask = np.zeros((8, 16), np.uint8)
    mask[:, 6:] = 255  # of the square in the middle all but two columns
    Image.fromarray(mask).save("maps/saliency/a.png")
    words = ["labeler=files", "labeler.path=maps", "property=saliency", "--size", 8]
    run(capsys, "--images", "wide", "data.fit=crop", *words)
    (figure,) = drawn
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), mask[:, 4:12] > 0)


def test_maps_of_one_value_are_told(capsys, drawn, scenes):
    model = save(Path("tiny.onnx"), size="open")
    Path("grey").mkdir()
    for name, level in {"a": 40, "b": 200}.items():
        Image.new("RGB", (8, 8), (level, level, level)).save(f"grey/{name}.png")
    words = ["labeler=image_models", f"labeler.saliency.path={model}", "property=saliency", "labeler.cache=null"]
    lines = run(capsys, "--images", "grey", "--size", 32, *words)
    assert "  ! 2 of 2 maps have no foreground pixel, or no background: a, b" in lines
    assert not any("kept" in line for line in lines)


def test_classes_of_your_own_have_a_legend_of_those_that_are_there(capsys, drawn, scenes):
    model = save_model(Path("model"))
    words = [*SEGMENTS, "property.classes=[wall,sky,screen,other]", "labeler=segmentation", f"labeler.model={model}"]
    lines = run(capsys, "--images", scenes / "images", "--size", 64, "labeler.cache=null", "model.device=cpu", *words)
    assert lines[1] == f"segments: segmentation_labeler model={model}"
    (figure,) = drawn
    (legend,) = figure.legends
    named = {text.get_text() for text in legend.get_texts()}
    there = set(re.findall(r"(\w+) \d+%", " ".join(lines)))
    assert named == there
    assert 1 < len(there) < 4
    assert figure.axes[1].images[0].get_array().shape == (64, 64, 3)


def test_vectors_are_drawn_as_colours(capsys, drawn, scenes):
    words = ["labeler=files", f"labeler.path={scenes / 'maps'}", "property=normals", "--count", 1, "--size", 64]
    lines = run(capsys, "--images", scenes / "images", *words)
    (figure,) = drawn
    assert figure.axes[1].images[0].get_array().shape == (64, 64, 3)
    assert re.fullmatch(r"-[\d.]+ to [\d.]+", below(figure, 0, 1, 2))
    assert lines[2].endswith("s for the first image")


def test_a_classifier_names_what_is_seen_and_needs_no_labeler(capsys, drawn, scenes):
    lines = run(capsys, "--images", scenes / "images", "classifier=pocket")
    assert lines[:2] == ["4 images of 64 pixels", "classifier pocket: PocketClassifier"]
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes[:2]] == ["image", "pocket"]
    for line in lines[3:7]:
        seen = re.findall(r"(\w+ ?\w+) (\d\.\d\d)(?:,|$)", line.split("  ", 2)[2])
        assert len(seen) == 5
        assert [float(share) for _, share in seen] == sorted((float(share) for _, share in seen), reverse=True)


def test_a_classifier_of_transformers_stands_beside_maps(capsys, drawn, scenes):
    model = build_tiny_classifier(Path("resnet"), ["lemon", "orange, fruit", "tench"])
    words = ["classifier=transformers", f"classifier.model={model}", "model.device=cpu", "property=saliency"]
    lines = run(capsys, "--images", scenes / "images", "--count", 2, *words)
    assert f"classifier resnet: TransformersClassifier model={model}" in lines
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "saliency", "resnet"]


class Wrong:
    """A labeler whose maps are too small."""

    def check(self, names, properties, image_size):
        pass

    def __call__(self, images, names, properties):
        return {name: torch.zeros(len(images), 8, 8) for name in properties}

    def fingerprint(self, name):
        return "wrong"


class Infinite(Wrong):
    """A labeler of maps with a value that is none."""

    def __call__(self, images, names, properties):
        maps = images.mean(1)
        maps[0, 3, 4] = torch.nan
        return dict.fromkeys(properties, maps)


def test_values_that_are_none_are_told(capsys, drawn, scenes):
    words = ["labeler._target_=tests.cli.test_try_labels.Infinite", "property=depth", "--count", 2, "--size", 64]
    lines = run(capsys, "--images", scenes / "images", *words)
    assert "  ! 2 of 2 maps have values that are infinite or not numbers: scene_00000, scene_00001" in lines


def test_faults_are_one_line_and_nothing_is_drawn(capsys, scenes):
    images = ["--images", scenes / "images"]
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"no picture")
    assert "there is no nowhere" in refusal(capsys, "--images", "nowhere")
    assert "no images" in refusal(capsys, "--images", "empty")
    assert "broken/a.png" in refusal(capsys, "--images", "broken")
    assert "labeler.saliency.path=FILE.onnx" in refusal(capsys, *images, "labeler=image_models", "property=saliency")
    assert "did you mean labeler=pocket" in refusal(capsys, *images, "labeler=poket")
    assert "nearest valid key is 'labeler.path'" in refusal(capsys, *images, "labeler=files", "labeler.pat=x")
    assert "nearest valid key is 'classifier.model'" in refusal(capsys, "classifier=transformers", "classifier.modl=x")
    assert "64-pixel pictures" in refusal(capsys, *images, "--size", 128)
    assert "--size is of photographs" in refusal(capsys, "--size", 128)
    assert "leave one of them out" in refusal(capsys, *images, "data.images=other")
    assert "ends in .png" in refusal(capsys, *images, "--out", "labels.pdf")
    assert "lies in no folder" in refusal(capsys, *images, "--out", "nowhere/labels.png")
    wrong = ["labeler._target_=tests.cli.test_try_labels.Wrong", "property=saliency"]
    assert "maps [4, 8, 8] of images; they must be [4, 64, 64]" in refusal(capsys, *images, "--size", 64, *wrong)


def test_a_broken_image_can_be_left_out(capsys, drawn, scenes):
    Path("some").mkdir()
    Path("some/a.png").write_bytes(b"no picture")
    Path("some/b.png").write_bytes((scenes / "images" / "scene_00000.png").read_bytes())
    lines = run(capsys, "--images", "some", "data.on_error=skip", "property=saliency")
    assert lines[0].startswith("left out a: ")
    assert lines[1] == "1 images of 64 pixels"
