from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffprobe.backbone.capture import capture
from diffprobe.backbone.layers import catalogue
from diffprobe.errors import UserError
from tests.tiny import TEXT_WIDTH, build_tiny_denoiser

EARLY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
LATE = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"
RESNET = "mid_block.resnets.0"


@pytest.fixture(scope="module")
def denoiser() -> nn.Module:
    torch.manual_seed(0)
    return build_tiny_denoiser((8, 16)).requires_grad_(False)


@pytest.fixture
def run(denoiser: nn.Module) -> Callable[..., Tensor]:
    """One forward on a batch of four noisy latents, 8 high and 16 wide."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(4, 4, 8, 16, generator=generator)
    text = torch.randn(4, 5, TEXT_WIDTH, generator=generator)

    def forward(images: int = 4) -> Tensor:
        return denoiser(noisy[:images], 500, encoder_hidden_states=text[:images], return_dict=False)[0]

    return forward


def hooks(denoiser: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in denoiser.modules())


def raw_output(denoiser: nn.Module, name: str, run: Callable[..., Tensor]) -> Tensor:
    """The module's own output, by a bare hook."""
    seen: list[Tensor] = []
    handle = denoiser.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output))
    run()
    handle.remove()
    return seen[0]


def test_tokens_come_as_images_of_the_true_height_and_width(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    tokens = raw_output(denoiser, LATE, run)
    with capture(denoiser, [LATE], half="both") as taken:
        run()
    image = taken.activations[LATE]
    assert image.shape == (4, 8, 8, 16)
    assert tokens.shape == (4, 128, 8)
    for row, column in ((0, 0), (0, 15), (3, 5), (7, 15)):
        assert torch.equal(image[:, :, row, column], tokens[:, row * 16 + column])


def test_only_the_asked_half_of_a_guidance_batch_is_kept(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    taken = {}
    for half in ("conditional", "unconditional", "both"):
        with capture(denoiser, [RESNET], half=half) as captured:
            run()
        taken[half] = captured.activations[RESNET]
    whole = raw_output(denoiser, RESNET, run)
    assert torch.equal(taken["both"], whole)
    assert torch.equal(taken["unconditional"], whole[:2])
    assert torch.equal(taken["conditional"], whole[2:])
    assert taken["conditional"].untyped_storage().nbytes() == whole.untyped_storage().nbytes() // 2


def test_without_guidance_the_whole_batch_is_kept(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    with capture(denoiser, [RESNET], guided=False) as taken:
        run(3)
    assert len(taken.activations[RESNET]) == 3


def test_an_odd_guidance_batch_is_refused(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    with pytest.raises(UserError, match="saw 3 images"), capture(denoiser, [RESNET]):
        run(3)


def test_only_wanted_layers_are_hooked_and_all_hooks_go(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    before = run()
    with capture(denoiser, [EARLY, LATE], replace={RESNET: torch.zeros_like}):
        hooked = [name for name, module in denoiser.named_modules() if module._forward_hooks]
        changed = run()
    assert sorted(hooked) == sorted([EARLY, LATE, RESNET])
    assert hooks(denoiser) == 0
    assert not torch.equal(before, changed)
    assert torch.equal(before, run())


def test_hooks_go_when_the_block_or_a_layer_fails(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    before = run()

    def fail(activation: Tensor) -> Tensor:
        raise ArithmeticError("in a layer")

    with pytest.raises(KeyError), capture(denoiser, [EARLY]):
        raise KeyError("in the block")
    with pytest.raises(ArithmeticError), capture(denoiser, [EARLY], replace={LATE: fail}):
        run()
    assert hooks(denoiser) == 0
    assert torch.equal(before, run())


def test_capturing_does_not_change_the_output(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    before = run()
    with capture(denoiser, [EARLY, RESNET, LATE, "down_blocks.1"]):
        assert torch.equal(before, run())


def test_the_forward_ends_after_the_last_wanted_layer_to_run(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    ran: list[str] = []
    marks = [
        denoiser.get_submodule(name).register_forward_pre_hook(lambda module, inputs, name=name: ran.append(name))
        for name in ("mid_block", "up_blocks.0", "up_blocks.1")
    ]
    with capture(denoiser, ["up_blocks.0.resnets.0", EARLY], stop=True) as taken:  # not in execution order
        run()
        ran.append("after the call")
    for mark in marks:
        mark.remove()
    assert list(taken.activations) == [EARLY, "up_blocks.0.resnets.0"]
    assert ran == ["mid_block", "up_blocks.0"]
    assert hooks(denoiser) == 0


def test_an_early_end_gives_the_activations_of_the_full_forward(
    denoiser: nn.Module, run: Callable[..., Tensor]
) -> None:
    with capture(denoiser, [EARLY, RESNET]) as full:
        run()
    with capture(denoiser, [EARLY, RESNET], stop=True) as ended:
        run()
    assert all(torch.equal(full.activations[name], ended.activations[name]) for name in (EARLY, RESNET))


def test_an_early_end_leaves_only_its_own_block(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    reached = []
    with capture(denoiser, [RESNET, LATE], stop=True) as outer:
        with capture(denoiser, [EARLY], stop=True):
            run()
        reached.append("after the inner block")
        with capture(denoiser, ["up_blocks.3.resnets.2"], stop=True):
            run()
        reached.append("after the second inner block")
    assert reached == ["after the inner block"]
    assert set(outer.activations) == {RESNET, LATE}


def test_replacement_sees_the_whole_batch_and_goes_on_through_the_network(
    denoiser: nn.Module, run: Callable[..., Tensor]
) -> None:
    shapes = []

    def double(activation: Tensor) -> Tensor:
        shapes.append(tuple(activation.shape))
        return 2 * activation

    before = raw_output(denoiser, LATE, run)
    with capture(denoiser, [LATE], half="both", replace={LATE: double}) as taken:
        after = raw_output(denoiser, LATE, run)
    assert shapes == [(4, 8, 8, 16)]
    assert torch.equal(after, 2 * before)
    assert torch.equal(taken.activations[LATE].flatten(2).transpose(1, 2), after)


@pytest.mark.parametrize("name", [EARLY, RESNET, "mid_block.attentions.0", "down_blocks.0", "up_blocks.1"])
def test_replacing_a_layer_by_itself_changes_nothing(
    denoiser: nn.Module, run: Callable[..., Tensor], name: str
) -> None:
    with capture(denoiser, [], replace={name: lambda activation: activation}):
        replaced = run()
    assert torch.equal(run(), replaced)


@pytest.mark.parametrize("name", [EARLY, RESNET, "mid_block.attentions.0", "down_blocks.0", "up_blocks.1"])
def test_replacing_a_layer_by_zeros_changes_the_output(
    denoiser: nn.Module, run: Callable[..., Tensor], name: str
) -> None:
    with capture(denoiser, [], replace={name: torch.zeros_like}):
        replaced = run()
    assert not torch.equal(run(), replaced)


def test_a_replacement_of_another_shape_is_refused(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    with (
        pytest.raises(UserError, match=r"shape \[2, 8, 8, 16\], not \[4, 8, 8, 16\]"),
        capture(denoiser, [], replace={LATE: lambda activation: activation[:2]}),
    ):
        run()


def test_gradients_may_be_taken_inside_a_replacement(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    def descend(activation: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = activation.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(moved.square().sum(), moved)
        return activation - 0.5 * gradient

    with torch.no_grad(), capture(denoiser, [RESNET], replace={RESNET: descend}) as taken:
        run()
    assert torch.count_nonzero(taken.activations[RESNET]) == 0


def test_every_forward_starts_a_new_dict(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    with capture(denoiser, [RESNET]) as taken:
        run()
        first = taken.activations
        kept = first[RESNET].clone()
        run(2)
    assert taken.activations is not first
    assert len(taken.activations[RESNET]) == 1
    assert torch.equal(first[RESNET], kept)


def test_activations_are_detached(run: Callable[..., Tensor], denoiser: nn.Module) -> None:
    denoiser.requires_grad_(True)
    try:
        with capture(denoiser, [RESNET]) as taken:
            run()
    finally:
        denoiser.requires_grad_(False)
    assert not taken.activations[RESNET].requires_grad


@pytest.mark.parametrize("where", ["layers", "replace"])
def test_unknown_layers_are_named_with_the_nearest(denoiser: nn.Module, where: str) -> None:
    typo = LATE.replace("attn1", "atn1")
    layers, replace = ([typo], {}) if where == "layers" else ([], {typo: torch.zeros_like})
    with pytest.raises(UserError, match=f"no layer '{typo}'.*nearest: {LATE}"):
        capture(denoiser, layers, replace=replace)


def test_layers_without_spatial_output_are_refused(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    for name in ("time_embedding", LATE.replace("attn1.to_out.0", "attn2.to_k")):
        with pytest.raises(UserError, match="has no spatial output"), capture(denoiser, [name]):
            run()


def test_unknown_half_and_a_stop_without_layers_are_refused(denoiser: nn.Module) -> None:
    with pytest.raises(UserError, match="no half 'cond'"):
        capture(denoiser, [RESNET], half="cond")
    with pytest.raises(UserError, match="no layers are wanted"):
        capture(denoiser, [], stop=True)


def test_every_layer_of_the_catalogue_has_the_captured_shape(denoiser: nn.Module, run: Callable[..., Tensor]) -> None:
    layers = catalogue(denoiser)  # type: ignore[arg-type]
    with capture(denoiser, [layer.name for layer in layers], guided=False) as taken:
        run(1)
    assert list(taken.activations) == [layer.name for layer in layers]
    for layer in layers:
        assert taken.activations[layer.name].shape == (1, layer.channels, layer.height, layer.width)
