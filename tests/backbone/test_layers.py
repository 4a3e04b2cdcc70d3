from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from diffprobe.backbone.layers import Layer, catalogue, select_layers
from diffprobe.backbone.load import denoiser_without_weights
from diffprobe.errors import UserError
from tests.tiny import build_tiny_denoiser

HEADLINE = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"


@pytest.fixture(scope="module")
def sd14() -> list[Layer]:
    return catalogue(denoiser_without_weights("sd14"))


@pytest.fixture(scope="module")
def wide() -> list[Layer]:
    """A U-Net for latents 16 high and 24 wide."""
    return catalogue(build_tiny_denoiser((16, 24)))


def names(layers: list[Layer]) -> list[str]:
    return [layer.name for layer in layers]


def test_sd14_blueprint_has_the_published_number_of_parameters_and_no_weights() -> None:
    denoiser = denoiser_without_weights("sd14")
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 859_520_964
    assert all(parameter.is_meta for parameter in denoiser.parameters())


def test_sd14_has_the_papers_self_attention_layers(sd14: list[Layer]) -> None:
    found = select_layers(sd14, "self_attention")
    assert [(layer.tokens, layer.channels) for layer in found] == [
        *[(4096, 320)] * 2,
        *[(1024, 640)] * 2,
        *[(256, 1280)] * 2,
        (64, 1280),
        *[(256, 1280)] * 3,
        *[(1024, 640)] * 3,
        *[(4096, 320)] * 3,
    ]
    assert [layer.stage for layer in found] == ["encoder"] * 6 + ["mid"] + ["decoder"] * 9
    assert HEADLINE in names(found)


@pytest.mark.parametrize(
    ("pattern", "kind", "count"),
    [
        ("*.attn2.to_out.0", "cross_attention", 16),
        ("*.resnets.[0-9]", "resnet", 22),
        ("*.attentions.[0-9]", "attention_block", 16),
        ("*.transformer_blocks.[0-9]", "transformer_block", 16),
        ("*.ff", "feed_forward", 16),
        ("*samplers.0", "sampler", 6),
        ("conv_*t", "convolution", 1),
        ("conv_in", "convolution", 1),
        ("mid_block", "block", 1),
        ("*_blocks.[0-9]", "block", 8),
    ],
)
def test_every_part_of_the_network_is_listed_with_its_kind(
    sd14: list[Layer], pattern: str, kind: str, count: int
) -> None:
    found = [layer for layer in sd14 if fnmatchcase(layer.name, pattern) and layer.kind == kind]
    assert len(found) == count


def test_text_and_time_modules_are_not_listed(sd14: list[Layer]) -> None:
    assert not {"time_proj", "time_embedding", "down_blocks.0.resnets.0.time_emb_proj"}.intersection(names(sd14))
    assert not any("attn2.to_k" in name or "attn2.to_v" in name for name in names(sd14))
    assert any("attn1.to_k" in name for name in names(sd14))


def test_dropout_and_modules_that_run_twice_are_not_listed(sd14: list[Layer]) -> None:
    assert not any(name.endswith((".to_out.1", ".dropout", ".nonlinearity")) for name in names(sd14))
    assert len(set(names(sd14))) == len(sd14)


def test_catalogue_is_in_execution_order(sd14: list[Layer]) -> None:
    order = names(sd14)
    expected = ["conv_in", "down_blocks.0.resnets.0", "down_blocks.0.attentions.0", "down_blocks.0.resnets.1"]
    expected += ["down_blocks.0.downsamplers.0", "down_blocks.0", "mid_block.resnets.0", "mid_block.attentions.0"]
    expected += ["mid_block", "up_blocks.0.resnets.0", "up_blocks.0.upsamplers.0", "up_blocks.3", "conv_out"]
    positions = [order.index(name) for name in expected]
    assert positions == sorted(positions)


def test_latents_that_are_not_square_give_tokens_their_height_and_width(wide: list[Layer]) -> None:
    sizes = {(layer.height, layer.width) for layer in select_layers(wide, "self_attention")}
    assert sizes == {(16, 24), (8, 12), (4, 6), (2, 3)}


def test_catalogue_leaves_the_denoiser_without_hooks() -> None:
    denoiser = build_tiny_denoiser(16)
    catalogue(denoiser)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in denoiser.modules())


def test_models_that_need_more_inputs_are_refused() -> None:
    denoiser = build_tiny_denoiser(16)
    denoiser.register_to_config(addition_embed_type="image")
    with pytest.raises(UserError, match="addition_embed_type"):
        catalogue(denoiser)


def test_choice_by_name_glob_kind_and_condition(sd14: list[Layer]) -> None:
    assert names(select_layers(sd14, HEADLINE)) == [HEADLINE]
    assert len(select_layers(sd14, "up_blocks.*.attn1.to_out.0")) == 9
    assert select_layers(sd14, "kind=resnet") == select_layers(sd14, "resnet")
    assert {layer.stage for layer in select_layers(sd14, "stage=mid")} == {"mid"}
    assert {(layer.height, layer.width) for layer in select_layers(sd14, "resolution=16")} == {(16, 16)}


def test_conditions_joined_by_ampersand_must_all_hold(sd14: list[Layer]) -> None:
    found = select_layers(sd14, "self_attention & stage=decoder & resolution=32")
    assert names(found) == [f"up_blocks.2.attentions.{n}.transformer_blocks.0.attn1.to_out.0" for n in range(3)]
    assert select_layers(sd14, "up_blocks.2.*&kind=self_attention") == found


def test_choice_is_in_execution_order_without_duplicates(sd14: list[Layer]) -> None:
    found = select_layers(sd14, ["up_blocks.0.resnets.[0-9]", "mid_block.resnets.1", "mid_block.resnets.[0-9]"])
    mid = [f"mid_block.resnets.{n}" for n in range(2)]
    assert names(found) == [*mid, *(f"up_blocks.0.resnets.{n}" for n in range(3))]


def test_resolution_of_an_oblong_layer_is_height_x_width(wide: list[Layer]) -> None:
    assert {(layer.height, layer.width) for layer in select_layers(wide, "resolution=8x12")} == {(8, 12)}
    with pytest.raises(UserError, match=r"no layer has resolution '16'; this model has: 16x24, 8x12"):
        select_layers(wide, "resolution=16")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out", rf"no layer .*nearest: {HEADLINE}"),
        ("self_atention", "nearest: self_attention"),
        ("kind=self_atention", "no layer has kind 'self_atention'; this model has: .*self_attention"),
        ("stage=middle", "no layer has stage 'middle'; this model has: encoder, mid, decoder"),
        ("size=16", "cannot choose layers by 'size' .*kind, stage, resolution"),
        ("up_blocks.9.*", r"no layer 'up_blocks\.9\.\*'"),
        ("self_attention&resolution=8&stage=decoder", "none meets them all"),
    ],
)
def test_what_matches_nothing_is_named_with_the_nearest(sd14: list[Layer], item: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        select_layers(sd14, ["resnet", item])


def test_an_empty_choice_is_refused(sd14: list[Layer]) -> None:
    with pytest.raises(UserError, match="no layers asked for"):
        select_layers(sd14, [])
