"""The untrained parts of the pocket pipeline: Stable Diffusion 1.4's classes and module names at small width."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

from diffprobe.pocket.scenes import COLOURS, SHAPES

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, LMSDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

IMAGE_SIZE = 64
LATENT_SIZE = 16
LATENT_CHANNELS = 4
SCALING_FACTOR = 0.18215
TOKENS = 24
TEXT_WIDTH = 64

WORDS = ("a", "to", "the", "left", "right", "of", "and", "from", ",", *COLOURS, *SHAPES)
START, END = "<|startoftext|>", "<|endoftext|>"


def build_autoencoder() -> AutoencoderKL:
    """64x64 pixels to 16x16 latents of 4 channels. Two norm groups: with 8 the absolute colour is lost."""
    from diffusers import AutoencoderKL

    build: Any = AutoencoderKL  # its annotations are narrower than what it takes
    return build(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=LATENT_CHANNELS,
        sample_size=IMAGE_SIZE,
        scaling_factor=SCALING_FACTOR,
    )


def build_denoiser() -> UNet2DConditionModel:
    """The U-Net of Stable Diffusion 1.4 with its block types and module names, 64 to 96 channels wide."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        block_out_channels=(64, 80, 96, 96),
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # the number of heads, despite its name
        norm_num_groups=8,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """A CLIP text encoder of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose merges spell exactly the words of the scene grammar; other words fall apart to letters."""
    from transformers import CLIPTokenizer

    letters = sorted(set(itertools.chain.from_iterable(WORDS)) | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        while len(parts := _merged(word, merges)) > 1:
            merges.append((parts[0], parts[1]))
    symbols = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    build: Any = CLIPTokenizer
    return build(vocab=vocabulary, merges=merges, model_max_length=TOKENS, unk_token=END)


def _merged(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte pair encoding of one word: every merge, in order."""
    parts = [*word[:-1], word[-1] + "</w>"]
    for pair in merges:
        at = 0
        while at + 1 < len(parts):
            if (parts[at], parts[at + 1]) == pair:
                parts[at : at + 2] = ["".join(pair)]
            at += 1
    return parts


def build_scheduler() -> LMSDiscreteScheduler:
    """Stable Diffusion 1.4's noise schedule and the papers' sampler; the network predicts v, not the noise."""
    from diffusers import LMSDiscreteScheduler

    return LMSDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        steps_offset=1,
    )


def parameters(module: torch.nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
