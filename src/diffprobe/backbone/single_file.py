"""A Stable Diffusion 1.x checkpoint in one file, in its authors' names, as a pipeline; nothing is asked of the hub.

What a checkpoint file says, beside its weights, of the noise that it was trained with.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.model_folder import read_config
from diffprobe.backbone.parts import check_tokenizer
from diffprobe.errors import UserError, one_line
from diffprobe.weights import fill, matching, read_weights

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer


# Keys without content that trainers put beside the weights: the network predicts v; its noise schedule ends in pure
# noise (zero terminal SNR, Lin et al. 2023, arXiv 2305.08891).
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
# A noise schedule of another kind (Karras et al. 2022), with its constants.
EDM = "edm_"
# The authors' files hold their schedule too. Half precision rounds it by 0.002; another schedule is further off.
SCHEDULE, TOLERANCE = "alphas_cumprod", 0.01


def checkpoint_scheduler(file: Path, weights: Mapping[str, Any], configs: Path) -> Any:
    """The scheduler of a Stable Diffusion 1.x checkpoint: the one of `configs`, for what the file's marks ask.

    A file marked `v_pred` (or `modelspec.prediction_type` of its header) predicts v. If it is marked `ztsnr` too, it is
    a DDIM scheduler with the betas moved to end in pure noise, and timesteps that begin there.

    Args:
        weights: all that is in the file, by name.
        configs: folder of the parts' configs as `save_pretrained` writes them.

    Raises:
        UserError: marks that do not go together, or a noise schedule that no sampler here has.
    """
    from diffusers import DDIMScheduler, PNDMScheduler

    plain: Any = PNDMScheduler.from_pretrained(configs, subfolder="scheduler")
    edm = next((name for name in sorted(weights) if name.startswith(EDM)), None)
    if edm is not None:
        raise UserError(f"{file} is marked {edm}: it was trained with EDM's noise, which no sampler here has")
    velocity = V_PREDICTION in weights or _prediction_in_header(file) == "v"
    if ZERO_SNR in weights and not velocity:
        raise UserError(
            f"{file} is marked {ZERO_SNR} but not {V_PREDICTION}: a network that predicts the noise can do nothing at "
            f"pure noise; add the key {V_PREDICTION} if it predicts v, or take out {ZERO_SNR}"
        )
    made: Any = plain
    if velocity:
        made = PNDMScheduler.from_config(plain.config, prediction_type="v_prediction")
    if ZERO_SNR in weights:
        kept = {key: value for key, value in made.config.items() if key.startswith("beta") or key == "trained_betas"}
        made = DDIMScheduler(
            **kept,
            num_train_timesteps=made.config.num_train_timesteps,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
            set_alpha_to_one=False,
        )
    _check_schedule(file, weights.get(SCHEDULE), [plain.alphas_cumprod, made.alphas_cumprod])
    return made


def _check_schedule(file: Path, found: Tensor | None, known: list[Tensor]) -> None:
    """Raises UserError if the file holds a noise schedule that is none of the known ones."""
    if found is None:
        return
    same = any(
        found.shape == each.shape and torch.allclose(found.float(), each.float(), rtol=0, atol=TOLERANCE)
        for each in known
    )
    if not same:
        raise UserError(
            f"{file} holds a noise schedule of its own ({SCHEDULE}), which is not Stable Diffusion 1.x's; if it ends "
            f"in pure noise and the network predicts v, mark the file with the keys {V_PREDICTION} and {ZERO_SNR}"
        )


def _prediction_in_header(file: Path) -> str | None:
    """What the header of a safetensors file says that the network predicts, as ModelSpec has it: 'v' or 'epsilon'."""
    if file.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return (opened.metadata() or {}).get("modelspec.prediction_type")


SD14 = Path(str(files("diffprobe") / "backbone" / "configs" / "stable-diffusion-v1-4"))
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
# What the authors' training left in its checkpoints, and no picture depends on.
IGNORED_PARTS = {
    r"^first_stage_model\.loss\.": "the discriminator and the measure of likeness that the VAE was trained with",
    r"^first_stage_model\.model_ema\.": "averages of the VAE's weights",
    r"^cond_stage_model\.(logit_scale|text_projection)": "of the whole CLIP; 1.x takes hidden states from before it",
}
# As wide as the text: tells 1.x from 2.x, and from what is no Stable Diffusion.
TEXT_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def read_single_file(
    file: Path, dtype: torch.dtype, tokenizer: str | None, configs: Path = SD14
) -> StableDiffusionPipeline:
    """Builds the pipeline of a checkpoint, with the authors' names for its weights translated by diffusers.

    Args:
        file: *.safetensors, or *.ckpt, of which nothing but tensors is read.
        tokenizer: a folder with CLIP's tokenizer: a checkpoint has none, and it is too large to come with the package.
        configs: folder of the parts' configs as `save_pretrained` writes them.

    Raises:
        UserError: no tokenizer, an unreadable file, weights that are not those of a Stable Diffusion 1.x, or marks of
            another noise schedule than `checkpoint_scheduler` knows.
    """
    text = read_config(configs / "text_encoder" / "config.json")
    words = _read_tokenizer(file, tokenizer, text)
    weights = _read_weights(file)
    settings = {part: read_config(configs / part / "config.json") for part in ("unet", "vae")}
    width = settings["unet"]["cross_attention_dim"]
    if TEXT_KEY not in weights or weights[TEXT_KEY].shape[-1] != width:
        raise UserError(f"{file} is not a Stable Diffusion 1.x checkpoint: no weights for a text of width {width}")

    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as translate
    from transformers import CLIPTextConfig, CLIPTextModel

    _check_no_adapter(file, weights)
    unet: Any = UNet2DConditionModel.from_config(settings["unet"])
    vae: Any = AutoencoderKL.from_config(settings["vae"])
    text_encoder: Any = CLIPTextModel(CLIPTextConfig.from_dict(text))
    scheduler = checkpoint_scheduler(file, weights, configs)
    # The translation changes the dictionary that it is given.
    _fill(file, unet, UNET, weights, translate.convert_ldm_unet_checkpoint(dict(weights), settings["unet"]))
    _fill(file, vae, VAE, weights, translate.convert_ldm_vae_checkpoint(dict(weights), settings["vae"]))
    translated = translate.convert_ldm_clip_checkpoint(dict(weights))
    _fill(file, text_encoder, TEXT, weights, _text_weights(text_encoder, translated))
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


def _read_tokenizer(file: Path, folder: str | None, text: dict[str, Any]) -> CLIPTokenizer:
    """The tokenizer in a folder, for texts as long as the text encoder takes."""
    from transformers import CLIPTextConfig, CLIPTokenizer

    how = "give tokenizer=FOLDER: the folder 'tokenizer' of any Stable Diffusion 1.x pipeline, or what `hf download "
    how += "openai/clip-vit-large-patch14 vocab.json merges.txt --local-dir FOLDER` leaves"
    if folder is None:
        raise UserError(f"{file} is a checkpoint without a tokenizer; {how}")
    place = Path(folder).expanduser()
    if not any((place / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise UserError(f"no tokenizer in {place}: neither vocab.json with merges.txt nor tokenizer.json; {how}")
    try:
        words = CLIPTokenizer.from_pretrained(
            place, model_max_length=text["max_position_embeddings"], local_files_only=True
        )
    except Exception as error:  # whatever a broken folder makes transformers and tokenizers raise
        raise UserError(f"cannot read the tokenizer in {place} ({error}); {how}") from error
    check_tokenizer(f"{place}: the tokenizer", words, CLIPTextConfig.from_dict(text))
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


def _text_weights(text_encoder: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the names of the installed transformers, which has the encoder in a module `text_model` or not."""
    if not hasattr(text_encoder, "text_model"):
        weights = {name.removeprefix("text_model."): value for name, value in weights.items()}
    return weights


def _check_no_adapter(file: Path, weights: dict[str, Tensor]) -> None:
    """Raises UserError for a LoRA that lies beside the networks: it would not be applied, without a word."""
    found = [name for name in weights if matching(name, [r"(^|\.)lora_"])]
    if found:
        raise UserError(
            f"{file} holds a LoRA that was not fused, {len(found)} weights such as {found[0]}: merge it into the "
            "checkpoint, or save the checkpoint without it"
        )


def _fill(file: Path, part: nn.Module, prefix: str, weights: dict[str, Tensor], translated: dict[str, Tensor]) -> None:
    """Every weight of a part, no more and no less.

    Args:
        prefix: of the part's weights in the file.
        weights: all of the file.
        translated: the part's, in the names of diffusers or transformers. Whatever was translated shares its memory
            with what was read, so what does not was left out by the translation, which says nothing of it.
    """
    what = f"{file}: the {type(part).__name__} of a Stable Diffusion 1.x"
    used = {value.data_ptr() for value in translated.values()}
    own = {
        name: value for name, value in weights.items() if name.startswith(prefix) and not matching(name, IGNORED_PARTS)
    }
    unused = {name: value for name, value in own.items() if value.data_ptr() not in used}
    fill(part, translated | unused, what)
