from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffprobe.backbone.capture import capture, decode_latents, encode_images, encode_prompts
from diffprobe.backbone.layers import Layer, catalogue, select_layers
from diffprobe.backbone.load import Backbone, denoiser_without_weights, load_backbone
from diffprobe.backbone.samplers import SCHEDULERS
from diffprobe.backbone.trajectory import TrajectoryStep, evaluate, fresh_scheduler, generate, replay
from diffprobe.errors import UserError
from tests.tiny import listed_layers, shared_backbone
from tests.tiny_families import FAMILIES

PROMPTS = ["a red ball", "two cubes left and right"]
SEEDS = [7, 12345678]
TRANSFORMERS = ("pixart", "sd3", "flux")

# Of each family, layers in the order they run.
LAYERS = {
    "sd2": ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", "mid_block.resnets.1"],
    "sdxl": ["mid_block.attentions.0.transformer_blocks.1.attn2.to_out.0", "up_blocks.1.resnets.0"],
    "ddpm": ["down_blocks.1.attentions.0.to_out.0", "up_blocks.0.attentions.1"],
    "pixart": ["transformer_blocks.0.attn1.to_out.0", "transformer_blocks.0"],
    "sd3": ["transformer_blocks.0.attn.to_out.0", "transformer_blocks.0"],
    "flux": ["transformer_blocks.0", "single_transformer_blocks.0.attn", "single_transformer_blocks.0"],
}
LATENTS = {"sd2": (4, 16, 16), "sdxl": (4, 16, 16), "ddpm": (3, 16, 16), "pixart": (4, 16, 16), "sd3": (8, 16, 16)}
LATENTS["flux"] = (4, 16, 16)


@pytest.fixture(scope="module")
def folders(family_folders: Mapping[str, Path]) -> Mapping[str, Path]:
    return family_folders


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def load(folders: Mapping[str, Path], name: str, **options: Any) -> Backbone:
    # FLUX is the only one whose config does not say for which size it was made.
    common = {"scheduler": "own", "guidance": 3, "size": 32 if name == "flux" else None}
    return shared_backbone(folders[name], **(common | options))


@pytest.fixture(scope="module")
def backbone(folders: Mapping[str, Path], name: str) -> Backbone:
    return load(folders, name)


def all_steps(backbone: Backbone, prompts: list[str] = PROMPTS, seeds: list[int] = SEEDS, **options: Any) -> Any:
    return list(generate(backbone, prompts, seeds, **{"steps": 3, **options}))


def plain(backbone: Backbone, name: str, output_type: str) -> Tensor:
    """What the pipeline gives when it is called as its own documentation says, one CPU generator per image."""
    options: dict[str, Any] = {"prompt": PROMPTS, "guidance_scale": backbone.guidance}
    if name == "ddpm":
        options = {"batch_size": len(SEEDS)}
    if name == "pixart":
        options |= {"clean_caption": False, "use_resolution_binning": False}
    if name == "flux":
        options |= {"height": 32, "width": 32}
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    return backbone.pipeline(generator=generators, num_inference_steps=3, output_type=output_type, **options)[0]


def test_pipelines_index_says_the_family(backbone: Backbone, name: str) -> None:
    assert backbone.family.pipeline == type(backbone.pipeline).__name__
    assert backbone.latent_shape == LATENTS[name]
    assert backbone.image_size == (16 if name == "ddpm" else 32)
    assert backbone.guided == (name not in ("ddpm", "flux"))
    assert not any(parameter.requires_grad for parameter in backbone.denoiser.parameters())


def test_final_latents_and_images_are_those_of_the_plain_pipeline(backbone: Backbone, name: str) -> None:
    last: TrajectoryStep = all_steps(backbone, layers=LAYERS[name], decode=True)[-1]
    if name != "ddpm":
        latents = plain(backbone, name, "latent")
        if name == "flux":
            latents = type(backbone.pipeline)._unpack_latents(latents, 32, 32, 2)
        assert torch.allclose(last.latents, latents, atol=1e-5)
    images = plain(backbone, name, "pt")
    assert last.images is not None
    assert torch.allclose(last.images, images, atol=1e-5)
    assert images.std() > 0.01  # a blank image would agree with anything


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        *((name, scheduler) for name in ("sd2", "sdxl", "pixart") for scheduler in SCHEDULERS),
        ("ddpm", "ddim"),  # that pipeline cannot run those that scale the network's input
        ("ddpm", "dpm++"),
    ],
)
def test_every_sampler_gives_what_the_plain_pipeline_gives_with_it(
    folders: Mapping[str, Path], name: str, scheduler: str
) -> None:
    backbone = load(folders, name, scheduler=scheduler)
    assert torch.allclose(all_steps(backbone, decode=True)[-1].images, plain(backbone, name, "pt"), atol=1e-5)


def test_images_and_activations_do_not_depend_on_the_batch(backbone: Backbone, name: str) -> None:
    together = all_steps(backbone, layers=LAYERS[name])
    alone = all_steps(backbone, PROMPTS[1:], SEEDS[1:], layers=LAYERS[name])
    for ours, theirs in zip(alone, together, strict=True):
        # Steps by an untrained network make numbers large.
        assert torch.allclose(ours.latents[0], theirs.latents[1], rtol=1e-4, atol=1e-3)
        for layer in LAYERS[name]:
            assert torch.allclose(ours.activations[layer][0], theirs.activations[layer][1], atol=1e-3)


def test_the_prompt_matters_where_there_is_text(backbone: Backbone, name: str) -> None:
    one, other = (all_steps(backbone, [text], [1], steps=2)[-1].latents for text in ("a ball", "two grey cubes"))
    assert torch.equal(one, other) == (name == "ddpm")


def test_replaying_the_own_denoiser_gives_the_trajectorys_activations(backbone: Backbone, name: str) -> None:
    steps = all_steps(backbone, layers=LAYERS[name])
    noisy = torch.stack([steps[index].noisy for index in (2, 0)])
    replayed = replay(
        backbone, backbone.denoiser, PROMPTS, noisy, [2, 0], scheduler=fresh_scheduler(backbone, 3), layers=LAYERS[name]
    )
    for again in replayed:
        own = steps[again.index]
        assert again.timestep == own.timestep
        for layer in LAYERS[name]:
            assert torch.allclose(again.activations[layer], own.activations[layer], atol=1e-4)


def test_unconditional_half_of_a_model_without_guidance_batch_is_refused(folders: Mapping[str, Path]) -> None:
    backbone = load(folders, "flux")
    with pytest.raises(UserError, match="no half 'unconditional' of a model without guidance batch"):
        generate(backbone, PROMPTS, SEEDS, half="unconditional")


def test_flux_is_told_its_guidance(folders: Mapping[str, Path]) -> None:
    backbone = load(folders, "flux", guidance=3.5)
    stronger = replace(backbone, guidance=7.0)
    assert encode_prompts(stronger, PROMPTS, guided=False)["guidance"].tolist() == [7.0, 7.0]
    assert not torch.allclose(all_steps(backbone)[-1].latents, all_steps(stronger)[-1].latents, atol=1e-4)


@pytest.mark.slow
def test_the_large_pixart_is_told_the_size_of_the_image(tmp_path: Path) -> None:
    from diffusers import PixArtTransformer2DModel

    pipeline = FAMILIES["pixart"]()
    config = {**pipeline.transformer.config, "sample_size": 128, "attention_head_dim": 12, "cross_attention_dim": 24}
    pipeline.transformer = PixArtTransformer2DModel.from_config(config)
    pipeline.save_pretrained(tmp_path)
    backbone = load({"pixart": tmp_path}, "pixart")
    conditions = encode_prompts(backbone, PROMPTS[:1], guided=True)
    assert conditions["resolution"].tolist() == [[256, 256]] * 2
    assert conditions["aspect_ratio"].tolist() == [[1]] * 2
    options = {"clean_caption": False, "use_resolution_binning": False, "output_type": "latent"}
    latents = backbone.pipeline(
        PROMPTS[:1], generator=torch.Generator().manual_seed(1), num_inference_steps=2, guidance_scale=3, **options
    )[0]
    assert torch.allclose(all_steps(backbone, PROMPTS[:1], [1], steps=2)[-1].latents, latents, rtol=1e-4, atol=1e-3)
    blocks = select_layers(catalogue(backbone.denoiser), "transformer_block")
    assert [(layer.channels, layer.height, layer.width) for layer in blocks] == [(24, 64, 64)] * 2


# The catalogue


def shapes(layers: list[Layer], wanted: str) -> list[tuple[str, str, str, int, int, int]]:
    found = select_layers(layers, wanted)
    return [(layer.name, layer.kind, layer.stage, layer.channels, layer.height, layer.width) for layer in found]


def test_catalogue_names_the_parts_of_every_family_in_the_same_words(folders: Mapping[str, Path]) -> None:
    layers = {name: listed_layers(load(folders, name).denoiser) for name in FAMILIES}
    attention = "transformer_blocks.0.attn1.to_out.0"
    assert shapes(layers["sd2"], "self_attention") == [
        (f"down_blocks.0.attentions.0.{attention}", "self_attention", "encoder", 8, 16, 16),
        (f"mid_block.attentions.0.{attention}", "self_attention", "mid", 16, 8, 8),
        (f"up_blocks.1.attentions.0.{attention}", "self_attention", "decoder", 8, 16, 16),
        (f"up_blocks.1.attentions.1.{attention}", "self_attention", "decoder", 8, 16, 16),
    ]
    assert [row[0] for row in shapes(layers["sdxl"], "cross_attention&stage=mid")] == [
        f"mid_block.attentions.0.transformer_blocks.{block}.attn2.to_out.0" for block in (0, 1)
    ]
    assert shapes(layers["ddpm"], "self_attention") == [
        ("down_blocks.1.attentions.0.to_out.0", "self_attention", "encoder", 16, 8, 8),
        ("mid_block.attentions.0.to_out.0", "self_attention", "mid", 16, 8, 8),
        ("up_blocks.0.attentions.0.to_out.0", "self_attention", "decoder", 16, 8, 8),
        ("up_blocks.0.attentions.1.to_out.0", "self_attention", "decoder", 16, 8, 8),
    ]
    assert shapes(layers["pixart"], ["self_attention", "cross_attention"]) == [  # type: ignore[arg-type]
        ("transformer_blocks.0.attn1.to_out.0", "self_attention", "block0", 16, 8, 8),
        ("transformer_blocks.0.attn2.to_out.0", "cross_attention", "block0", 16, 8, 8),
        ("transformer_blocks.1.attn1.to_out.0", "self_attention", "block1", 16, 8, 8),
        ("transformer_blocks.1.attn2.to_out.0", "cross_attention", "block1", 16, 8, 8),
    ]
    assert shapes(layers["sd3"], "self_attention") == [
        ("transformer_blocks.0.attn.to_out.0", "self_attention", "block0", 16, 8, 8),
        ("transformer_blocks.0.attn2.to_out.0", "self_attention", "block0", 16, 8, 8),
        ("transformer_blocks.1.attn.to_out.0", "self_attention", "block1", 16, 8, 8),
    ]
    assert shapes(layers["flux"], ["self_attention", "transformer_block"]) == [  # type: ignore[arg-type]
        ("transformer_blocks.0.attn.to_out.0", "self_attention", "block0", 16, 8, 8),
        ("transformer_blocks.0", "transformer_block", "block0", 16, 8, 8),
        ("single_transformer_blocks.0.attn", "self_attention", "block1", 16, 8, 8),
        ("single_transformer_blocks.0", "transformer_block", "block1", 16, 8, 8),
        ("single_transformer_blocks.1.attn", "self_attention", "block2", 16, 8, 8),
        ("single_transformer_blocks.1", "transformer_block", "block2", 16, 8, 8),
    ]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformers_stages_are_its_blocks_between_input_and_output(folders: Mapping[str, Path], name: str) -> None:
    layers = listed_layers(load(folders, name).denoiser)
    blocks = ["block0", "block1", "block2"] if name == "flux" else ["block0", "block1"]
    assert list(dict.fromkeys(layer.stage for layer in layers)) == ["input", *blocks, "output"]
    assert select_layers(layers, "stage=block[01]")[-1].stage == "block1"


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_text_and_heads_are_not_listed_layers(folders: Mapping[str, Path], name: str) -> None:
    names = [layer.name for layer in listed_layers(load(folders, name).denoiser)]
    parts = ("context", "caption", "add_", "_added", "norm_q", "norm_k", "time_text_embed", "adaln_single")
    assert not [found for found in names if any(part in found for part in parts)]


def test_every_layer_of_the_catalogue_has_the_captured_shape(backbone: Backbone) -> None:
    layers = listed_layers(backbone.denoiser)
    step = all_steps(backbone, PROMPTS[:1], SEEDS[:1], steps=1, layers=[layer.name for layer in layers])[0]
    assert list(step.activations) == [layer.name for layer in layers]
    for layer in layers:
        assert step.activations[layer.name].shape == (1, layer.channels, layer.height, layer.width)


def test_the_config_alone_gives_the_catalogue(folders: Mapping[str, Path], name: str) -> None:
    layers = catalogue(shared_backbone(folders[name], scheduler="own").denoiser)
    assert catalogue(denoiser_without_weights(str(folders[name]))) == layers
    assert select_layers(layers, "transformer_block" if name != "ddpm" else "resnet")


def test_pixart_under_the_name_it_was_published_with_is_known(folders: Mapping[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["pixart"] / "transformer" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "Transformer2DModel"}))
    assert type(denoiser_without_weights(str(tmp_path))).__name__ == "PixArtTransformer2DModel"


# Capture


def run_once(backbone: Backbone, height: int = 16, width: int = 16) -> Callable[[], Tensor]:
    """One evaluation of two images, whose latents need not be square."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, backbone.latent_shape[0], height, width, generator=generator)
    conditions = encode_prompts(backbone, PROMPTS, guided=False)
    return lambda: evaluate(backbone.denoiser, latents, 500, conditions)


def raw_output(backbone: Backbone, layer: str, run: Callable[[], Any]) -> Any:
    """The module's own output, by a bare hook."""
    seen: list[Any] = []
    module = backbone.denoiser.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        run()
    handle.remove()
    return seen[0]


def tokens_by_hand(name: str, layer: str, output: Any) -> Tensor:
    """The image's tokens [batch, height * width, channels] in what a module of a transformer returned."""
    if isinstance(output, tuple):  # (text, image) of a block, (image, text) of an attention
        output = output[1] if layer.split(".")[-1].isdigit() else output[0]
    return output[:, 512:] if layer == "single_transformer_blocks.0.attn" else output


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_activations_of_a_transformer_are_its_image_tokens_at_their_true_height_and_width(
    folders: Mapping[str, Path], name: str
) -> None:
    backbone = load(folders, name)
    run = run_once(backbone, 12, 20)
    extra = [] if name == "pixart" else ["transformer_blocks.0.attn"]
    for layer in (*LAYERS[name], *extra):
        with torch.no_grad(), capture(backbone.denoiser, [layer], guided=False) as taken:
            assert run().shape == (2, backbone.latent_shape[0], 12, 20)
        tokens = tokens_by_hand(name, layer, raw_output(backbone, layer, run))
        image = taken.activations[layer]
        assert image.shape == (2, 16, 6, 10)
        for row, column in ((0, 0), (0, 9), (3, 4), (5, 9)):
            assert torch.equal(image[:, :, row, column], tokens[:, row * 10 + column])


@pytest.mark.parametrize("name", ["sd2", "sdxl", "ddpm"])
def test_activations_of_a_unet_are_what_its_modules_return(folders: Mapping[str, Path], name: str) -> None:
    backbone = load(folders, name)
    run = run_once(backbone, 12, 20)
    for layer in LAYERS[name]:
        with torch.no_grad(), capture(backbone.denoiser, [layer], guided=False) as taken:
            run()
        image, output = taken.activations[layer], raw_output(backbone, layer, run)
        expected = output.transpose(1, 2).reshape(image.shape) if output.ndim == 3 else output
        assert torch.equal(image, expected)


@torch.no_grad()
def test_the_forward_ends_after_the_last_wanted_layer(backbone: Backbone, name: str) -> None:
    run, last = run_once(backbone), "proj_out" if name in TRANSFORMERS else "conv_out"
    ran: list[str] = []
    handle = backbone.denoiser.get_submodule(last).register_forward_hook(lambda *_: ran.append(last))
    with capture(backbone.denoiser, LAYERS[name], guided=False, stop=True) as ended:
        run()
        ran.append("after the call")
    handle.remove()
    with capture(backbone.denoiser, LAYERS[name], guided=False) as full:
        run()
    assert not ran
    assert list(ended.activations) == LAYERS[name]
    assert all(torch.equal(full.activations[layer], ended.activations[layer]) for layer in LAYERS[name])


@torch.no_grad()
def test_replacement_goes_on_through_the_network(backbone: Backbone, name: str) -> None:
    run = run_once(backbone)
    before = run()
    for layer in LAYERS[name]:
        with capture(backbone.denoiser, [], guided=False, replace={layer: lambda activation: activation}):
            assert torch.equal(run(), before)
        with capture(backbone.denoiser, [layer], guided=False, replace={layer: torch.zeros_like}) as taken:
            assert not torch.allclose(run(), before, atol=1e-3)
        assert torch.count_nonzero(taken.activations[layer]) == 0
    assert torch.equal(run(), before)


@pytest.mark.parametrize("layer", ["transformer_blocks.0", "single_transformer_blocks.0.attn"])
def test_replacement_leaves_the_text_as_it_was(folders: Mapping[str, Path], layer: str) -> None:
    backbone = load(folders, "flux")
    run = run_once(backbone)
    before = raw_output(backbone, layer, run)
    with capture(backbone.denoiser, [], guided=False, replace={layer: torch.zeros_like}):
        after = raw_output(backbone, layer, run)
    text = (lambda output: output[0]) if layer == "transformer_blocks.0" else (lambda output: output[:, :512])
    assert torch.equal(text(before), text(after))
    assert torch.count_nonzero(text(after))


# Images and latents


def test_images_are_encoded_as_the_pipeline_decodes_them(backbone: Backbone, name: str) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    latents = encode_images(backbone, images)
    if name == "ddpm":
        assert torch.allclose(latents, 2 * images - 1)
        assert torch.allclose(decode_latents(backbone, latents), images, atol=1e-6)
        return
    shift, scale = {"sd3": (0.0609, 1.5305), "flux": (0.1159, 0.3611), "sdxl": (0, 0.13025)}.get(name, (0, 0.18215))
    expected = (backbone.vae.encode(2 * images - 1).latent_dist.mean - shift) * scale
    assert torch.allclose(latents, expected, atol=1e-6)
    assert latents.shape == (2, *LATENTS[name])


def test_another_size_is_seen_by_catalogue_and_generation(folders: Mapping[str, Path], name: str) -> None:
    backbone = load(folders, name, size=24)
    assert backbone.image_size == 24
    layers = catalogue(backbone.denoiser)
    step = all_steps(backbone, steps=2, layers=LAYERS[name], decode=True)[-1]
    assert step.images.shape == (2, 3, 24, 24)
    for layer in layers:
        if layer.name in LAYERS[name]:
            assert step.activations[layer.name].shape[1:] == (layer.channels, layer.height, layer.width)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_runs(folders: Mapping[str, Path], name: str, dtype: str) -> None:
    backbone = load(folders, name, dtype=dtype)
    step = all_steps(backbone, steps=2, layers=LAYERS[name], decode=True)[-1]
    assert step.latents.dtype == backbone.dtype == getattr(torch, dtype)
    assert {value.dtype for value in step.activations.values()} == {backbone.dtype}
    assert torch.isfinite(step.images).all()
    assert encode_images(backbone, step.images).dtype == backbone.dtype
    if name == "sdxl":
        assert backbone.vae.dtype == (torch.float32 if dtype == "float16" else torch.bfloat16)


# What is refused


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_samplers_of_diffusion_are_refused_for_flow_matching(folders: Mapping[str, Path], name: str) -> None:
    with pytest.raises(UserError, match="flow-matching model, which lms cannot sample; use scheduler=own"):
        load(folders, name, scheduler="lms")


@pytest.mark.parametrize("size", [0, 30, 33])
def test_sizes_that_do_not_fit_the_network_are_refused(folders: Mapping[str, Path], size: int) -> None:
    with pytest.raises(UserError, match="must be a multiple of 4 pixels"):
        load(folders, "sd3", size=size)


def test_pipelines_of_unknown_families_are_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    with pytest.raises(UserError, match=r"is a KandinskyPipeline, which is not supported; these are: .*FluxPipeline"):
        load_backbone(str(tmp_path))


def test_networks_that_are_no_denoiser_are_named() -> None:
    with pytest.raises(UserError, match="a Linear is no denoiser that is supported; those are UNet2DConditionModel"):
        catalogue(torch.nn.Linear(1, 1))
