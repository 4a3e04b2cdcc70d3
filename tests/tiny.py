"""A random Stable Diffusion pipeline with SD 1.4's block types and module names, small and fast."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffprobe.backbone.layers import Layer, catalogue, select_layers
from diffprobe.backbone.load import Backbone, load_backbone

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 16
TEXT_TOKENS = 77


def build_tiny_pipeline(folder: Path, sample_size: int = 16, dtype: torch.dtype = torch.float32) -> Path:
    """Writes the pipeline in the layout of the official repository, PNDM scheduler included, and returns the folder.

    Images are 8 times `sample_size` pixels high and wide: 64 gives SD 1.4's 512.
    """
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = build_tiny_tokenizer()
        pipeline = StableDiffusionPipeline(
            unet=build_tiny_denoiser(sample_size),
            vae=build_tiny_autoencoder(8 * sample_size),
            text_encoder=build_tiny_text_encoder(len(tokenizer)),
            tokenizer=tokenizer,
            scheduler=PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                num_train_timesteps=1000,
                skip_prk_steps=True,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.to(dtype=dtype)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def build_tiny_denoiser(sample_size: int | tuple[int, int] = 16) -> UNet2DConditionModel:
    """SD 1.4's U-Net with 8 to 16 channels; what it predicts has about unit variance."""
    from diffusers import UNet2DConditionModel

    denoiser = UNet2DConditionModel(
        sample_size=sample_size,  # type: ignore[arg-type]
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return denoiser.eval()


@cache
def shared_backbone(path: Path, **options: Any) -> Backbone:
    """What is loaded from a folder, on the CPU, once for all tests of a process; do not change it."""
    return load_backbone(str(path), device="cpu", **options)


_LISTED: dict[Any, list[Layer]] = {}


def listed_layers(denoiser: Any) -> list[Layer]:
    """`catalogue`, once for each configuration: to list a small network's layers takes longer than to run it."""
    key = (type(denoiser), repr(sorted(item for item in denoiser.config.items() if not item[0].startswith("_"))))
    if key not in _LISTED:
        _LISTED[key] = catalogue(denoiser)
    return list(_LISTED[key])


def tiny_layers(wanted: str) -> list[Layer]:
    """Of the layers of `build_tiny_denoiser` those asked for."""
    return select_layers(listed_layers(build_tiny_denoiser()), wanted)


def build_tiny_autoencoder(image_size: int) -> AutoencoderKL:
    """An autoencoder of factor 8."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=image_size,
        scaling_factor=0.18215,
    )


def build_tiny_text_encoder(vocabulary: int) -> CLIPTextModel:
    """One layer of CLIP's text encoder."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TEXT_TOKENS,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def build_tiny_tokenizer() -> CLIPTokenizer:
    """Spells every word in letters."""
    from transformers import CLIPTokenizer

    letters = string.ascii_lowercase + string.digits + string.punctuation
    symbols = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_TOKENS, unk_token="<|endoftext|>")


def build_tiny_classifier(folder: Path, classes: list[str]) -> Path:
    """A random ConvNeXt of transformers for images of 32 pixels, with its processor, as `save_pretrained` leaves it."""
    import json

    from transformers import ConvNextConfig, ConvNextForImageClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ConvNextConfig(
            hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, id2label=dict(enumerate(classes)), image_size=32
        )
        network = ConvNextForImageClassification(config).eval()
        for weights in network.parameters():
            weights.data += 0.3 * torch.randn(weights.shape)
    network.save_pretrained(folder)
    processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.875}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
