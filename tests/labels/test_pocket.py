"""The pocket labeler gives maps in the labelers' common form and refuses what it cannot know."""

import pytest
import torch
from scipy.stats import spearmanr

from diffprobe.errors import UserError
from diffprobe.labels.pocket import PocketLabeler
from diffprobe.pocket.render import render_indices


@pytest.fixture(scope="module")
def labeler():
    return PocketLabeler()


def test_maps_of_rendered_scenes_are_near_the_exact_ones(labeler):
    scenes = render_indices(range(12), "test")
    names = [str(number) for number in range(12)]
    maps = labeler(scenes.images, names, ["saliency", "depth", "shading"])
    assert set(maps["saliency"].unique().tolist()) == {0.0, 1.0}
    agreement = (maps["saliency"].bool() == scenes.salient).float().mean()
    assert agreement > 0.95
    for name, exact in (("depth", scenes.depth), ("shading", scenes.shading)):
        ranks = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps[name], exact, strict=True)]
        assert sum(ranks) / 12 > 0.8


def test_only_what_was_asked_for_is_given(labeler):
    assert list(labeler(torch.rand(2, 3, 64, 64), ["a", "b"], ["depth"])) == ["depth"]


def test_pictures_of_another_size_are_refused_before_work(labeler):
    labeler.check(["a"], ["depth"], 64)
    with pytest.raises(UserError, match="labeler=files"):
        labeler.check(["a"], ["depth"], 512)


def test_the_fingerprint_is_that_of_the_weights(labeler):
    before = labeler.fingerprint("depth")
    assert PocketLabeler().fingerprint("depth") == before
    other = PocketLabeler()
    next(other.network.parameters()).data += 1
    assert other.fingerprint("depth") != before
