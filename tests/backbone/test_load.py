from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.backbone.model_folder import find_model
from diffprobe.backbone.samplers import SCHEDULERS
from diffprobe.backbone.trajectory import fresh_scheduler
from diffprobe.errors import UserError
from tests.tiny import build_tiny_pipeline


def test_backbone_is_frozen_and_carries_no_safety_checker(tiny_backbone: Backbone) -> None:
    pipeline = tiny_backbone.pipeline
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert pipeline.safety_checker is None
    assert pipeline.progress_bar(range(1)).disable


def test_backbone_tells_its_sizes_and_name(tiny_backbone: Backbone) -> None:
    assert tiny_backbone.latent_shape == (4, 16, 16)
    assert tiny_backbone.image_size == 128
    assert tiny_backbone.name == "tiny"
    assert tiny_backbone.guidance == 7.5


def test_half_precision_folder_loads_and_runs_in_single_precision(tmp_path: Path) -> None:
    folder = build_tiny_pipeline(tmp_path / "half", sample_size=8, dtype=torch.float16)
    pipeline = load_backbone(str(folder), device="cpu").pipeline
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        assert {tensor.dtype for tensor in part.parameters()} == {torch.float32}
    images = pipeline("a ball", num_inference_steps=2, output_type="pt").images
    assert torch.isfinite(images).all()


def test_lms_of_a_resaved_sd14_folder_is_the_papers_sampler(tiny_backbone: Backbone) -> None:
    from diffusers import LMSDiscreteScheduler

    paper = LMSDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
    )
    ours = type(tiny_backbone.pipeline.scheduler).from_config(tiny_backbone.pipeline.scheduler.config)
    for scheduler in (paper, ours):
        scheduler.set_timesteps(15)
    assert isinstance(ours, LMSDiscreteScheduler)
    assert torch.equal(paper.timesteps, ours.timesteps)
    assert torch.equal(paper.sigmas, ours.sigmas)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_keeps_the_noise_schedule_of_the_model(tiny_pipeline_folder: Path, scheduler: str) -> None:
    backbone = load_backbone(str(tiny_pipeline_folder), device="cpu", scheduler=scheduler)
    own = backbone.pipeline.scheduler
    assert type(own).__name__ == SCHEDULERS[scheduler][0]
    assert own.betas[0].item() == pytest.approx(0.00085)
    assert own.betas[-1].item() == pytest.approx(0.012)


def test_ddim_does_not_clip_latents_whatever_scheduler_was_saved(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    from diffusers import LMSDiscreteScheduler

    folder = tmp_path / "lms"
    shutil.copytree(tiny_pipeline_folder, folder)
    LMSDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "LMSDiscreteScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    config = load_backbone(str(folder), device="cpu", scheduler="ddim").pipeline.scheduler.config
    assert config.clip_sample is False
    assert config.set_alpha_to_one is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "gpu"}, r"no device 'gpu'; use auto, cpu"),
        ({"device": "cuda:99"}, r"'cuda:99' is not available; this machine has: cpu"),
        ({"dtype": "float8"}, r"no dtype 'float8'; use one of float32"),
        ({"scheduler": "heun"}, r"no scheduler 'heun'; use one of lms"),
    ],
)
def test_impossible_options_are_named(tiny_pipeline_folder: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_backbone(str(tiny_pipeline_folder), **options)  # type: ignore[arg-type]


def test_missing_folder_is_named() -> None:
    with pytest.raises(UserError, match=r"no model '/no/such/folder': not a folder or \.safetensors or \.ckpt file"):
        load_backbone("/no/such/folder")


def test_folder_without_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a pipeline folder: it has no model_index\.json"):
        load_backbone(str(tmp_path))


def test_broken_weights_are_one_clear_line(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_pipeline_folder, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"diffusion_pytorch_model\.safetensors is no safetensors file") as error:
        load_backbone(str(folder), device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reached", ["nothing", "configs"])
def test_unreachable_hub_id_says_what_to_do(
    tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch, reached: str
) -> None:
    import huggingface_hub
    from diffusers import StableDiffusionPipeline

    def no_network(*arguments: object, **options: object) -> None:
        assert options.get("local_files_only", False) is False
        raise OSError("We couldn't connect\nto the hub")

    configs = no_network if reached == "nothing" else lambda *arguments, **options: str(tiny_pipeline_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", configs)
    monkeypatch.setattr(StableDiffusionPipeline, "download", no_network)
    with pytest.raises(UserError, match=r"hf download someone/model .*couldn't connect to the hub"):
        load_backbone("someone/model")


def test_a_hub_model_is_read_from_where_it_was_downloaded(
    tiny_pipeline_folder: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from diffusers import StableDiffusionPipeline

    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tiny_pipeline_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *arguments, **options: str(tiny_pipeline_folder))
    monkeypatch.setattr(StableDiffusionPipeline, "download", download)
    backbone = load_backbone("someone/model", device="cpu", revision="main")
    assert (asked["name"], asked["revision"], asked["use_safetensors"]) == ("someone/model", "main", True)
    assert asked["safety_checker"] is None
    assert backbone.name == "someone/model"
    assert backbone.fingerprints == tiny_backbone.fingerprints


def test_inpainting_models_are_refused(tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import UNet2DConditionModel

    from diffprobe.backbone import load

    pipeline = load_backbone(str(tiny_pipeline_folder), device="cpu").pipeline
    pipeline.unet = UNet2DConditionModel.from_config({**pipeline.unet.config, "in_channels": 9})
    monkeypatch.setattr(load, "_read", lambda *arguments: pipeline)
    with pytest.raises(UserError, match="takes 9 channels and its VAE has 4"):
        load_backbone(str(tiny_pipeline_folder))


def test_own_keeps_the_pipelines_scheduler_as_it_was_saved(tiny_pipeline_folder: Path) -> None:
    own = load_backbone(str(tiny_pipeline_folder), device="cpu", scheduler="own").pipeline.scheduler
    assert type(own).__name__ == "PNDMScheduler"
    assert own.config.skip_prk_steps is True


def test_a_sampler_of_more_evaluations_than_steps_is_refused(tiny_pipeline_folder: Path) -> None:
    backbone = load_backbone(str(tiny_pipeline_folder), device="cpu", scheduler="own")
    with pytest.raises(UserError, match="PNDMScheduler evaluates the denoiser 16 times in 15 steps"):
        fresh_scheduler(backbone, 15)


def test_a_tokenizer_for_a_model_that_has_one_is_refused(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a tokenizer of its own"):
        load_backbone(str(tiny_pipeline_folder), device="cpu", tokenizer=str(tmp_path))


def test_pocket_without_weights_names_the_command_that_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffprobe.backbone.model_folder.files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"python -m diffprobe\.pocket\.training all"):
        find_model("pocket")


def test_pocket_is_the_packaged_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pocket" / "weights" / "pipeline"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder.parent / "checksums.json").write_text("{}")  # of no weights, since there are none
    monkeypatch.setattr("diffprobe.backbone.model_folder.files", lambda package: tmp_path)
    assert find_model("pocket") == folder


def test_loading_leaves_the_libraries_verbosity_as_it_was(tiny_pipeline_folder: Path) -> None:
    from diffusers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        load_backbone(str(tiny_pipeline_folder), device="cpu")
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()
