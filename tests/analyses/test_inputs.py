"""What is said of the files that `data` and `analysis.photos` name."""

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from diffprobe.analyses.classification.classes import load_photos
from diffprobe.analyses.inputs import make_source
from diffprobe.errors import UserError
from tests.tasks import checked_analysis


@pytest.fixture
def told() -> list[str]:
    return []


def settings(**data: Any) -> Any:
    """Those that a source asks for."""
    real = "images" in data
    place = "Noised" if real else "Generation"
    trajectory = {"_target_": f"diffprobe.activations.sources.{place}", **({"timesteps": [0]} if real else {})}
    given = {"root": None, "on_error": "skip", "fit": "stretch"} if real else {"prompts": None, "test_prompts": None}
    return OmegaConf.create(
        {
            "data": {"count": None, **given, **data},
            "trajectory": trajectory,
            "steps": {"sampling": 2},
            "features": {"half": "conditional"},
            "seed": 0,
        }
    )


def test_the_encoding_of_each_list_is_told_once(tmp_path, told):
    files = [tmp_path / name for name in ("train.csv", "test.csv", "images.txt")]
    for number, file in enumerate(files[:2]):
        file.write_bytes(f"prompts,seeds\ncaf\u00e9,{number}\n".encode("cp1252"))
    files[2].write_bytes("caf\u00e9.png\n".encode("utf-16"))
    Image.new("RGB", (4, 4)).save(tmp_path / "caf\u00e9.png")
    source = make_source(settings(prompts=files[0], test_prompts=files[1]), told.append)
    assert source.captions == ["caf\u00e9", "caf\u00e9"]
    assert make_source(settings(images=files[2]), told.append).names == ["caf\u00e9"]
    assert [str(file) in line for file, line in zip(files, told, strict=True)] == [True] * 3


def test_photos_that_are_left_out_are_told(tmp_path, told):
    for folder in ("red_fox", "whale"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4), (20 * len(folder), 0, 0)).save(tmp_path / folder / "1.png")
    (tmp_path / "whale/2.png").write_bytes(b"broken")
    inputs: Any = SimpleNamespace(
        settings=SimpleNamespace(data={"on_error": "skip", "fit": "stretch"}),
        classifier=SimpleNamespace(classes=["red fox", "whale"]),
        backbone=SimpleNamespace(image_size=4),
        log=told.append,
    )
    photos = load_photos(str(tmp_path), {}, {0}, 1, inputs)
    assert photos is not None
    assert photos.names == ["red_fox/1"]
    assert told[0].startswith("left out whale/2: cannot read")
    assert told[1] == "left out 1 of 2 photos, which are of no class that the prompts name"


@pytest.mark.parametrize("analysis", ["separation", "emergence", "intervention", "similarity"])
def test_a_run_without_layers_is_told_what_to_choose(analysis: str) -> None:
    with pytest.raises(UserError, match="both empty; choose at least one layer"):
        checked_analysis(f"analysis={analysis}", "layers.select=null", "data.count=12", "objects.count=4")
