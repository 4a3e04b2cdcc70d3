"""Marks in a checkpoint file that say what its network predicts and which noise it was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffprobe.backbone.load import Backbone
from diffprobe.backbone.single_file import SD14, checkpoint_scheduler
from diffprobe.backbone.trajectory import fresh_scheduler, generate
from diffprobe.errors import UserError
from tests.backbone.test_single_file import authors_weights, load_tiny

MARK = torch.zeros(1)


def scheduler_of(tmp_path: Path, marks: dict[str, Any], header: dict[str, str] | None = None) -> Any:
    file = tmp_path / "model.safetensors"
    save_file({name: value.clone() for name, value in marks.items()} | {"weight": MARK}, file, header)
    return checkpoint_scheduler(file, marks, SD14)


def test_a_plain_checkpoint_predicts_noise_on_stable_diffusions_schedule(tmp_path: Path) -> None:
    plain = scheduler_of(tmp_path, {})
    assert plain.config.prediction_type == "epsilon"
    # The product of 1 - beta, with square roots of beta evenly spaced (Rombach et al. 2022).
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert torch.allclose(plain.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-4)


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_network_marked_v_pred_is_sampled_as_one(
    tiny_pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    weights = {**authors_weights(tiny_pipeline_folder), "v_pred": MARK}
    file = tmp_path / f"marked{ending}"
    if ending == ".ckpt":
        torch.save({"state_dict": weights}, file)
    else:
        save_file(weights, file)
    words = tiny_pipeline_folder / "tokenizer"
    backbone: Backbone = load_tiny(file, words, tiny_pipeline_folder, monkeypatch, scheduler="ddim", guidance=1.0)
    first = next(generate(backbone, ["a ball"], [1], steps=2))
    # DDIM's step for v = sqrt(alpha) noise - sqrt(1 - alpha) image (Salimans and Ho 2022, appendix D).
    scheduler = fresh_scheduler(backbone, 2)
    alpha, later = (scheduler.alphas_cumprod[int(at)].double() for at in (501, 1))
    with torch.no_grad():
        conditions = backbone.family.conditions(backbone, ["a ball"], False)
        v = backbone.family.evaluate(backbone.denoiser, first.noisy, torch.tensor(501), conditions).double()
    image = alpha.sqrt() * first.noisy.double() - (1 - alpha).sqrt() * v
    noise = alpha.sqrt() * v + (1 - alpha).sqrt() * first.noisy.double()
    expected = later.sqrt() * image + (1 - later).sqrt() * noise
    assert torch.allclose(first.latents.double(), expected, atol=1e-4)


def test_the_header_may_say_so_too(tmp_path: Path) -> None:
    assert scheduler_of(tmp_path, {}, {"modelspec.prediction_type": "v"}).config.prediction_type == "v_prediction"
    assert scheduler_of(tmp_path, {}, {"modelspec.prediction_type": "epsilon"}).config.prediction_type == "epsilon"


def test_a_schedule_marked_ztsnr_ends_in_pure_noise_and_is_walked_from_there(tmp_path: Path) -> None:
    made = scheduler_of(tmp_path, {"v_pred": MARK, "ztsnr": MARK})
    plain = scheduler_of(tmp_path, {}).alphas_cumprod.double().sqrt()
    # Algorithm 1 of Lin et al. 2023: the square roots, shifted and stretched.
    expected = ((plain - plain[-1]) * plain[0] / (plain[0] - plain[-1])) ** 2
    assert torch.allclose(made.alphas_cumprod.double(), expected, atol=1e-5)
    assert made.alphas_cumprod[-1] == 0
    made.set_timesteps(10)
    assert made.timesteps[0] == 999
    assert made.config.prediction_type == "v_prediction"


def test_the_papers_sampler_refuses_such_a_schedule_in_one_line(
    tiny_pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "marked.safetensors"
    save_file({**authors_weights(tiny_pipeline_folder), "v_pred": MARK, "ztsnr": MARK.clone()}, file)
    with pytest.raises(UserError, match=r"scheduler=lms cannot follow .* use scheduler=own, or one of ddim"):
        load_tiny(file, tiny_pipeline_folder / "tokenizer", tiny_pipeline_folder, monkeypatch)


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({"ztsnr": MARK}, "is marked ztsnr but not v_pred"),
        ({"edm_mean": MARK, "edm_std": MARK}, "is marked edm_mean: it was trained with EDM's noise"),
        ({"v_pred": MARK, "edm_vpred.sigma_max": MARK}, r"is marked edm_vpred\.sigma_max"),
        ({"alphas_cumprod": torch.linspace(1, 0, 1000)}, "holds a noise schedule of its own"),
        ({"alphas_cumprod": torch.linspace(1, 0, 50)}, "holds a noise schedule of its own"),
    ],
)
def test_what_no_sampler_here_follows_is_refused(tmp_path: Path, marks: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        scheduler_of(tmp_path, marks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_authors_own_schedule_in_a_file_is_fine_in_any_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    known = scheduler_of(tmp_path, {}).alphas_cumprod
    assert scheduler_of(tmp_path, {"alphas_cumprod": known.to(dtype)}).config.prediction_type == "epsilon"
