"""Images at eight bits: the nearest level, and the page's way of writing them as files keeps every one."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.labels.labeler import eight_bit

PAGE = Path(__file__).parents[2] / "docs" / "labels.md"


def test_levels_are_the_nearest_and_none_wraps_around():
    values = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 1 - 0.4 / 255, 1.0, 1.1])
    assert eight_bit(values).tolist() == [0, 0, 0, 1, 255, 255, 255]


@pytest.mark.slow
def test_images_written_as_the_page_says_are_those_a_run_labels(tmp_path, monkeypatch):
    from diffprobe.activations.extraction import extract
    from diffprobe.activations.sources import Generation
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.backbone.load import load_backbone
    from diffprobe.data.prompts import load_prompts

    monkeypatch.chdir(tmp_path)
    written = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    fewer = written.replace("count=4", "count=3").replace("steps=15", "steps=3")
    assert fewer.count("count=3") == fewer.count("steps=3") == 1
    exec(fewer, {})
    backbone = load_backbone("pocket", guidance=2.5)
    layers = select_layers(catalogue(backbone.denoiser), "self_attention&stage=mid")
    source = Generation(load_prompts(count=3), sampling_steps=3)
    images = extract(backbone, source, layers, [2]).images
    for name, image in zip(source.names, images, strict=True):
        written = np.asarray(Image.open(f"images/{name}.png")).astype(int)
        assert np.abs(written - eight_bit(image).permute(1, 2, 0).numpy()).max() <= 1  # another batch size, last bits
