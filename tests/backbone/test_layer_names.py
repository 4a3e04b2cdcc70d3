"""Short names of layers."""

import pytest

from diffprobe.backbone.layers import network_order, short_names
from diffprobe.report.choices import HEADLINE_LAYER
from tests.report.made_up_run import LAYERS

UP = "up_blocks.1.attentions.2.transformer_blocks.0"


def test_self_attention_layers_get_the_names_of_their_blocks():
    names = short_names(LAYERS)

    assert names[HEADLINE_LAYER] == "up 3.0"
    assert names["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"] == "mid"
    assert names["down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0"] == "down 0.1"
    assert len(set(names.values())) == len(LAYERS)


def test_layers_of_one_block_are_told_apart_by_kind():
    names = short_names([f"{UP}.attn1.to_out.0", f"{UP}.attn2.to_out.0", "up_blocks.1.resnets.2"])

    assert list(names.values()) == ["up 1.2 self", "up 1.2 cross", "up 1.2 resnet"]


def test_layers_that_no_short_name_tells_apart_keep_their_full_names():
    deep = [
        "up_blocks.1.attentions.2.transformer_blocks.0.attn1",
        "up_blocks.1.attentions.2.transformer_blocks.1.attn1",
    ]

    assert short_names(deep) == {name: name for name in deep}


@pytest.mark.parametrize("name", ["transformer_blocks.3.attn", "conv_in"])
def test_a_layer_of_another_shape_keeps_its_name(name):
    assert short_names([name]) == {name: name}


def test_network_order_restores_the_execution_order_of_shuffled_layers():
    assert network_order(sorted(LAYERS, key=lambda name: name[::-1])) == LAYERS


def test_network_order_follows_a_block_from_residual_block_to_cross_attention():
    block = ["up_blocks.1.resnets.2", f"{UP}.attn1.to_out.0", f"{UP}.attn2.to_out.0", "up_blocks.2.resnets.0"]

    assert network_order(reversed(block)) == block
