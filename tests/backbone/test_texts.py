"""What is told of prompts that a model does not see as they are written."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import diffprobe as dp
from diffprobe.analyses.inputs import Inputs
from diffprobe.api.settings import compose_settings
from diffprobe.backbone.capture import encode_prompts
from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.backbone.texts import text_warnings
from diffprobe.data.prompts import scene_prompts
from diffprobe.runs.folder import read_settings


@pytest.fixture(scope="module")
def pocket() -> Backbone:
    return load_backbone("pocket")


def with_tokenizers(backbone: Backbone, **tokenizers: Any) -> Any:
    return replace(backbone, pipeline=SimpleNamespace(**tokenizers))


def test_captions_of_the_built_in_world_are_seen_whole(pocket: Backbone) -> None:
    assert text_warnings(pocket, {prompt.name: prompt.text for prompt in scene_prompts(200)}) == []


def test_words_that_the_built_in_model_was_not_trained_on_are_told(pocket: Backbone) -> None:
    (line,) = text_warnings(pocket, {"one": "a red cube", "two": "A red DOG, a dog and a cat"})
    assert "does not know all words of 1 of 2 prompts, first 'dog', 'cat' of two" in line


def test_what_a_tokenizer_cuts_off_is_told(pocket: Backbone) -> None:
    fits, longer = " ".join(["red"] * 22), " ".join([*["red"] * 22, "cube"])  # start and end are tokens too
    assert text_warnings(pocket, {"fits": fits}) == []
    (line,) = text_warnings(pocket, {"fits": fits, "longer": longer})
    assert "reads 24 tokens of a text and cuts off the rest: 1 of 2 prompts are longer, first longer with 25" in line
    assert line.endswith("red red'")
    assert "cube" not in line


def test_tokenizers_of_one_limit_are_told_of_once(pocket: Backbone) -> None:
    own = pocket.pipeline.tokenizer
    two = with_tokenizers(pocket, tokenizer=own, tokenizer_2=own)
    assert len([line for line in text_warnings(two, {"long": "red " * 30}) if "cuts off" in line]) == 1


def test_a_model_without_text_has_nothing_to_tell(pocket: Backbone) -> None:
    assert text_warnings(with_tokenizers(pocket), {"any": "dog " * 100}) == []


def test_the_libraries_do_not_say_it_again_in_every_batch(pocket: Backbone, caplog: Any) -> None:
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).addHandler(caplog.handler)
    try:
        encode_prompts(pocket, ["red " * 40], guided=True)
    finally:
        for name in ("diffusers", "transformers"):
            logging.getLogger(name).removeHandler(caplog.handler)
    assert not caplog.records


def test_python_warns_and_a_command_prints(tmp_path: Any) -> None:
    with pytest.warns(UserWarning, match="does not know all words of 1 of 1 prompts, first 'dog'"):
        dp.load("pocket").generate(["a red dog"], steps=1)
    file = tmp_path / "prompts.csv"
    file.write_text("prompts,seeds\na red dog,1\na blue cube,2\n")
    told: list[str] = []
    _, settings = compose_settings("train", [f"data.prompts={file}"])
    first, _ = Inputs(settings, told.append, read_settings).source.names
    assert any(f"first 'dog' of {first}:" in line for line in told)
