"""The page itself, with gradio: what is on it, and which part of a session each of its controls calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffprobe.app.curve import Curve, curves_html
from diffprobe.app.equipment import BUILT_IN, Equipment, known_runs, load_equipment
from diffprobe.app.export import Seen
from diffprobe.app.pictures import SIDE, beside, draw_label, draw_map, draw_outline, draw_step, picture
from diffprobe.app.session import (
    EditedImage,
    GeneratedImage,
    centre,
    denoise_towards,
    drawn_mask,
    make_images,
    moved_mask,
    prompts_and_seeds,
    scores_over_steps,
)
from diffprobe.backbone.texts import text_warnings
from diffprobe.errors import UserError

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is sent anywhere
try:
    import gradio as gr  # type: ignore[import-not-found]
except ImportError as error:
    raise UserError("the page needs gradio: pip install -e '.[app]'") from error

MOST = 4  # images side by side
LOOPBACK = "127.0.0.1"
HOUR = 3600
TOLD = 60  # seconds that a line on training is shown
FONTS = ("system-ui", "sans-serif")  # of the reader's machine; gradio's own come from another host
EXAMPLE = ("a blue cube", "2")
Images = list[GeneratedImage]


def serve(equipment: Equipment, stores: Path, port: int) -> None:
    """Shows the page on this machine alone, until interrupted."""
    page = open_page(equipment, stores, port)
    print(f"open http://{LOOPBACK}:{port} in a browser; Ctrl-C ends it", flush=True)
    page.block_thread()


def open_page(equipment: Equipment, stores: Path, port: int) -> gr.Blocks:
    """The page, served by a thread until it is closed."""
    page = build_page(equipment, stores).queue(default_concurrency_limit=1)  # one network, one thing at a time
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


@dataclass(frozen=True, eq=False)
class View:
    """The controls and pictures of what the probes see."""

    step: gr.Slider
    name: gr.Dropdown
    layer: gr.Dropdown
    current: gr.Radio
    slots: Sequence[gr.Image]
    curve: gr.HTML
    label: gr.Image


@dataclass(frozen=True, eq=False)
class Editing:
    """The controls and pictures of another mask, and of what becomes of it."""

    right: gr.Slider
    down: gr.Slider
    denoise: gr.Button
    wanted: gr.Image
    editor: gr.ImageEditor
    results: Sequence[gr.components.Component]  # original, edited, compared, verdict


def build_page(equipment: Equipment, stores: Path) -> gr.Blocks:
    """All controls and what they do."""
    with gr.Blocks(title="diffprobe", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        state, images, target, edited = gr.State(equipment), gr.State([]), gr.State(), gr.State()
        heading = gr.Markdown(_heading(equipment))
        with gr.Row(equal_height=True):
            choice = gr.Dropdown(
                [BUILT_IN, *known_runs()], value=equipment.source, allow_custom_value=True, scale=4, elem_id="model",
                label="Model: choose one, or write the folder of a run of train.py or of a pipeline",
            )  # fmt: skip
            load = gr.Button("Load", elem_id="load")
        with gr.Row(equal_height=True):
            label = f"Prompts, one a line, up to {MOST}"
            prompt = gr.Textbox(EXAMPLE[0], label=label, lines=2, max_lines=MOST, scale=4, elem_id="prompt")
            seed = gr.Textbox(EXAMPLE[1], label="Seed, or one for each image", elem_id="seed")
            make = gr.Button("Generate", variant="primary", elem_id="generate")
        view = _view(equipment)
        editing = _editing()
        shown = [state, images, view.current, view.step, view.name, view.layer]
        everything = [*view.slots, view.curve, view.label]
        of_image = [edited, target, editing.right, editing.down, editing.editor, editing.wanted, *editing.results]
        loaded = [state, images, heading, view.step, view.name, view.layer, view.current]
        load.click(_loader(stores), choice, loaded, show_progress_on=heading).success(_show, shown, everything).success(
            _start_editing, [images, view.current], of_image
        )
        gr.on([make.click, prompt.submit], _generate, [state, prompt, seed], [images, view.current]).success(
            _show, shown, everything
        ).success(_start_editing, [images, view.current], of_image)
        view.step.change(_show_step, shown, [*view.slots, view.curve])
        gr.on([view.name.input, view.layer.input], _show, shown, everything)
        view.current.input(_show, shown, everything).success(_start_editing, [images, view.current], of_image)
        _wire_editing(editing, [state, images, view.current], target, edited)
        _exporting([*shown, edited])
    return page


def _heading(equipment: Equipment) -> str:
    return f"# What does {equipment.backbone.name} know while it draws?"


def _view(equipment: Equipment) -> View:
    gr.Markdown(
        "## What the probes see\nEvery image after the step, with the outline of what the probe of the mask takes for "
        "the object, and beside it the map of the chosen probe. The curves say how well the map agrees with the "
        "label of the finished image."
    )
    with gr.Row():
        step, name, layer = _controls(equipment)
    current = gr.Radio([], label="Current image", visible=False, elem_id="current")
    with gr.Row():
        with gr.Column(scale=3), gr.Row():
            slots = [_image(f"Image {at + 1}", f"slot_{at + 1}", visible=at == 0, min_width=300) for at in range(MOST)]
        with gr.Column(scale=2, min_width=300):
            curve = gr.HTML(elem_id="curve")
            label = _image("Label of the finished image", "label", height=200)
    return View(step, name, layer, current, slots, curve, label)


def _controls(equipment: Equipment) -> tuple[gr.Slider, gr.Dropdown, gr.Dropdown]:
    """Step, property and layer of the probes that there are."""
    bank = equipment.bank
    last = max(2, equipment.sampling_steps)  # a slider of one step there is none of
    step = gr.Slider(1, last, value=max(bank.steps) + 1, step=1, label="Denoising step", elem_id="step")
    name = gr.Dropdown(list(bank.properties), value=equipment.mask, label="Property", elem_id="property")
    return step, name, gr.Dropdown(bank.layers, value=bank.layers[-1], label="Layer of the network", elem_id="layer")


def _editing() -> Editing:
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
    return Editing(right, down, denoise, wanted, editor, [original, edited, compared, verdict])


def _wire_editing(editing: Editing, session: list[Any], target: gr.State, edited: gr.State) -> None:
    """What the controls do. session: equipment, images and which of them is the current one."""
    image, moved = session[1:], [target, editing.wanted]
    gr.on([editing.right.input, editing.down.input], _move, [*image, editing.right, editing.down], moved)
    editing.wanted.select(_click, image, [editing.right, editing.down, *moved])
    editing.editor.input(_draw, [*image, editing.editor, target], moved)
    editing.denoise.click(_denoise, [*session, target], [edited, *editing.results[1:]])


def _exporting(shown: Sequence[gr.components.Component]) -> None:
    """Files of what is seen, in a folder that is gone with the page, and what makes it again."""
    kept = TemporaryDirectory(prefix="diffprobe_")
    gr.Markdown("## Take it with you")
    export = gr.Button("Export what is seen", elem_id="export")
    files = gr.File(label="Figures, as PNG and PDF", file_count="multiple", interactive=False, elem_id="files")
    options: dict[str, Any] = {"interactive": False, "wrap_lines": True, "lines": 1}
    command = gr.Code(label="Makes the probes again", language="shell", elem_id="command", **options)
    code = gr.Code(label="Draws the figures again", language="python", elem_id="python", **options)

    @_shows_errors
    def save(*seen: Any) -> tuple[list[str], str, str]:
        equipment, images, current, step, name, layer, edited = seen
        _require_image(images, current)
        found = Seen(equipment, images, name, layer, step - 1, current or 0, edited)
        return [str(path) for path in found.save(Path(kept.name))], equipment.command, found.python()

    export.click(save, list(shown), [files, command, code])


def _image(label: str, name: str, **options: Any) -> gr.Image:
    return gr.Image(label=label, elem_id=name, format="png", interactive=False, buttons=[], **options)


def _shows_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """User errors are shown on the page, in words."""

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return guarded


def _loader(stores: Path) -> Callable[..., Any]:
    """Loads what is chosen; the page is as it was at its start then, with other lists."""

    @_shows_errors
    def load(choice: str | None) -> tuple[Any, ...]:
        equipment = load_equipment(choice or "", stores, partial(gr.Info, duration=TOLD))
        nobody = gr.update(choices=[], value=None, visible=False)
        return equipment, [], _heading(equipment), *_controls(equipment), nobody

    return load


@_shows_errors
def _generate(equipment: Equipment, prompts: str, seeds: str) -> tuple[Images, gr.Radio]:
    texts, numbers = prompts_and_seeds(prompts, seeds, MOST)
    for line in text_warnings(equipment.backbone, {text: text for text in texts}):
        gr.Warning(line)
    images = make_images(equipment, texts, numbers)
    names = [(f"{at + 1}: {image.prompt} ({image.seed})", at) for at, image in enumerate(images)]
    return images, gr.Radio(names, value=0, visible=len(images) > 1)


def _show_step(
    equipment: Equipment, images: Images, current: int | None, step: int, name: str, layer: str
) -> list[Any]:
    """Of every image the picture after a step, counted from 1, beside the map of the probe, if that has one; and the
    curves."""
    # As updates: components would write their pictures to disk twice
    slots = [gr.update(value=None, visible=at == 0, label=f"Image {at + 1}") for at in range(MOST)]
    if not images or step > len(images[0].images):
        return [*slots, ""]
    for at, image in enumerate(images):
        drawn = picture(image.images[step - 1])
        if step - 1 in image.steps:
            outlined = draw_step(equipment, image, layer, step - 1)
            drawn = beside(outlined, draw_map(equipment, image, name, layer, step - 1))
        slots[at] = gr.update(value=drawn, visible=True, label=f"{at + 1}: {image.prompt} ({image.seed})")
    curves = [Curve(image.prompt, scores_over_steps(equipment, image, name, layer)) for image in images]
    metric = equipment.bank.properties[name].headline
    return [*slots, curves_html(curves, images[0].steps, metric, step - 1, current or 0)]


@_shows_errors
def _show(equipment: Equipment, images: Images, current: int | None, step: int, name: str, layer: str) -> list[Any]:
    """As `_show_step`, and the label of the current image."""
    label = draw_label(equipment, images[current or 0], name) if images else None
    return [*_show_step(equipment, images, current, step, name, layer), label]


def _start_editing(images: Images, current: int | None) -> tuple[Any, ...]:
    """The mask of the current image where it is, and nothing denoised yet."""
    if not images:
        return None, None, 0, 0, None, None, None, None, None, ""
    image = images[current or 0]
    final = image.images[-1]
    canvas = {"background": picture(final), "layers": [], "composite": None}
    outlined = draw_outline(final, image.label)
    return None, image.label, 0, 0, canvas, outlined, outlined, None, None, ""


@_shows_errors
def _move(images: Images, current: int | None, right: float, down: float) -> tuple[Tensor, np.ndarray]:
    image = _require_image(images, current)
    target = moved_mask(image.label, right / 100, down / 100)
    return target, draw_outline(image.images[-1], target)


@_shows_errors
def _click(images: Images, current: int | None, where: gr.SelectData) -> tuple[Any, ...]:
    """Moves the mask so that its middle is where the picture was clicked."""
    y, x = centre(_require_image(images, current).label)
    right, down = (round(100 * (at / SIDE - middle)) for at, middle in zip(where.index, (x, y), strict=True))
    return right, down, *_move(images, current, right, down)


@_shows_errors
def _draw(images: Images, current: int | None, drawing: dict[str, Any], target: Tensor) -> tuple[Tensor, np.ndarray]:
    """Takes what is painted as the mask, if anything is."""
    image = _require_image(images, current)
    painted = [torch.from_numpy(layer[..., 3] / 255) for layer in drawing["layers"] if layer[..., 3].any()]
    if painted:
        target = drawn_mask(torch.stack(painted).amax(0), *image.label.shape)
    return target, draw_outline(image.images[-1], target)


@_shows_errors
def _denoise(
    equipment: Equipment, images: Images, current: int | None, target: Tensor
) -> tuple[EditedImage, np.ndarray, np.ndarray, str]:
    edited = denoise_towards(equipment, _require_image(images, current), target)
    verdict = (
        f"**Dice with the mask asked for: {edited.dice:.2f}** (the original's: {edited.dice_before:.2f}; 1 is the "
        "very mask, 0 nothing in common)"
    )
    return edited, picture(edited.image), draw_outline(edited.image, target), verdict


def _require_image(images: Images, current: int | None) -> GeneratedImage:
    if not images:
        raise UserError("there is no image yet: press Generate first")
    return images[current or 0]
