"""Every weight of a pipeline's networks comes from its files, and every word of a prompt from its tokenizer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffprobe.backbone.load import load_backbone
from diffprobe.errors import UserError
from tests.tiny_families import build_family

Weights = dict[str, Tensor]
FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
}
TOKENS = "text_model.embeddings.token_embedding.weight"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"


def weights_file(folder: Path, part: str) -> Path:
    return folder / part / FILES.get(part, "model.safetensors")


def rewrite(folder: Path, part: str, change: Callable[[Weights], Weights]) -> None:
    """Saves a part's weights again as `change` makes them."""
    file = weights_file(folder, part)
    changed = change(load_file(file))
    save_file({name: value.contiguous() for name, value in changed.items()}, file, {"format": "pt"})


def load(folder: Path):
    return load_backbone(str(folder), device="cpu", scheduler="own")


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tiny_pipeline_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_pipeline_folder, tmp_path / "model")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("families")
    return {name: build_family(name, place / name) for name in ("sdxl", "sd3", "pixart", "flux")}


def without_first(weights: Weights) -> Weights:
    """Lacks the first weight that is a matrix or kernel."""
    gone = min(name for name, value in weights.items() if value.ndim > 1)
    return {name: value for name, value in weights.items() if name != gone}


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_weight_is_an_error_that_names_it(folder: Path, part: str) -> None:
    gone = min(name for name, value in load_file(weights_file(folder, part)).items() if value.ndim > 1)
    rewrite(folder, part, without_first)
    said = refused(folder).replace("text_model.", "")
    assert re.search(rf"{part} lacks 1 of its \d+ weights: {re.escape(gone.removeprefix('text_model.'))}", said)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("sdxl", "text_encoder_2"),
        ("sd3", "text_encoder"),
        ("sd3", "text_encoder_2"),
        ("sd3", "text_encoder_3"),
        ("sd3", "transformer"),
        ("pixart", "text_encoder"),
        ("pixart", "transformer"),
        ("flux", "text_encoder_2"),
    ],
)
def test_a_missing_weight_is_an_error_in_every_part_of_every_family(
    families: dict[str, Path], tmp_path: Path, family: str, part: str
) -> None:
    broken = shutil.copytree(families[family], tmp_path / family)
    rewrite(broken, part, without_first)
    assert re.search(rf"{part}.* lacks 1 of its \d+ weights", refused(broken))


def test_several_missing_weights_are_counted(folder: Path) -> None:
    names = load_file(weights_file(folder, "vae")).keys()
    gone = [name for name in names if name.startswith("decoder.")]
    rewrite(folder, "vae", lambda weights: {name: w for name, w in weights.items() if name not in gone})
    assert f"vae lacks {len(gone)} of its {len(names)} weights, first decoder.conv_in.bias" in refused(folder)


@pytest.mark.parametrize(
    ("part", "extra", "hint"),
    [
        ("unet", "up_blocks.9.conv.weight", ""),
        ("vae", "encoder.down_blocks.9.conv.weight", ""),
        ("text_encoder", "text_model.encoder.layers.7.mlp.fc1.weight", ""),
        ("unet", "conv_in.lora_A.default.weight", "LoRA"),
    ],
)
def test_weights_without_a_place_are_an_error(folder: Path, part: str, extra: str, hint: str) -> None:
    rewrite(folder, part, lambda weights: {**weights, extra: torch.zeros(2, 2)})
    said = refused(folder)
    assert re.search(rf"{part}.* holds 1 weight that .*: .*{re.escape(extra.removeprefix('text_model.'))}", said)
    assert hint in said


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        (".to_q.weight", ".to_q.base_layer.weight", "LoRA"),
        (None, "_orig_mod.", "torch.compile"),
        (None, "module.", "module"),
    ],
)
def test_weights_under_other_names_get_a_hint(folder: Path, old: str | None, new: str, hint: str) -> None:
    rewrite(folder, "unet", lambda ws: {name.replace(old, new) if old else new + name: w for name, w in ws.items()})
    said = refused(folder)
    assert "lacks" in said
    assert hint in said


@pytest.mark.parametrize(("part", "name"), [("unet", QUERY), ("text_encoder", TOKENS)])
def test_a_weight_of_another_shape_is_an_error(folder: Path, part: str, name: str) -> None:
    def wider(weights: Weights) -> Weights:
        own = name if name in weights else name.removeprefix("text_model.")
        return weights | {own: torch.zeros(7, 5)}

    rewrite(folder, part, wider)
    assert re.search(rf"{part}.*{re.escape(name.removeprefix('text_model.'))} is \[7, 5\] in the file", refused(folder))


def test_buffers_that_older_libraries_saved_are_no_error(folder: Path, tiny_backbone) -> None:
    rewrite(
        folder,
        "text_encoder",
        lambda weights: {
            **{name if name.startswith("text_model.") else f"text_model.{name}": w for name, w in weights.items()},
            "text_model.embeddings.position_ids": torch.arange(77)[None],
            "text_projection.weight": torch.zeros(4, 4),
        },
    )
    assert load(folder).fingerprints == tiny_backbone.fingerprints


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight", "both"])
def test_the_words_of_t5_may_be_saved_under_either_name(families: dict[str, Path], tmp_path: Path, kept: str) -> None:
    """Published files have the one, the other or both, and the output of the decoder too."""
    folder = shutil.copytree(families["pixart"], tmp_path / "pixart")

    def renamed(weights: Weights) -> Weights:
        words = weights.pop("shared.weight")
        names = ("shared.weight", "encoder.embed_tokens.weight") if kept == "both" else (kept,)
        return weights | {name: words.clone() for name in names} | {"lm_head.weight": words.clone()}

    rewrite(folder, "text_encoder", renamed)
    found = load(folder).pipeline.text_encoder
    whole = load_file(weights_file(families["pixart"], "text_encoder"))["shared.weight"]
    assert torch.equal(found.get_input_embeddings().weight, whole)


def sharded(folder: Path) -> list[Path]:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    return sorted((folder / "unet").glob("*.safetensors"))


def test_shards_are_read_and_a_missing_or_exchanged_one_is_named(folder: Path, tiny_backbone) -> None:
    shards = sharded(folder)
    assert load(folder).fingerprints == tiny_backbone.fingerprints
    kept = shards[1].read_bytes()
    shards[1].write_bytes(shards[0].read_bytes())
    assert re.search(rf"{re.escape(shards[1].name)} does not hold .*, which .*index\.json says", refused(folder))
    shards[1].unlink()
    assert f"{shards[1].name} is missing" in refused(folder)
    shards[1].write_bytes(kept)
    load(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "is no safetensors file"),
        (None, "cut short"),
    ],
)
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_files_that_hold_no_weights_are_named(folder: Path, part: str, content: bytes | None, said: str) -> None:
    file = weights_file(folder, part)
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    told = refused(folder)
    assert said in told
    assert str(file) in told


def test_pickles_are_refused_and_not_read(folder: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    weights_file(folder, "unet").unlink()
    torch.save({"a": Harmful()}, folder / "unet" / "diffusion_pytorch_model.bin")
    assert re.search(r"unet has its weights as a pickle \(diffusion_pytorch_model\.bin\)", refused(folder))
    assert not (tmp_path / "ran").exists()


def test_weights_of_a_variant_alone_say_how_to_use_them(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    assert re.search(r"only of a variant \(.*\.fp16\.safetensors\).*without", refused(folder))


@pytest.mark.parametrize("part", ["unet", "scheduler", "tokenizer"])
@pytest.mark.parametrize("library", ["evil", "subprocess"])
def test_parts_of_foreign_libraries_are_refused_and_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, library: str
) -> None:
    ran = tmp_path / "ran"
    for place in (tmp_path / "evil.py", folder / part / "evil.py"):
        place.write_text(f"open({str(ran)!r}, 'w')\nclass UNet2DConditionModel: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {part: [library, "UNet2DConditionModel"]}))
    assert f"{part} is of {library}" in refused(folder)
    assert not ran.exists()


def test_tokenizers_of_other_kinds_are_refused(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"tokenizer": ["transformers", "BertTokenizer"]}))
    assert "tokenizer is of transformers, a BertTokenizer" in refused(folder)


def test_parts_that_a_pipeline_does_not_take_are_not_looked_at(folder: Path) -> None:
    expected = load(folder).fingerprints
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"other": ["this", "that"]}))
    assert load(folder).fingerprints == expected


@pytest.mark.parametrize("name", [["pipeline", "Evil"], None, 3])
def test_an_index_without_a_known_class_is_refused(folder: Path, name: object) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
    assert "is not supported" in refused(folder)


# Tokenizers


def test_a_tokenizer_without_its_vocabulary_is_refused(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert re.search(r"tokenizer.* has \d+ words .* 1\d\d", refused(folder))


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("sdxl", "tokenizer"),
        ("sdxl", "tokenizer_2"),
        ("sd3", "tokenizer"),
        ("sd3", "tokenizer_2"),
        ("sd3", "tokenizer_3"),
        ("pixart", "tokenizer"),
        ("flux", "tokenizer_2"),
    ],
)
def test_every_tokenizer_of_every_family_is_checked(
    families: dict[str, Path], tmp_path: Path, family: str, part: str
) -> None:
    broken = shutil.copytree(families[family], tmp_path / family)
    (broken / part / "tokenizer.json").unlink()
    assert re.search(rf"{part} ", refused(broken))


def test_a_missing_tokenizer_folder_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    assert re.search(r"no folder .*tokenizer, which model_index.json names", refused(folder))


def change_tokenizer(folder: Path, change: Callable[[dict], None]) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_tokenizer_that_tells_no_words_apart_is_refused(folder: Path) -> None:
    def unknown(content: dict) -> None:
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = {
            name if name.startswith("<|") else f"unused-{at}": at for name, at in vocabulary.items()
        }

    change_tokenizer(folder, unknown)
    assert re.search(r"tokenizer gives .* the same", refused(folder))


def clip_vocabulary(words: list[str]) -> tuple[dict[str, int], Any]:
    """Letters, and the words with all the merges that put them together."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    symbols, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in words:
        for end in range(2, len(word) + 1):
            merged = word[:end] + ("</w>" if end == len(word) else "")
            merges.append((word[: end - 1], merged.removeprefix(word[: end - 1])))
            symbols.append(merged)
    vocabulary = {symbol: at for at, symbol in enumerate(dict.fromkeys([*symbols, "<|startoftext|>", "<|endoftext|>"]))}
    return vocabulary, list(dict.fromkeys(merges))


def test_a_tokenizer_without_its_merges_is_refused(tiny_pipeline_folder: Path) -> None:
    """Every word is then spelled in letters, though the vocabulary is whole."""
    from transformers import CLIPTextConfig, CLIPTokenizer

    from diffprobe.backbone.model_folder import check_tokenizer

    vocabulary, merges = clip_vocabulary(["photograph", "kitchen", "orange", "table", "window", "garden"])
    config = CLIPTextConfig(vocab_size=len(vocabulary), max_position_embeddings=77)
    whole, spelling = (
        CLIPTokenizer(vocab=vocabulary, merges=rules, model_max_length=77, unk_token="<|endoftext|>")
        for rules in (merges, [])
    )
    check_tokenizer("tokenizer", whole, config)
    with pytest.raises(UserError, match=r"tokenizer spells .*merges"):
        check_tokenizer("tokenizer", spelling, config)


def test_texts_are_cut_to_what_the_encoder_takes_whatever_the_tokenizer_says(folder: Path, tiny_backbone) -> None:
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>"})
    )
    assert load(folder).pipeline.tokenizer.model_max_length == tiny_backbone.pipeline.tokenizer.model_max_length == 77
