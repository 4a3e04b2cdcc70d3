"""What a checkpoint file says, beside its weights, of the noise that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffprobe.errors import UserError

# Keys without content that trainers put beside the weights: the network predicts v; its noise schedule ends in pure
# noise (zero terminal SNR, Lin et al. 2023, arXiv 2305.08891).
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
# A noise schedule of another kind (Karras et al. 2022), with its constants.
EDM = "edm_"
# The authors' files hold their schedule too. Half precision rounds it by 0.002; another schedule is further off.
SCHEDULE, SAME = "alphas_cumprod", 0.01


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
    velocity = V_PREDICTION in weights or _said_in_header(file) == "v"
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
        found.shape == each.shape and torch.allclose(found.float(), each.float(), rtol=0, atol=SAME) for each in known
    )
    if not same:
        raise UserError(
            f"{file} holds a noise schedule of its own ({SCHEDULE}), which is not Stable Diffusion 1.x's; if it ends "
            f"in pure noise and the network predicts v, mark the file with the keys {V_PREDICTION} and {ZERO_SNR}"
        )


def _said_in_header(file: Path) -> str | None:
    """What the header of a safetensors file says that the network predicts, as ModelSpec has it: 'v' or 'epsilon'."""
    if file.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return (opened.metadata() or {}).get("modelspec.prediction_type")
