from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffprobe.backbone import single_file
from diffprobe.backbone.load import Backbone, denoiser_without_weights, load_backbone
from diffprobe.backbone.single_file import SD14, read_single_file
from diffprobe.backbone.trajectory import generate
from diffprobe.errors import UserError

UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str) -> str:
    """A weight of the U-Net as Stable Diffusion's authors call it."""
    module, _, kind = name.rpartition(".")
    if module in UNET:
        return f"{UNET[module]}.{kind}"
    part = re.match(r"(down|up|mid)_blocks?\.(?:(\d)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    assert part, name
    level, item = int(part[2] or 0), int(part[4])
    rest = part[5]
    if part[3] == "resnets":
        module, _, kind = rest.rpartition(".")
        rest = f"{UNET_RESNET[module]}.{kind}"
    place = {"resnets": 0, "attentions": 1}.get(part[3])
    if part[1] == "mid":
        return f"middle_block.{1 if place else 2 * item}.{rest}"
    if part[3] == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.{rest.replace('conv', 'op')}"
    if part[3] == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{2 if level else 1}.{rest}"
    return (
        f"{'input' if part[1] == 'down' else 'output'}_blocks.{3 * level + item + (part[1] == 'down')}.{place}.{rest}"
    )


def vae_name(name: str) -> str:
    """A weight of the VAE as Stable Diffusion's authors call it."""
    name = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{3 - int(found[1])}", name)
    name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"\.resnets\.", ".block.", name)
    name = re.sub(r"\.(down|up)samplers\.0\.", r".\1sample.", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if "mid_block.attentions.0" in name:
        head, tail = name.split("mid_block.attentions.0.")
        module, _, kind = tail.rpartition(".")
        name = f"{head}mid.attn_1.{VAE_ATTENTION[module]}.{kind}"
    return name


def authors_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a pipeline folder in the authors' names and shapes, with what else is in their files."""
    parts = {part: next(iter((folder / part).glob("*.safetensors"))) for part in ("unet", "vae", "text_encoder")}
    unet, vae, text = (load_file(file) for file in parts.values())
    weights = {f"model.diffusion_model.{unet_name(name)}": value for name, value in unet.items()}
    for name, value in vae.items():
        linear = "attentions" in name and value.ndim == 2
        weights[f"first_stage_model.{vae_name(name)}"] = value[:, :, None, None].clone() if linear else value
    for name, value in text.items():
        weights[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    weights["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    weights["betas"] = torch.zeros(1000)
    return weights


@pytest.fixture(scope="module")
def weights(tiny_pipeline_folder: Path) -> dict[str, Tensor]:
    return authors_weights(tiny_pipeline_folder)


def load_tiny(file: Path, tokenizer: Path, configs: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Backbone:
    """Through the loading code, but with the configs of the tiny pipeline in place of the shipped ones."""
    monkeypatch.setattr(single_file, "read_single_file", partial(read_single_file, configs=configs))
    return load_backbone(str(file), device="cpu", tokenizer=str(tokenizer), **options)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_checkpoint_gives_what_its_pipeline_gives(
    tiny_pipeline_folder: Path,
    tiny_backbone: Backbone,
    weights: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    file = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": weights, "epoch": 3}, file)
    else:
        save_file(weights, file)
    backbone = load_tiny(file, tiny_pipeline_folder / "tokenizer", tiny_pipeline_folder, monkeypatch)
    assert backbone.name == f"model{suffix}"
    assert backbone.latent_shape == tiny_backbone.latent_shape
    ours, theirs = (list(generate(it, ["a red ball"], [3], steps=3, decode=True)) for it in (backbone, tiny_backbone))
    assert torch.equal(ours[-1].latents, theirs[-1].latents)
    assert torch.equal(ours[-1].images, theirs[-1].images)  # type: ignore[arg-type]


def test_weights_are_converted_to_the_wanted_precision(
    tiny_pipeline_folder: Path, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "half.safetensors")
    tokenizer = tiny_pipeline_folder / "tokenizer"
    for dtype in ("float32", "bfloat16"):
        options = {"dtype": dtype}
        backbone = load_tiny(tmp_path / "half.safetensors", tokenizer, tiny_pipeline_folder, monkeypatch, **options)
        for part in (backbone.denoiser, backbone.vae, backbone.pipeline.text_encoder):
            assert {parameter.dtype for parameter in part.parameters()} == {getattr(torch, dtype)}


def test_vocabulary_and_merges_alone_are_a_tokenizer(
    tiny_pipeline_folder: Path, tiny_backbone: Backbone, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(tiny_backbone.pipeline.tokenizer.get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    save_file(weights, tmp_path / "model.safetensors")
    pipeline = read_single_file(tmp_path / "model.safetensors", torch.float32, str(folder), tiny_pipeline_folder)
    expected, _ = tiny_backbone.pipeline.encode_prompt(["a red ball"], "cpu", 1, False)
    found, _ = pipeline.encode_prompt(["a red ball"], "cpu", 1, False)  # type: ignore[arg-type]
    assert torch.equal(found, expected)


def test_the_shipped_configs_are_those_of_stable_diffusion_14() -> None:
    from diffusers import AutoencoderKL, PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(json.loads((SD14 / "vae" / "config.json").read_text()))
        config = CLIPTextConfig.from_dict(json.loads((SD14 / "text_encoder" / "config.json").read_text()))
        text_encoder = CLIPTextModel(config)
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863
    assert sum(parameter.numel() for parameter in text_encoder.parameters()) == 123_060_480
    assert vae.config.scaling_factor == 0.18215
    scheduler: Any = PNDMScheduler.from_pretrained(SD14, subfolder="scheduler")
    assert float(scheduler.betas[0]) == pytest.approx(0.00085)
    assert float(scheduler.betas[-1]) == pytest.approx(0.012)


def test_the_layers_of_a_checkpoint_are_listed_without_reading_it(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert denoiser_without_weights(str(tmp_path / "model.ckpt")).config.cross_attention_dim == 768


class Harmful:
    """Does something when a pickle of it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_checkpoint_that_could_run_code_is_refused_and_runs_none(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "callback": Harmful(tmp_path / "ran")}, tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"holds more than weights.*; convert it to \.safetensors"):
        read_single_file(
            tmp_path / "model.ckpt", torch.float32, str(tiny_pipeline_folder / "tokenizer"), tiny_pipeline_folder
        )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.safetensors", b"", r"empty\.safetensors is empty"),
        ("page.safetensors", b"<!DOCTYPE html><html></html>", r"page\.safetensors is no safetensors file"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        ("torn.ckpt", b"PK\x03\x04torn", r"cannot read the checkpoint .*torn\.ckpt"),
        ("text.ckpt", b"no weights here", r"text\.ckpt holds more than weights, or no weights at all"),
    ],
)
def test_unreadable_checkpoints_are_named(
    tiny_pipeline_folder: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_single_file(tmp_path / name, torch.float32, str(tiny_pipeline_folder / "tokenizer"), tiny_pipeline_folder)


def test_other_networks_and_missing_weights_are_named(
    tiny_pipeline_folder: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    words = str(tiny_pipeline_folder / "tokenizer")
    save_file({"head.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"not a Stable Diffusion 1\.x checkpoint: no weights for a text of width 16"):
        read_single_file(tmp_path / "other.safetensors", torch.float32, words, tiny_pipeline_folder)
    fewer = {name: value for name, value in weights.items() if "decoder.conv_out" not in name}
    save_file(fewer, tmp_path / "fewer.safetensors")
    with pytest.raises(UserError, match=r"AutoencoderKL of .* lacks 2 of its \d+ weights, first decoder\.conv_out"):
        read_single_file(tmp_path / "fewer.safetensors", torch.float32, words, tiny_pipeline_folder)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("first_stage_model.decoder.up.7.block.0.conv1.weight", r"AutoencoderKL .* holds 1 weight .* no place for"),
        ("first_stage_model.quant_conv.extra", r"AutoencoderKL .* holds 1 weight .* no place for"),
        ("cond_stage_model.transformer.text_model.encoder.layers.9.mlp.fc1.weight", r"CLIPTextModel .* holds 1 weight"),
        ("model.diffusion_model.input_blocks.1.1.lora_up.weight", "holds a LoRA that was not fused, 1 weights such as"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "holds a LoRA that was not fused"),
    ],
)
def test_weights_that_would_be_left_out_are_named(
    tiny_pipeline_folder: Path, weights: dict[str, Tensor], tmp_path: Path, extra: str, said: str
) -> None:
    save_file(weights | {extra: torch.zeros(4, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=said):
        read_single_file(
            tmp_path / "model.safetensors", torch.float32, str(tiny_pipeline_folder / "tokenizer"), tiny_pipeline_folder
        )


def test_what_training_left_in_a_checkpoint_is_no_error(
    tiny_pipeline_folder: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    left = {"first_stage_model.loss.logvar": torch.zeros(1), "model_ema.decay": torch.zeros(1)}
    save_file(weights | left, tmp_path / "model.safetensors")
    words = str(tiny_pipeline_folder / "tokenizer")
    read_single_file(tmp_path / "model.safetensors", torch.float32, words, tiny_pipeline_folder)


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (None, "is a checkpoint without a tokenizer; give tokenizer=FOLDER"),
        ("nothing", r"neither vocab\.json with merges\.txt nor tokenizer\.json; give tokenizer=FOLDER"),
        ("tiny", r"has \d+ words and its text encoder 49408; get the tokenizer's files again"),
    ],
)
def test_a_missing_or_wrong_tokenizer_says_how_to_get_one(
    tiny_pipeline_folder: Path, tmp_path: Path, tokenizer: str | None, said: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    folder = {"nothing": tmp_path, "tiny": tiny_pipeline_folder / "tokenizer", None: None}[tokenizer]
    with pytest.raises(UserError, match=said):
        load_backbone(str(tmp_path / "model.safetensors"), device="cpu", tokenizer=folder and str(folder))
