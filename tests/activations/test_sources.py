"""Every source of real images gives, row by row, what its function gives, and says what determines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.activations.extraction import extract, extract_replayed
from diffprobe.activations.sources import ImageToImage, Inversion, Noised
from diffprobe.activations.store.manifest import describe
from diffprobe.backbone.capture import encode_images
from diffprobe.backbone.real_images import evaluate_noised, image_to_image, invert, seed_of
from diffprobe.data.images import ImageFileCollection, load_images, read_image
from diffprobe.errors import UserError
from tests.tiny import tiny_layers

CALLED = {"control": "same", "seed": 0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8)).save(folder / f"{name}.png")
    return load_images(folder)


@pytest.fixture(scope="module")
def layers():
    return tiny_layers("self_attention&stage=decoder")[-2:]


@pytest.fixture(scope="module")
def by_function(tiny_backbone, files, layers):
    """What the functions below the sources give for each image alone."""
    names = [layer.name for layer in layers]

    def of(kind: str, file):
        with torch.no_grad():
            clean = encode_images(tiny_backbone, read_image(file, 128)[None])
        seeds = [seed_of(file.name)]
        if kind == "noised":
            return evaluate_noised(tiny_backbone, clean, seeds, [10, 500], names, draws=2)
        if kind == "inversion":
            return invert(tiny_backbone, clean, steps=3, layers=names)
        return image_to_image(tiny_backbone, clean, seeds, strength=0.7, steps=3, layers=names)

    return of


def sources(files):
    return {
        "noised": Noised(ImageFileCollection(files), timesteps=[10, 500], draws=2),
        "inversion": Inversion(ImageFileCollection(files), sampling_steps=3),
        "image_to_image": ImageToImage(ImageFileCollection(files), strength=0.7, sampling_steps=3),
    }


@pytest.mark.parametrize("kind", ["noised", "inversion", "image_to_image"])
def test_rows_hold_what_the_function_gives_for_that_image(tiny_backbone, files, layers, by_function, kind):
    source = sources(files)[kind]
    steps = sorted(source.timesteps(tiny_backbone))
    found = extract(tiny_backbone, source, layers, steps, dtype="float32", batch_size=2)
    assert found.activations.names == ["a", "b", "c"]
    for row, file in enumerate(files):
        for at, step in enumerate(by_function(kind, file)):
            assert (step.index, step.timestep) == (found.activations.steps[at], found.activations.timesteps[at])
            for layer in layers:
                wanted, stored = step.activations[layer.name][0], found.activations.values[layer.name][at, row]
                assert torch.allclose(stored, wanted, rtol=1e-4, atol=1e-4)


def test_an_image_that_is_replaced_during_a_run_does_not_get_into_its_store(tiny_backbone, tmp_path, layers):
    (tmp_path / "photos").mkdir()
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (8, 8, 3), np.uint8))
    picture.save(tmp_path / "photos/a.png")
    source = Noised(ImageFileCollection(load_images(tmp_path / "photos")), timesteps=[10])
    before = describe(tiny_backbone, source, layers, [0], "float32", 4, identified=True)  # hashes, as a plan does
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/a.png")
    with pytest.raises(UserError, match=r"the image .*a\.png was changed while it was in use"):
        extract(tiny_backbone, source, layers, [0], dtype="float32", stores=tmp_path / "stores")
    assert describe(tiny_backbone, source, layers, [0], "float32", 4, identified=True).fingerprint == before.fingerprint
    picture.save(tmp_path / "photos/a.png")
    found = extract(tiny_backbone, source, layers, [0], dtype="float32", stores=tmp_path / "stores")
    assert found.computed == 1  # nothing was kept of the other picture


@pytest.mark.parametrize("kind", ["noised", "inversion", "image_to_image"])
def test_a_replay_by_the_same_network_repeats_the_run(tiny_backbone, files, layers, kind):
    source = sources(files)[kind]
    steps = sorted(source.timesteps(tiny_backbone))
    first = extract(tiny_backbone, source, layers, steps, dtype="float32")
    again = extract_replayed(tiny_backbone, tiny_backbone.denoiser, first, CALLED, batch_size=2)
    for layer in layers:
        one, other = first.activations.values[layer.name], again.activations.values[layer.name]
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_only_wanted_timesteps_are_evaluated(tiny_backbone, files, layers):
    source = sources(files)["noised"]
    seen = []
    hook = tiny_backbone.denoiser.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    early = tiny_backbone.denoiser.conv_in.register_forward_hook(lambda module, inputs, output: seen.append(0))
    try:
        found = extract(tiny_backbone, source, layers, [1], batch_size=3)
    finally:
        hook.remove()
        early.remove()
    assert seen == [0, 0]  # two draws of one batch, neither of which gets to the end
    assert found.activations.timesteps == [500]
    assert source.evaluations(tiny_backbone, [1]) == 2


def test_real_images_are_kept_as_they_are_and_generated_ones_decoded(tiny_backbone, files, layers):
    noised = extract(tiny_backbone, sources(files)["noised"], layers, [0])
    assert torch.equal(noised.images[1], read_image(files[1], 128))
    assert torch.equal(noised.decode_steps(tiny_backbone, 1)[0], noised.images[1])
    redrawn = extract(tiny_backbone, sources(files)["image_to_image"], layers, [2])
    assert torch.allclose(redrawn.decode_steps(tiny_backbone, 0)[-1], redrawn.images[0], atol=1e-4)
    assert not torch.allclose(redrawn.images[1], noised.images[1], atol=0.05)


def test_whatever_changes_activations_changes_the_fingerprint(tiny_backbone, files, layers, tmp_path):
    copy = tmp_path / "a.png"
    Image.open(files[0].path).rotate(90).save(copy)
    every = [
        Noised(ImageFileCollection(files)),
        Noised(ImageFileCollection(files), timesteps=[1]),
        Noised(ImageFileCollection(files), timesteps=[1], draws=2),
        Noised(ImageFileCollection(files), noise="off"),
        Noised(ImageFileCollection(files, "crop")),
        Noised(ImageFileCollection(files[:2])),
        Noised(ImageFileCollection([*load_images([copy], root=tmp_path), *files[1:]])),
        Inversion(ImageFileCollection(files), sampling_steps=1),
        ImageToImage(ImageFileCollection(files), strength=1, sampling_steps=1),
    ]
    prints = [
        describe(tiny_backbone, source, layers, [0], "float16", 4, identified=True).fingerprint for source in every
    ]
    assert len(set(prints)) == len(prints)
