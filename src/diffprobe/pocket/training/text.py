"""Trains the text encoder to know what a caption says: which colour and shape stands where, from left to right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.pocket.architecture import TEXT_WIDTH, build_text_encoder, build_tokenizer
from diffprobe.pocket.scenes import COLOURS, SHAPES, SceneObject, describe
from diffprobe.pocket.training.fit import PocketModule, fit

SLOTS = 3


class TextModule(PocketModule):
    """Reads the attributes of every object off the tokens after the caption, by a linear map that is thrown away."""

    def __init__(self, steps: int, batch_size: int = 128, learning_rate: float = 2e-3) -> None:
        super().__init__(steps, batch_size, learning_rate, weight_decay=0.01)
        self.tokenizer = build_tokenizer()
        self.text_encoder = build_text_encoder(len(self.tokenizer))
        self.attributes = torch.nn.Linear(TEXT_WIDTH, SLOTS * (len(COLOURS) + len(SHAPES) + 2))

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        captions, colours, shapes = random_captions(self.global_step, self.batch_size)
        tokens = self.tokenizer(captions, padding="max_length", return_tensors="pt").input_ids.to(self.device)
        states = self.text_encoder(tokens).last_hidden_state
        ended = tokens == self.tokenizer.eos_token_id  # the end and the padding behind it have read all words
        logits = self.attributes(states[ended]).unflatten(-1, (SLOTS, -1))
        repeats = ended.sum(1)
        by_colour, by_shape = logits.split((len(COLOURS) + 1, len(SHAPES) + 1), -1)
        loss = functional.cross_entropy(by_colour.flatten(0, 1), colours.repeat_interleave(repeats, 0).flatten())
        loss = loss + functional.cross_entropy(by_shape.flatten(0, 1), shapes.repeat_interleave(repeats, 0).flatten())
        self.log("loss", loss, prog_bar=True)
        return loss


def random_captions(seed: int, count: int) -> tuple[list[str], Tensor, Tensor]:
    """Captions with colour and shape numbers [count, 3]; the number after the last stands for 'no object'."""
    random = np.random.default_rng((11, seed))
    colours = np.full((count, SLOTS), len(COLOURS))
    shapes = np.full((count, SLOTS), len(SHAPES))
    captions = []
    for row in range(count):
        objects = int(random.integers(1, SLOTS + 1))
        colours[row, :objects] = random.integers(len(COLOURS), size=objects)
        shapes[row, :objects] = random.integers(len(SHAPES), size=objects)
        items = [_named(COLOURS[colours[row, i]], SHAPES[shapes[row, i]]) for i in range(objects)]
        captions.append(describe(items, int(random.integers(2))))
    return captions, torch.from_numpy(colours), torch.from_numpy(shapes)


def _named(colour: str, shape: str) -> SceneObject:
    return SceneObject(shape, colour, (0, 0, 0), (1, 1, 1), 0, (0, 0, 0))


def train_text(folder: Path, steps: int, devices: int, precision: str) -> None:
    """Trains and saves `folder/text_encoder` and `folder/tokenizer`."""
    module = TextModule(steps)
    fit(module, folder, devices, precision)
    if module.global_rank == 0:
        module.text_encoder.eval().save_pretrained(folder / "text_encoder")
        module.tokenizer.save_pretrained(folder / "tokenizer")
