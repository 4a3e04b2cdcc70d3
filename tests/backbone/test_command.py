from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffprobe.backbone.__main__ import main


def test_sd14_self_attention_layers_are_printed_without_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sd14", "--layers", "self_attention"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if ".attn1.to_out.0 " in line]
    shapes = [row.strip("│ ").split()[-1] for row in rows]
    large, middle, small = "4096x320", "1024x640", "256x1280"
    encoder = [large, large, middle, middle, small, small]
    decoder = [small, small, small, middle, middle, middle, large, large, large]
    assert shapes == [*encoder, "64x1280", *decoder]
    assert "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0" in rows[13]


def test_pipeline_folder_and_unet_folder_give_the_same_catalogue(
    tiny_pipeline_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for folder in (tiny_pipeline_folder, tiny_pipeline_folder / "unet"):
        assert main([str(folder), "--layers", "resnet", "--resolution", "16", "8"]) == 0
        printed.append(capsys.readouterr().out.splitlines()[1:])
    assert printed[0] == printed[1]
    text = "\n".join(printed[0])
    assert "down_blocks.1.resnets.0" in text
    assert "down_blocks.2.resnets.0" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such/folder"], "no model '/no/such/folder'"),
        (["sd14", "--layers", "self_atention"], "nearest: self_attention"),
        (["sd14", "--resolution", "17"], "this model has: 64, 32, 16, 8"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_one(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "has none of unet/config.json, transformer/config.json, config.json"),
        ("{", "is not JSON"),
        (json.dumps({"_class_name": "DiTTransformer2DModel"}), "is a DiTTransformer2DModel, not one of UNet2DCond"),
        (json.dumps({"_class_name": "UNet2DConditionModel", "block_out_channels": [3]}), "cannot load"),
    ],
)
def test_folders_that_hold_no_denoiser_are_named(
    config: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert main([str(tmp_path)]) == 1
    assert said in capsys.readouterr().err


def test_only_the_config_of_a_hub_id_is_fetched(
    tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    def fetch(path: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (path, revision) == ("someone/model", None)
        assert all(pattern.endswith(".json") for pattern in allow_patterns)
        return str(tiny_pipeline_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert main(["someone/model", "--layers", "conv_in"]) == 0
    assert "256x8" in capsys.readouterr().out


def test_unreachable_hub_id_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import huggingface_hub

    def no_network(*arguments: object, **options: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    assert main(["someone/model"]) == 1
    error = capsys.readouterr().err
    assert "hf download someone/model" in error
    assert error.count("\n") == 1
