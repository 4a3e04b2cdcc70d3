"""A Stable Diffusion 1.x checkpoint in one file, in its authors' names, as a pipeline; without the hub."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.model_folder import SD14, check_tokenizer, read_config
from diffprobe.errors import UserError, one_line
from diffprobe.weights import fill, matching, read_weights

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

# Keys without content that trainers put beside the weights: the network predicts v; its noise schedule ends in pure
# noise (zero terminal SNR, Lin et al. 2023, arXiv 2305.08891).
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
# Begins the keys of another kind of noise schedule (EDM, Karras et al. 2022).
EDM = "edm_"
# The authors' files hold their schedule. Half precision rounds it by 0.002; another schedule differs more.
SCHEDULE, TOLERANCE = "alphas_cumprod", 0.01
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
# Left in checkpoints by training, without influence on images.
IGNORED_PARTS = {
    r"^first_stage_model\.loss\.": "discriminator and perceptual loss of the VAE's training",
    r"^first_stage_model\.model_ema\.": "averages of the VAE's weights",
    r"^cond_stage_model\.(logit_scale|text_projection)": "of the whole CLIP; 1.x takes hidden states from before it",
}
# As wide as the text: tells 1.x from 2.x and from other networks.
TEXT_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def read_single_file(
    file: Path, dtype: torch.dtype, tokenizer: str | None, configs: Path = SD14
) -> StableDiffusionPipeline:
    """Builds the pipeline of a checkpoint; diffusers translates the names of its weights.

    Args:
        file: *.safetensors, or *.ckpt, of which only tensors are read.
        tokenizer: a folder with CLIP's tokenizer, which a checkpoint does not have.
        configs: folder of the parts' configs as `save_pretrained` writes them.

    Raises:
        UserError: no tokenizer, an unreadable file, weights that are not those of a Stable Diffusion 1.x, or an
            unsupported noise schedule (see `checkpoint_scheduler`).
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as translate
    from transformers import CLIPTextConfig, CLIPTextModel

    configuration = {part: read_config(configs / part / "config.json") for part in ("unet", "vae", "text_encoder")}
    text_config = CLIPTextConfig.from_dict(configuration["text_encoder"])
    words = _read_tokenizer(file, tokenizer, text_config)
    weights = _read_weights(file)
    width = configuration["unet"]["cross_attention_dim"]
    if TEXT_KEY not in weights or weights[TEXT_KEY].shape[-1] != width:
        raise UserError(f"{file} is not a Stable Diffusion 1.x checkpoint: no weights for a text of width {width}")
    adapter = [name for name in weights if matching(name, [r"(^|\.)lora_"])]
    if adapter:
        raise UserError(
            f"{file} holds a LoRA that was not fused, {len(adapter)} weights such as {adapter[0]}: merge it into the "
            "checkpoint, or save the checkpoint without it"
        )
    unet: Any = UNet2DConditionModel.from_config(configuration["unet"])
    vae: Any = AutoencoderKL.from_config(configuration["vae"])
    text_encoder: Any = CLIPTextModel(text_config)
    scheduler = checkpoint_scheduler(file, weights, configs)
    # The translation changes the dictionary that it is given.
    _fill(file, unet, UNET, weights, translate.convert_ldm_unet_checkpoint(dict(weights), configuration["unet"]))
    _fill(file, vae, VAE, weights, translate.convert_ldm_vae_checkpoint(dict(weights), configuration["vae"]))
    text = translate.convert_ldm_clip_checkpoint(dict(weights))
    if not hasattr(text_encoder, "text_model"):  # as in transformers 5
        text = {name.removeprefix("text_model."): value for name, value in text.items()}
    _fill(file, text_encoder, TEXT, weights, text)
    return StableDiffusionPipeline(
        unet=unet.to(dtype),
        vae=vae.to(dtype),
        text_encoder=text_encoder.to(dtype),
        tokenizer=words,
        scheduler=scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def checkpoint_scheduler(file: Path, weights: Mapping[str, Any], configs: Path) -> Any:
    """The scheduler of a Stable Diffusion 1.x checkpoint: that of `configs`, changed by the file's markers.

    A file marked `v_pred`, or by `modelspec.prediction_type` in its header, predicts v. If it is marked `ztsnr` too,
    the scheduler is DDIM with betas that end in pure noise and timesteps that begin there.

    Args:
        weights: everything in the file, by name.
        configs: folder of the parts' configs as `save_pretrained` writes them.

    Raises:
        UserError: markers that do not fit together, or an unsupported noise schedule.
    """
    from diffusers import DDIMScheduler, PNDMScheduler
    from safetensors import safe_open

    plain: Any = PNDMScheduler.from_pretrained(configs, subfolder="scheduler")
    edm = next((name for name in sorted(weights) if name.startswith(EDM)), None)
    if edm is not None:
        raise UserError(f"{file} is marked {edm}: it was trained with EDM's noise, which no sampler here has")
    velocity = V_PREDICTION in weights
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            velocity |= (opened.metadata() or {}).get("modelspec.prediction_type") == "v"
    if ZERO_SNR in weights and not velocity:
        raise UserError(
            f"{file} is marked {ZERO_SNR} but not {V_PREDICTION}: a network that predicts the noise can do nothing at "
            f"pure noise; add the key {V_PREDICTION} if it predicts v, or take out {ZERO_SNR}"
        )
    scheduler: Any = plain
    if ZERO_SNR in weights:
        scheduler = DDIMScheduler(
            **{key: value for key, value in plain.config.items() if key.startswith("beta") or key == "trained_betas"},
            num_train_timesteps=plain.config.num_train_timesteps,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
            set_alpha_to_one=False,
        )
    elif velocity:
        scheduler = PNDMScheduler.from_config(plain.config, prediction_type="v_prediction")
    schedule = weights.get(SCHEDULE)
    known = [plain.alphas_cumprod, scheduler.alphas_cumprod]
    if schedule is not None and not any(
        schedule.shape == each.shape and torch.allclose(schedule.float(), each.float(), rtol=0, atol=TOLERANCE)
        for each in known
    ):
        raise UserError(
            f"{file} holds a noise schedule of its own ({SCHEDULE}), which is not Stable Diffusion 1.x's; if it ends "
            f"in pure noise and the network predicts v, mark the file with the keys {V_PREDICTION} and {ZERO_SNR}"
        )
    return scheduler


def _read_tokenizer(file: Path, folder: str | None, text_config: Any) -> CLIPTokenizer:
    """The tokenizer in a folder, for texts as long as the text encoder takes."""
    from transformers import CLIPTokenizer

    how = "give tokenizer=FOLDER: the folder 'tokenizer' of any Stable Diffusion 1.x pipeline, or what `hf download "
    how += "openai/clip-vit-large-patch14 vocab.json merges.txt --local-dir FOLDER` leaves"
    if folder is None:
        raise UserError(f"{file} is a checkpoint without a tokenizer; {how}")
    place = Path(folder).expanduser()
    if not any((place / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise UserError(f"no tokenizer in {place}: neither vocab.json with merges.txt nor tokenizer.json; {how}")
    longest = text_config.max_position_embeddings
    try:
        words = CLIPTokenizer.from_pretrained(place, model_max_length=longest, local_files_only=True)
    except Exception as error:  # whatever a broken folder makes transformers and tokenizers raise
        raise UserError(f"cannot read the tokenizer in {place} ({error}); {how}") from error
    check_tokenizer(f"{place}: the tokenizer", words, text_config)
    return words


def _read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name. A pickle that holds more than tensors could run code: it is refused."""
    if file.suffix == ".safetensors":
        return read_weights(file)
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{file} holds more than weights, or no weights at all; convert it to .safetensors") from error
    except Exception as error:  # a damaged file can make the unpickler raise nearly anything
        raise UserError(f"cannot read the checkpoint {file}: {one_line(error)}") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value for name, value in weights.items() if isinstance(value, Tensor)}


def _fill(file: Path, part: nn.Module, prefix: str, weights: dict[str, Tensor], translated: dict[str, Tensor]) -> None:
    """Fills a part with exactly its weights.

    Args:
        prefix: of the part's weights in the file.
        weights: all of the file.
        translated: the part's, in the names of diffusers or transformers. The translation leaves out what it does not
            know; such weights share no memory with the translated ones, and are refused.
    """
    used = {value.data_ptr() for value in translated.values()}
    unknown = {
        name: value
        for name, value in weights.items()
        if name.startswith(prefix) and not matching(name, IGNORED_PARTS) and value.data_ptr() not in used
    }
    fill(part, translated | unknown, f"{file}: the {type(part).__name__} of a Stable Diffusion 1.x")
