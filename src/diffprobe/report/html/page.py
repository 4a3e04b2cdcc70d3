"""From a `Report` to report.html, by the template `page.html`.

What was asked, in plain words, from the composed configuration.

Pictures as data URIs: figures as they are, and pictures over steps as one strip.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffprobe.files import NO_STEP
from diffprobe.parts import class_name
from diffprobe.report.columns import columns_of, notes_of
from diffprobe.report.report import Cell, Frames, HeatMap, Report, Table
from diffprobe.report.style import SEQUENTIAL
from diffprobe.report.wording import interval, is_number, rounded, short_names

Configuration = Mapping[str, Any]


def asked(config: Configuration, topics: Iterable[str]) -> list[tuple[str, str]]:
    """(what, answer) of the `topics`, which are groups of the configuration ('model', 'data', 'layers' ...)."""
    return [(TITLES.get(topic, topic), _TOLD[topic](config)) for topic in topics]


TITLES = {"data": "images", "labeler": "labels", "property": "properties", "control": "controls"}


def _model(config: Configuration) -> str:
    model = config["model"]
    size = f", {model['size']} pixels" if model.get("size") else ""
    return f"{model['path']} in {model['dtype']}{size}; sampler {model['scheduler']}, guidance {model['guidance']:g}"


def _data(config: Configuration) -> str:
    data, trajectory, sampling = config["data"], config["trajectory"], config["steps"]["sampling"]
    count = f"{data['count']} " if data.get("count") else ""
    if class_name(trajectory) == "generation":
        prompts = f"prompts of {data['prompts']}" if data.get("prompts") else "captions of the scene grammar"
        return f"made by the model from {count}{prompts}, in {sampling} steps"
    return f"{count}images of {data.get('images')}, {_shown(trajectory, sampling)}"


def _shown(trajectory: Configuration, sampling: int) -> str:
    """How real images are shown to the network."""
    if class_name(trajectory) == "noised":
        return f"noised at timesteps {_listed(trajectory['timesteps'])}"
    if class_name(trajectory) == "inversion":
        return f"inverted in {sampling} steps"
    return f"noised and denoised again, {trajectory['strength']:g} of {sampling} steps"


def _objects(config: Configuration) -> str:
    objects = config["objects"]
    given = [f"{name} {objects[name]}" for name in ("root", "split", "list", "count") if objects.get(name) is not None]
    return ", ".join([f"annotated images: {objects['kind']}", *given])


def _layers(config: Configuration) -> str:
    layers = config["layers"]
    each = [_listed(layers["select"])] if layers["select"] else []
    joined = [f"joined: {', '.join(layers['groups'])}"] if layers.get("groups") else []
    return "; ".join([*each, *joined])


def _steps(config: Configuration) -> str:
    select = config["steps"]["select"]
    if select == "all":
        return "all"
    steps = [select] if isinstance(select, str | int) else select
    told = [step.replace("_", " ") if isinstance(step, str) else step + 1 for step in steps]
    return _listed(told) + " (counted from 1)" * any(isinstance(step, int) for step in told)


def _property(config: Configuration) -> str:
    return _listed(config["property"]["names"])


def _probe(config: Configuration) -> str:
    probe = config["probe"]
    bias = "with bias" if probe["bias"] else "without bias"
    return f"{probe['name']}: {probe['head']} head {bias}, solved by {probe['solver']}"


def _control(config: Configuration) -> str:
    return _listed(config["control"]["names"]) or "none"


def _class_named(group: str) -> Callable[[Configuration], str]:
    """Of a group that names a class and its arguments: the model where there is one, and the class."""

    def told(config: Configuration) -> str:
        chosen = config[group]
        name = str(chosen["_target_"]).rpartition(".")[2]
        return f"{chosen['model']} ({name})" if chosen.get("model") else name

    return told


def _measure(config: Configuration) -> str:
    return _listed(config["measure"]["names"])


def _analysis(config: Configuration) -> str:
    """Its name, and its own settings."""
    chosen = config["analysis"]
    own = {key: value for key, value in chosen.items() if key != "_target_" and value not in (None, {}, [])}
    return "; ".join([class_name(chosen), *(f"{key} {_listed(value)}" for key, value in own.items())])


def _seed(config: Configuration) -> str:
    return str(config["seed"])


def _listed(values: Any) -> str:
    if isinstance(values, str | int | float):
        return f"{values}"
    if isinstance(values, Mapping):
        return ", ".join(f"{key}: {_listed(value)}" for key, value in values.items())
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


_TOLD: dict[str, Callable[[Configuration], str]] = {
    "analysis": _analysis,
    "model": _model,
    "data": _data,
    "objects": _objects,
    "layers": _layers,
    "steps": _steps,
    "property": _property,
    "probe": _probe,
    "control": _control,
    "labeler": _class_named("labeler"),
    "classifier": _class_named("classifier"),
    "measure": _measure,
    "seed": _seed,
}


LARGEST = 160  # pixels a side of a picture; larger ones are made smaller
LOSSLESS = 64  # up to so many pixels a side pictures are PNG, and above JPEG
LARGE = 400_000  # bytes of a figure
QUALITY = 85  # of JPEG


def figure_uri(path: Path) -> str:
    """A PNG file; a large one, which has photographs in it, as JPEG."""
    from PIL import Image

    content = path.read_bytes()
    if len(content) <= LARGE:
        return _uri("png", content)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        opened.convert("RGB").save(buffer, "jpeg", quality=QUALITY)
    return _uri("jpeg", buffer.getvalue())


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a PNG file in pixels."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as opened:
        return opened.size


def strip_uri(frames: Frames) -> str:
    """All pictures side by side, the first on the left: maps as PNG with a palette, pictures as PNG or JPEG."""
    from PIL import Image

    values = frames.values
    if values.ndim == 3:
        strip = Image.fromarray(np.concatenate(_levels(frames), 1))
        strip.putpalette(_palette(frames.colours))
    else:
        levels = (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)
        strip = Image.fromarray(np.concatenate(list(levels), 1))
    height, width = values.shape[1:3]
    shrunk = LARGEST / max(height, width)
    if shrunk < 1:
        size = (max(1, round(width * shrunk)) * len(values), max(1, round(height * shrunk)))
        strip = strip.resize(size, Image.Resampling.NEAREST if values.ndim == 3 else Image.Resampling.BOX)
    kind = "png" if values.ndim == 3 or max(height, width) <= LOSSLESS else "jpeg"
    buffer = io.BytesIO()
    strip.save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": QUALITY}))
    return _uri(kind, buffer.getvalue())


def _levels(frames: Frames) -> np.ndarray:
    """The maps as places in the palette; what has no value is the lowest."""
    span = (frames.high - frames.low) or 1.0
    shares = np.nan_to_num((np.asarray(frames.values, float) - frames.low) / span)
    return (shares.clip(0, 1) * 255).round().astype(np.uint8)


def _palette(colours: str) -> list[int]:
    from matplotlib import colormaps

    return (colormaps[colours](np.arange(256))[:, :3] * 255).round().astype(int).ravel().tolist()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"


# The page may use what is in it, and nothing else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
MOST = 2000  # more rows are in the CSV file only
PIXELS_PER_INCH = 200  # of the figures, as style.save_figure writes them
MANY = 20  # more rows are folded away, and can be searched


def page_html(
    report: Report,
    figures: Mapping[str, Path] | None = None,
    asked: Sequence[tuple[str, str]] = (),
    reproduce: Sequence[tuple[str, str]] = (),
    configuration: str = "",
) -> str:
    """The page as text.

    Args:
        figures: name -> PNG file, of those figures that the page shows.
        asked, reproduce: (what, answer): what the configuration says beside `report.asked`, and how to do it again.
        configuration: the whole of it, folded away.
    """
    loader = PackageLoader("diffprobe.report", "html")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"identity": _identity, "strip": strip_uri, "rounded": rounded}
    css, script = (Markup(loader.get_source(jinja, name)[0]) for name in ("page.css", "page.js"))
    return jinja.get_template("page.html").render(
        policy=POLICY,
        css=css,
        script=script,
        title=report.title,
        findings=_shortened(report.findings, (layer for heat in report.heatmaps for layer in heat.layers)),
        asked=[*report.asked, *asked],
        heatmaps=[_heat_map(heat) for heat in report.heatmaps],
        examples=report.examples,
        figures=[_figure(report, name, path) for name, path in (figures or {}).items()],
        tables=[_table(name, table) for name, table in report.tables.items() if "page" in table.show],
        reproduce=reproduce,
        configuration=configuration,
    )


def _identity(title: str) -> str:
    return title.lower().replace(" ", "-")


def _shortened(lines: Sequence[str], layers: Iterable[str]) -> list[str]:
    """The lines with the short names of layers, as heat maps and tables of the page have them."""
    names = sorted(short_names(layers).items(), key=lambda pair: -len(pair[0]))  # none is cut by a shorter one
    shortened = list(lines)
    for name, short in names:
        shortened = [line.replace(name, short) for line in shortened]
    return shortened


def _figure(report: Report, name: str, path: Path) -> dict[str, Any]:
    """A figure at the size that it was drawn for."""
    width, height = picture_size(path)
    caption = report.figures[name].caption or name.replace("_", " ")
    shown = round(96 * width / PIXELS_PER_INCH)
    return {"uri": figure_uri(path), "caption": caption, "width": width, "height": height, "shown": shown}


def _table(name: str, table: Table) -> dict[str, Any]:
    columns, count = columns_of(table, MOST), len(table.data)
    return {
        "name": table.title or name,
        "count": f"{count} rows" if count <= MOST else f"the first {MOST} of {count} rows",
        "folded": count > MANY,
        "columns": columns,
        "rows": range(min(count, MOST)),
        "notes": notes_of(table),
        "described": [(column.heading, column.description) for column in columns if column.description],
    }


def _heat_map(heat: HeatMap) -> dict[str, Any]:
    """What the template draws, and what the script opens: of every cell its sentences, of every layer its pictures."""
    short, steps = short_names(heat.layers), heat.steps
    colours = _colours([cell.value for cell in heat.cells.values()])
    grid = {(layer, step): heat.cells.get((layer, step), Cell(None)) for layer in heat.layers for step in steps}
    sentences = {key: _sentences(heat, cell, short[key[0]], *key) for key, cell in grid.items()}
    return {
        "title": heat.title,
        "score": heat.score,
        "steps": [_step_name(step) for step in steps],
        "rows": [
            {
                "place": place,
                "layer": layer,
                "short": short[layer],
                "cells": [
                    {"value": grid[layer, step].value, "colours": colours.get(grid[layer, step].value)}
                    for step in steps
                ],
            }
            for place, layer in enumerate(heat.layers)
        ],
        "data": {
            "cells": [[sentences[layer, step] for step in steps] for layer in heat.layers],
            "films": [_strip(heat.frames.get(layer)) for layer in heat.layers],
            "beside": [{"name": name, **(_strip(frames) or {})} for name, frames in heat.beside.items()],
            "caption": heat.caption,
            "own": f"{heat.title}: probe",
        },
    }


def _sentences(heat: HeatMap, cell: Cell, short: str, layer: str, step: int) -> list[str]:
    where = short if step == NO_STEP else f"{short} at step {step + 1}"
    if not is_number(cell.value):
        return [f"{where}: no score.", f"Layer {layer}."]
    number = f" over {cell.n} images" if cell.n else ""
    score = f"{where}: {heat.score} {interval(cell.value, cell.low, cell.high, 3)}{number}."
    return [score, *cell.notes, f"Layer {layer}."]


def _strip(frames: Frames | None) -> dict[str, Any] | None:
    if frames is None:
        return None
    count, height, width = frames.values.shape[:3]
    return {"src": strip_uri(frames), "count": count, "ratio": f"{width}/{height}"}


def _colours(values: Sequence[float | None]) -> dict[float | None, tuple[str, str]]:
    """Of every score the ground, from its place between lowest and highest, and black or white to be read on it."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    known = sorted({value for value in values if is_number(value)})
    span = (known[-1] - known[0] or 1.0) if known else 1.0
    colours: dict[float | None, tuple[str, str]] = {}
    for value in known:
        rgb = np.array(colormaps[SEQUENTIAL]((value - known[0]) / span)[:3])
        colours[value] = (to_hex(rgb.tolist()), "#000" if _luminance(rgb) > 0.179 else "#fff")
    return colours


def _luminance(rgb: np.ndarray) -> float:
    """Relative luminance (WCAG 2.1); at 0.179 black and white have equal contrast."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _step_name(step: int) -> str:
    return "all" if step == NO_STEP else str(step + 1)
