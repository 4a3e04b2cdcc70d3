"""The page itself, with gradio: what is on it, and which part of a session each of its controls calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.app.session import (
    Equipment,
    GeneratedImage,
    centre,
    denoise_towards,
    drawn_mask,
    make_image,
    moved_mask,
)
from diffprobe.errors import UserError
from diffprobe.properties import Property

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is sent anywhere
try:
    import gradio as gr  # type: ignore[import-not-found]
except ImportError as error:
    raise UserError("the page needs gradio: pip install -e '.[app]'") from error

SIDE = 384  # pixels of every picture: six times pocket's
LINE = 3  # pixels, of an outline; black outside and white inside, so that it shows on any colour
LOOPBACK = "127.0.0.1"
HOUR = 3600
FONTS = ("system-ui", "sans-serif")  # of the reader's machine; gradio's own come from another host
EXAMPLE = ("a blue cube", 2)


def picture(image: Tensor) -> np.ndarray:
    """An image [3, H, W] in [0, 1] as [SIDE, SIDE, 3] in 0 to 255."""
    return _eight_bit(_enlarged(image))


def draw_outline(image: Tensor, mask: Tensor) -> np.ndarray:
    """An image [3, H, W] with the outline of a mask [h, w] in {0, 1}, as [SIDE, SIDE, 3]."""
    inside = _enlarged(mask[None].float())
    outer = functional.max_pool2d(inside, 2 * LINE + 1, 1, LINE) > inside
    inner = -functional.max_pool2d(-inside, 2 * LINE + 1, 1, LINE) < inside
    return _eight_bit(_enlarged(image).masked_fill(outer, 0.0).masked_fill(inner, 1.0))


def apply_colours(item: Property, values: Tensor, at: int) -> np.ndarray:
    """The map at one of the steps of `values` [steps, h, w] in the property's colours, as [SIDE, SIDE, 3]."""
    from matplotlib import colormaps

    look = item.picture(values.numpy(), values.numpy())
    coloured = look.values[at]
    if look.colours is not None:
        shares = (coloured - look.low) / ((look.high - look.low) or 1.0)
        coloured = colormaps[look.colours](np.clip(shares, 0, 1))[..., :3]
    return _eight_bit(_enlarged(torch.from_numpy(coloured).movedim(-1, 0)))


def _enlarged(image: Tensor) -> Tensor:
    return functional.interpolate(image[None], (SIDE, SIDE), mode="nearest")[0]


def _eight_bit(image: Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()


def serve(equipment: Equipment, port: int) -> None:
    """Shows the page on this machine alone, until interrupted."""
    page = open_page(equipment, port)
    print(f"open http://{LOOPBACK}:{port} in a browser; Ctrl-C ends it", flush=True)
    page.block_thread()


def open_page(equipment: Equipment, port: int) -> gr.Blocks:
    """The page, served by a thread until it is closed."""
    page = build_page(equipment).queue(default_concurrency_limit=1)  # one network, one thing at a time
    page.launch(
        server_name=LOOPBACK,
        server_port=port,
        share=False,
        theme=gr.themes.Default(font=FONTS, font_mono=("monospace",)),
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
    )
    return page


def build_page(equipment: Equipment) -> gr.Blocks:
    """All controls and what they do."""
    bank = equipment.bank
    with gr.Blocks(title="diffprobe", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        generated, target = gr.State(), gr.State()
        gr.Markdown(f"# What does {equipment.backbone.name} know while it draws?")
        with gr.Row(equal_height=True):
            prompt = gr.Textbox(EXAMPLE[0], label="Prompt", scale=4, elem_id="prompt")
            seed = gr.Number(EXAMPLE[1], label="Seed", precision=0, minimum=0)
            make = gr.Button("Generate", variant="primary", elem_id="generate")
        gr.Markdown(f"## What the probes see\nThe outline is what the {equipment.mask} probe takes for the object.")
        with gr.Row():
            first, last = min(bank.steps) + 1, max(bank.steps) + 1
            step = gr.Slider(first, last, value=last, step=1, label="Denoising step", elem_id="step")
            layer = gr.Dropdown(bank.layers, value=bank.layers[-1], label="Layer of the network")
        with gr.Row():
            after = _image("After the step", "after")
            maps = [_image(f"{name} probe", f"map_{name}") for name in bank.properties]
        gr.Markdown("## Where shall the object be?")
        with gr.Row():
            with gr.Column():
                right = gr.Slider(-100, 100, value=0, step=1, label="Right (% of the width)", elem_id="right")
                down = gr.Slider(-100, 100, value=0, step=1, label="Down (% of the height)", elem_id="down")
                gr.Markdown("Move the object's mask, click where its middle shall be, or paint another one.")
                denoise = gr.Button("Denoise with this mask", variant="primary", elem_id="denoise")
            wanted = _image("The mask asked for: click to move it", "target")
            brush = gr.Brush(default_size=40, colors=["#FFFFFF"], default_color="#FFFFFF", color_mode="fixed")
            editor = gr.ImageEditor(
                label="Or paint it here", elem_id="editor", brush=brush, sources=(), transforms=(), layers=False,
                canvas_size=(SIDE, SIDE), fixed_canvas=True, buttons=[], format="png",
            )  # fmt: skip
        gr.Markdown("## What becomes of it")
        with gr.Row():
            original = _image("Original, with its label", "original")
            edited = _image("Denoised with the mask", "edited")
            compared = _image("The same, with the mask asked for", "compared")
        verdict = gr.Markdown(elem_id="verdict")

        step_pictures = [after, *maps]
        gr.on(
            [make.click, prompt.submit],
            partial(_generate, equipment),
            [prompt, seed],
            [generated, target, right, down, editor, original, edited, compared, verdict],
        ).success(partial(_show_step, equipment), [generated, step, layer], step_pictures).success(
            _show_target, [generated, target], wanted
        )
        gr.on([step.change, layer.change], partial(_show_step, equipment), [generated, step, layer], step_pictures)
        gr.on([right.input, down.input], _move, [generated, right, down], [target, wanted])
        wanted.select(_click, [generated], [right, down, target, wanted])
        editor.input(_draw, [generated, editor, target], [target, wanted])
        denoise.click(partial(_denoise, equipment), [generated, target], [edited, compared, verdict])
    return page


def _image(label: str, name: str) -> gr.Image:
    return gr.Image(label=label, elem_id=name, format="png", interactive=False, buttons=[])


def _shows_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """User errors are shown on the page, in words."""

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return guarded


@_shows_errors
def _generate(equipment: Equipment, prompt: str, seed: float | None) -> tuple[Any, ...]:
    generated = make_image(equipment, prompt, seed)
    final = generated.images[-1]
    canvas = {"background": picture(final), "layers": [], "composite": None}
    return generated, generated.label, 0, 0, canvas, draw_outline(final, generated.label), None, None, ""


def _show_step(
    equipment: Equipment, generated: GeneratedImage | None, step: int, layer: str
) -> Sequence[np.ndarray | None]:
    """The image after a step, counted from 1, and the maps of the layer's probes."""
    if generated is None or step - 1 not in generated.steps:
        return [None] * (1 + len(equipment.bank.properties))
    at = generated.steps.index(step - 1)
    maps = {name: by_layer[layer] for name, by_layer in generated.maps.items()}
    foreground = maps[equipment.mask][at] > equipment.bank.thresholds[equipment.mask][layer][at]
    pictures = [draw_outline(generated.images[step - 1], foreground)]
    for name, values in maps.items():
        pictures.append(apply_colours(equipment.bank.properties[name], values, at))
    return pictures


def _show_target(generated: GeneratedImage, target: Tensor) -> np.ndarray:
    return draw_outline(generated.images[-1], target)


@_shows_errors
def _move(generated: GeneratedImage | None, right: float, down: float) -> tuple[Tensor, np.ndarray]:
    image = _require_image(generated)
    target = moved_mask(image.label, right / 100, down / 100)
    return target, _show_target(image, target)


@_shows_errors
def _click(generated: GeneratedImage | None, where: gr.SelectData) -> tuple[Any, ...]:
    """Moves the mask so that its middle is where the picture was clicked."""
    y, x = centre(_require_image(generated).label)
    right, down = (round(100 * (at / SIDE - middle)) for at, middle in zip(where.index, (x, y), strict=True))
    return right, down, *_move(generated, right, down)


@_shows_errors
def _draw(generated: GeneratedImage | None, drawing: dict[str, Any], target: Tensor) -> tuple[Tensor, np.ndarray]:
    """Takes what is painted as the mask, if anything is."""
    image = _require_image(generated)
    painted = [torch.from_numpy(layer[..., 3] / 255) for layer in drawing["layers"] if layer[..., 3].any()]
    if painted:
        target = drawn_mask(torch.stack(painted).amax(0), *image.label.shape)
    return target, _show_target(image, target)


@_shows_errors
def _denoise(
    equipment: Equipment, generated: GeneratedImage | None, target: Tensor
) -> tuple[np.ndarray, np.ndarray, str]:
    edited = denoise_towards(equipment, _require_image(generated), target)
    verdict = (
        f"**Dice with the mask asked for: {edited.dice:.2f}** (the original's: {edited.dice_before:.2f}; 1 is the "
        "very mask, 0 nothing in common)"
    )
    return picture(edited.image), draw_outline(edited.image, target), verdict


def _require_image(generated: GeneratedImage | None) -> GeneratedImage:
    if generated is None:
        raise UserError("there is no image yet: press Generate first")
    return generated
