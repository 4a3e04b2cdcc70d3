"""Random pipelines of every other family than Stable Diffusion 1.x, with its block types, small and fast."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.tiny import build_tiny_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import T5EncoderModel, T5Tokenizer

WIDTH = 16  # of every text encoder's output


class Families(Mapping[str, Path]):
    """The folder of each family's pipeline, as `save_pretrained` leaves it; made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> Path:
        folder = self._folder / name
        if not folder.exists():
            build_family(name, folder)
        return folder

    def __iter__(self) -> Iterator[str]:
        return iter(FAMILIES)

    def __len__(self) -> int:
        return len(FAMILIES)


def build_family(name: str, folder: Path) -> Path:
    """Writes the pipeline of a family, one of `FAMILIES`, as `save_pretrained` does, and returns the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        FAMILIES[name]().save_pretrained(folder, safe_serialization=True)
    return folder


def _stable_diffusion_2() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    return StableDiffusionPipeline(
        unet=_unet(use_linear_projection=True, attention_head_dim=(2, 4)),
        vae=tiny_autoencoder(scaling_factor=0.18215),
        text_encoder=CLIPTextModel(_clip_config(hidden_act="gelu")),
        tokenizer=build_tiny_tokenizer(),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1, **_betas()),  # type: ignore[arg-type]
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = _unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return StableDiffusionXLPipeline(
        unet=unet,
        vae=tiny_autoencoder(scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=build_tiny_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(hidden_act="gelu")),
        tokenizer_2=build_tiny_tokenizer(),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **_betas()),  # type: ignore[arg-type]
        add_watermarker=False,
    )


def _ddpm() -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    return DDPMPipeline(unet, DDPMScheduler())


def _pixart() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=16,
    )
    return PixArtAlphaPipeline(
        tokenizer=_t5_tokenizer(),
        text_encoder=_t5(),
        vae=tiny_autoencoder(scaling_factor=0.18215),
        transformer=_louder(transformer),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
    )


def _stable_diffusion_3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=12,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=_louder(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_autoencoder(latent_channels=8, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(_clip_config()),
        tokenizer=build_tiny_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(hidden_act="gelu")),
        tokenizer_2=build_tiny_tokenizer(),
        text_encoder_3=_t5(2 * WIDTH),
        tokenizer_3=_t5_tokenizer(),
    )


def _flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 2, 2),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=tiny_autoencoder(
            scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=build_tiny_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
        transformer=_louder(transformer),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd2": _stable_diffusion_2,
    "sdxl": _stable_diffusion_xl,
    "ddpm": _ddpm,
    "pixart": _pixart,
    "sd3": _stable_diffusion_3,
    "flux": _flux,
}


def _betas() -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _unet(**options: Any) -> UNet2DConditionModel:
    """Two levels, 8 and 16 channels, for latents of 16 x 16."""
    from diffusers import UNet2DConditionModel

    common = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(common | options))


def tiny_autoencoder(**options: Any) -> AutoencoderKL:
    """An autoencoder of factor 2."""
    from diffusers import AutoencoderKL

    common = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "latent_channels": 4,
        "sample_size": 32,
    }
    return AutoencoderKL(**(common | options))


def _louder(transformer: Any) -> Any:
    """A new transformer's gates are nearly shut, and text and time would not be seen in what it says."""
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1 / parameter[0].numel() ** 0.5)
    return transformer


def _clip_config(**options: Any) -> Any:
    from transformers import CLIPTextConfig

    vocabulary = len(build_tiny_tokenizer())
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=32,
        projection_dim=WIDTH,
        num_hidden_layers=2,  # SDXL and Stable Diffusion 3 take the last but one
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        **options,
    )


def _t5(width: int = WIDTH) -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=len(_t5_tokenizer()), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config)


def _t5_tokenizer() -> T5Tokenizer:
    """Spells every word in letters."""
    from transformers import T5Tokenizer

    symbols = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase, *string.punctuation]
    return T5Tokenizer(vocab=[(symbol, -1.0) for symbol in symbols], extra_ids=0)
