"""What CKA keeps of activations: which grids, which places, and how much."""

import numpy as np
import pytest
import torch

from diffprobe.analyses.similarity.cka import hsic, normalised
from diffprobe.analyses.similarity.kept_tokens import KeptTokens, check_free, grids_of, kept_bytes, places_of
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError

FINE, WIDE, COARSE = (
    Layer(name, "resnet", "mid", channels, height, width)
    for name, channels, height, width in (("fine", 3, 8, 8), ("wide", 5, 4, 8), ("coarse", 6, 4, 4))
)
LAYERS = [FINE, WIDE, COARSE]
NAMES = [f"image_{number}" for number in range(7)]


def activations(seed: int = 0) -> dict[str, torch.Tensor]:
    """{layer: [2 steps, images, channels, h, w]}"""
    random = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randn(2, len(NAMES), layer.channels, layer.height, layer.width, generator=random)
        for layer in LAYERS
    }


def test_layers_are_compared_on_the_coarser_grid_of_each_pair():
    grids = {grid: [layer.name for layer in layers] for grid, layers in grids_of(LAYERS).items()}
    assert grids == {(4, 4): ["fine", "wide", "coarse"], (4, 8): ["fine", "wide"], (8, 8): ["fine"]}


def test_places_depend_on_image_and_seed_and_are_all_where_there_are_few():
    assert places_of("a", (2, 2), 16, 0).tolist() == [0, 1, 2, 3]
    drawn = places_of("a", (8, 8), 16, 0)
    assert len(set(drawn.tolist())) == 16
    assert (np.diff(drawn) > 0).all()
    assert (drawn == places_of("a", (8, 8), 16, 0)).all()
    others = [places_of("b", (8, 8), 16, 0), places_of("a", (8, 8), 16, 1)]
    assert all((drawn != other).any() for other in others)


@pytest.mark.parametrize("tokens", [1000, 5])
def test_cka_is_that_of_area_means_at_the_same_places(tokens):
    values = activations()
    kept = KeptTokens(LAYERS, 2, tokens, seed=3)
    kept.add(values, NAMES)
    found = kept.similarities()

    def of_pair(one, other, grid):
        tokens_of = []
        for name, step in (one, other):
            whole = values[name][step].numpy()
            down, across = whole.shape[-2] // grid[0], whole.shape[-1] // grid[1]
            means = whole.reshape(*whole.shape[:2], grid[0], down, grid[1], across).mean((3, 5)).reshape(7, -1, *(1,))
            means = means.reshape(7, whole.shape[1], -1)
            places = [places_of(image, grid, tokens, 3) for image in NAMES]
            tokens_of.append(np.stack([own[:, at].T for own, at in zip(means, places, strict=True)]))
        return normalised(hsic(tokens_of).unbiased)[0, 1]

    assert found.value[0, 1] == pytest.approx(of_pair(("fine", 0), ("fine", 1), (8, 8)), abs=1e-6)
    assert found.value[1, 2] == pytest.approx(of_pair(("fine", 1), ("wide", 0), (4, 8)), abs=1e-6)
    assert found.value[0, 5] == pytest.approx(of_pair(("fine", 0), ("coarse", 1), (4, 4)), abs=1e-6)
    assert found.value[2, 3] == pytest.approx(of_pair(("wide", 0), ("wide", 1), (4, 8)), abs=1e-6)
    np.testing.assert_allclose(found.value, found.value.T)
    np.testing.assert_allclose(np.diag(found.value), 1)
    assert np.isfinite(found.without).all()


def test_order_and_batches_of_images_do_not_matter():
    values, whole, parts = activations(), KeptTokens(LAYERS, 2, 5, 0), KeptTokens(LAYERS, 2, 5, 0)
    whole.add(values, NAMES)
    for rows in ([4, 2, 6], [0, 1, 5, 3]):
        parts.add({name: own[:, rows] for name, own in values.items()}, [NAMES[row] for row in rows])
    np.testing.assert_allclose(parts.similarities().value, whole.similarities().value, atol=1e-9)


def test_what_is_kept_grows_with_tokens_and_is_refused_where_it_does_not_fit():
    sizes = [kept_bytes(LAYERS, 2, 7, tokens) for tokens in (4, 16)]
    tokens = [7 * 2 * 4 * ((3 + 5 + 6) + (3 + 5) + 3) * each for each in (4, 16)]
    assert sizes[1] - sizes[0] > tokens[1] - tokens[0] > 0
    assert sizes[0] > tokens[0]
    with pytest.raises(UserError, match=r"^CKA need 1e\+03 TB of memory, .*analysis.tokens") as caught:
        check_free(10**15, "CKA")
    assert "\n" not in str(caught.value)
