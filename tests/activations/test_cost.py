"""Operations and memory of networks, against counts by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from diffprobe.activations.cost import Cost, cost_of


def test_operations_and_bytes_of_a_convolution_are_those_counted_by_hand():
    with torch.device("meta"):
        network, picture = nn.Conv2d(3, 8, 3, padding=1), torch.empty(1, 3, 16, 16)
    assert cost_of(network, lambda: network(picture)) == Cost(2 * 3 * 8 * 9 * 16 * 16, 4 * 8 * 16 * 16)


def test_weights_are_not_counted_and_a_freed_tensor_makes_room_for_the_next():
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(10, 10) for _ in range(5)))
        rows = torch.empty(7, 10)
    assert cost_of(network, lambda: network(rows)) == Cost(5 * 2 * 7 * 10 * 10, 2 * 4 * 7 * 10)


def test_attention_holds_no_matrix():
    query, key = torch.empty(1, 2, 50, 4, device="meta"), torch.empty(1, 2, 60, 4, device="meta")
    found = cost_of(nn.Identity(), lambda: functional.scaled_dot_product_attention(query, key, key))
    assert found == Cost(2 * (2 * 50 * 60 * 4) * 2, 4 * 2 * 50 * 4)
