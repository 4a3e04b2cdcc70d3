"""From a `Report` to report.html, by the template `html/page.html`."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffprobe.backbone.layers import short_names
from diffprobe.files import NO_STEP
from diffprobe.parts import class_name
from diffprobe.report.choices import metric_name
from diffprobe.report.report import Cell, Frames, Headed, HeatMap, Report, SideBySide, Table
from diffprobe.report.style import colours_of
from diffprobe.report.tables import columns_of, layers_of, notes_of, shared_texts
from diffprobe.report.wording import direction, images_text, interval, is_number, rounded

# The page may use what is in it, and nothing else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
MOST = 2000  # rows of a table on the page; the CSV file has all
MANY = 20  # more rows are folded away, and can be searched
PRINTED = 30  # rows of a folded table on paper, as print.css has them
LARGEST = 160  # pixels a side of a picture; larger ones are made smaller
LOSSLESS = 64  # up to so many pixels a side pictures are PNG, and above JPEG
LARGE = 400_000  # bytes of a figure
QUALITY = 85  # of JPEG
PIXELS_PER_INCH = 200  # of the figures, as style.save_figure writes them
STYLES, SCRIPTS = ("page.css", "print.css"), ("page.js", "tables.js", "cells.js")
TITLES = {"data": "images", "labeler": "labels", "property": "properties", "control": "controls"}


def page_html(
    report: Report,
    figures: Mapping[str, Path] | None = None,
    questions: Sequence[tuple[str, str]] = (),
    reproduce: Sequence[tuple[str, str]] = (),
    configuration: str = "",
) -> str:
    """The page as text.

    Args:
        figures: name -> PNG file, of those figures that the page shows.
        questions, reproduce: (what, answer): what the configuration says, and how to make the run again.
        configuration: the whole of it, folded away.
    """
    heats = [*report.heatmaps, *(heat for view in report.side_by_side for heat in view.maps)]
    loader = PackageLoader("diffprobe.report", "html")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {
        "identity": lambda title: title.lower().replace(" ", "-"),
        "strip": strip_uri,
        "rounded": rounded,
    }
    css, script = (Markup("".join(loader.get_source(jinja, name)[0] for name in names)) for names in (STYLES, SCRIPTS))
    return jinja.get_template("page.html").render(
        policy=POLICY,
        css=css,
        script=script,
        title=report.title,
        findings=shortened(report.findings, (layer for heat in heats for layer in heat.layers)),
        questions=[*report.questions, *questions],
        heatmaps=[_heat_map(heat) for heat in report.heatmaps],
        side_by_side=[_side_by_side(view) for view in report.side_by_side],
        examples=report.examples,
        figures=[_figure(report, name, path) for name, path in (figures or {}).items()],
        tables=[_table(name, table) for name, table in report.tables.items() if "page" in table.show],
        reproduce=reproduce,
        configuration=configuration,
    )


def shortened(findings: Sequence[str | Headed], layers: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Headings ('' for none), each with its sentences, with the short names of layers as heat maps and tables of the
    page have them."""
    names = sorted(short_names(layers).items(), key=lambda pair: -len(pair[0]))  # none is cut by a shorter one
    found: list[tuple[str, list[str]]] = []
    for finding in findings:
        heading, lines = (finding.heading, finding.lines) if isinstance(finding, Headed) else ("", [finding])
        shortened = list(lines)
        for name, short in names:
            shortened = [line.replace(name, short) for line in shortened]
        if heading or not found or found[-1][0]:
            found.append((heading, []))
        found[-1][1].extend(shortened)
    return found


def _figure(report: Report, name: str, path: Path) -> dict[str, Any]:
    """A figure at the size that it was drawn for."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as opened:
        width, height = opened.size
    caption = report.figures[name].caption or name.replace("_", " ")
    shown, uri = round(96 * width / PIXELS_PER_INCH), figure_uri(path)
    kind = "PNG" if uri.startswith("data:image/png") else "JPEG"
    saved = {"kind": kind, "saved": f"{name}.{kind.lower()}", "pdf": f"{path.parent.name}/{name}.pdf"}
    return {"uri": uri, "caption": caption, "width": width, "height": height, "shown": shown, **saved}


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
        "whole": f"{name}.csv in the run's folder has all." * ("csv" in table.show and count > MOST),
        "printed": f"On paper {PRINTED} of {count} rows." * (count > PRINTED),
        "saved": f"{name.rpartition('/')[2]}.csv",
        "file": _file_of(table),
    }


def _file_of(table: Table) -> dict[str, Any]:
    """What the script needs to make the table's CSV file of what is seen: all columns, the texts that are the same in
    all rows, and the names of layers by their short ones."""
    data = table.data
    layers = {short: layer for layer, short in layers_of(data).items()}
    shared = {name: data[name].iloc[0] for name in shared_texts(table)}
    return {"columns": list(data.columns), "shared": shared, "layers": layers}


def _heat_map(heat: HeatMap) -> dict[str, Any]:
    """What the template draws, and what the script opens: of every cell its sentences, of every layer its pictures."""
    short, layers, steps = short_names(heat.layers), heat.layers, heat.steps
    sentences = [
        [_sentences(heat, heat.cells.get((layer, step), Cell(None)), short[layer], layer, step) for step in steps]
        for layer in layers
    ]
    data = {
        "cells": sentences,
        "films": [_strip(heat.frames[layer]) if layer in heat.frames else None for layer in layers],
        "beside": [{"name": name, **_strip(frames)} for name, frames in heat.beside.items()],
        "caption": heat.caption,
        "own": f"{heat.title}: probe",
    }
    colours = cell_colours([cell.value for cell in heat.cells.values()], colours_of(heat.metric))
    return {**_cells(heat, short, colours), "data": data}


def _cells(heat: HeatMap, short: Mapping[str, str], colours: Mapping[float | None, tuple[str, str]]) -> dict[str, Any]:
    """The rows and columns of a map, as the template draws them."""
    rows = []
    for place, layer in enumerate(heat.layers):
        values = [heat.cells.get((layer, step), Cell(None)).value for step in heat.steps]
        cells = [{"value": value, "colours": colours.get(value)} for value in values]
        rows.append({"place": place, "layer": layer, "short": short[layer], "cells": cells})
    score = metric_name(heat.metric) + direction(heat.metric)
    return {"title": heat.title, "score": score, "steps": list(map(_step_name, heat.steps)), "rows": rows, "linked": ()}


def _step_name(step: int) -> str:
    return "all" if step == NO_STEP else str(step + 1)


def _side_by_side(view: SideBySide) -> dict[str, Any]:
    """The maps in one scale of colours, and what the script shows of the same cell in all of them."""
    layers = list(dict.fromkeys(layer for heat in view.maps for layer in heat.layers))
    steps = sorted({step for heat in view.maps for step in heat.steps})
    values = [cell.value for heat in view.maps for cell in heat.cells.values() if is_number(cell.value)]
    metric, short = view.maps[0].metric, short_names(layers)
    colours = cell_colours(values, colours_of(metric))
    linked = [
        {
            **_cells(heat, short, colours),
            "linked": [layers.index(layer) for layer in heat.layers],
            "columns": [steps.index(step) for step in heat.steps],
        }
        for heat in view.maps
    ]
    cells = [[_of_runs(view, (layer, step)) for step in steps] for layer in layers]
    data = {
        "runs": [heat.title for heat in view.maps],
        "layers": [[short[layer], layer] for layer in layers],
        "steps": list(map(_step_name, steps)),
        "score": metric_name(metric),
        "cells": cells,
        "caption": view.caption,
    }
    return {"title": view.title, "maps": linked, "scale": _scale(values, colours_of(metric)), "data": data}


def _of_runs(view: SideBySide, place: tuple[str, int]) -> dict[str, Any]:
    """Of every run its score there as text and over how many images, None without one; and the notes of the place."""
    found = [heat.cells.get(place, Cell(None)) for heat in view.maps]
    scores = [
        [interval(cell.value, cell.low, cell.high, 3), images_text(cell.n) if cell.n else ""]
        if is_number(cell.value)
        else None
        for cell in found
    ]
    return {"scores": scores, "notes": list(view.notes.get(place, ()))}


def _scale(values: Sequence[float], name: str) -> dict[str, Any] | None:
    """The lowest and the highest value and the colours between them; None without values."""
    if not values:
        return None
    low, high = min(values), max(values)
    between = [low + (high - low) * at / 8 for at in range(9)]
    return {"low": low, "high": high, "colours": [colour for colour, _ in cell_colours(between, name).values()]}


def _sentences(heat: HeatMap, cell: Cell, short: str, layer: str, step: int) -> list[str]:
    where = short if step == NO_STEP else f"{short} at step {step + 1}"
    if not is_number(cell.value):
        return [f"{where}: no score.", f"Layer {layer}."]
    number = f" over {cell.n} images" if cell.n else ""
    score = f"{where}: {metric_name(heat.metric)} {interval(cell.value, cell.low, cell.high, 3)}{number}."
    return [score, *cell.notes, f"Layer {layer}."]


def _strip(frames: Frames) -> dict[str, Any]:
    count, height, width = frames.values.shape[:3]
    return {"src": strip_uri(frames), "count": count, "ratio": f"{width}/{height}"}


def cell_colours(values: Sequence[float | None], name: str) -> dict[float | None, tuple[str, str]]:
    """Score -> its colour in a colour map, between those of the lowest and the highest, and black or white to be read
    on it."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    known = sorted({value for value in values if is_number(value)})
    span = (known[-1] - known[0] or 1.0) if known else 1.0
    colours: dict[float | None, tuple[str, str]] = {}
    for value in known:
        rgb = np.array(colormaps[name]((value - known[0]) / span)[:3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = linear @ np.array([0.2126, 0.7152, 0.0722])  # WCAG 2.1; at 0.179 both have equal contrast
        colours[value] = (to_hex(rgb.tolist()), "#000" if luminance > 0.179 else "#fff")
    return colours


def figure_uri(path: Path) -> str:
    """The data URI of a PNG file; a large one, which has photographs in it, as JPEG."""
    from PIL import Image

    content = path.read_bytes()
    if len(content) <= LARGE:
        return _uri("png", content)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        opened.convert("RGB").save(buffer, "jpeg", quality=QUALITY)
    return _uri("jpeg", buffer.getvalue())


def strip_uri(frames: Frames) -> str:
    """All pictures side by side, the first on the left: maps as PNG with a palette, pictures as PNG or JPEG."""
    from matplotlib import colormaps
    from PIL import Image

    maps = frames.values.ndim == 3
    # Values from 0 to 1; of maps the place in the palette, where what has no value is the lowest
    shares = (np.asarray(frames.values, float) - frames.low) / ((frames.high - frames.low) or 1.0)
    levels = (np.nan_to_num(shares if maps else frames.values).clip(0, 1) * 255).round().astype(np.uint8)
    strip = Image.fromarray(np.concatenate(list(levels), 1))
    if maps:
        colours = colormaps[frames.colours](np.arange(256))[:, :3]
        strip.putpalette((colours * 255).round().astype(int).ravel().tolist())
    height, width = frames.values.shape[1:3]
    shrunk = LARGEST / max(height, width)
    if shrunk < 1:
        size = (max(1, round(width * shrunk)) * len(levels), max(1, round(height * shrunk)))
        strip = strip.resize(size, Image.Resampling.NEAREST if maps else Image.Resampling.BOX)
    kind = "png" if maps or max(height, width) <= LOSSLESS else "jpeg"
    buffer = io.BytesIO()
    strip.save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": QUALITY}))
    return _uri(kind, buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"


def questions(config: Mapping[str, Any], topics: Iterable[str]) -> list[tuple[str, str]]:
    """(what, answer) of the `topics`, which are groups of the configuration ('model', 'data', 'layers' ...)."""
    return [(TITLES.get(topic, topic), _answer(topic, config)) for topic in topics]


def _answer(topic: str, config: Mapping[str, Any]) -> str:
    """What the configuration says of a group, in words."""
    chosen = config[topic]
    match topic:
        case "analysis":
            own = {key: value for key, value in chosen.items() if key != "_target_" and value not in (None, {}, [])}
            return "; ".join([class_name(chosen), *(f"{key} {_listed(value)}" for key, value in own.items())])
        case "model":
            size = f", {chosen['size']} pixels" if chosen.get("size") else ""
            sampler = f"sampler {chosen['scheduler']}, guidance {chosen['guidance']:g}"
            return f"{chosen['path']} in {chosen['dtype']}{size}; {sampler}"
        case "data":
            return _images(config)
        case "objects":
            names = [name for name in ("root", "split", "list", "count") if chosen.get(name) is not None]
            kind = chosen.get("kind") or class_name(chosen).removeprefix("load_")  # `kind` in older runs
            return ", ".join([f"annotated images: {kind}", *(f"{name} {chosen[name]}" for name in names)])
        case "layers":
            each = [_listed(chosen["select"])] if chosen["select"] else []
            joined = [f"joined: {', '.join(chosen['groups'])}"] if chosen.get("groups") else []
            return "; ".join([*each, *joined])
        case "steps":
            return _steps(chosen["select"])
        case "property":
            own = chosen.get("own", []) if "names" in chosen else [chosen]
            return ", ".join([*chosen.get("names", []), *(f"{item['name']} ({item['kind']})" for item in own)])
        case "measure" | "control":
            return _listed(chosen["names"]) or "none"
        case "probe":
            bias = "with bias" if chosen["bias"] else "without bias"
            return f"{chosen['name']}: {chosen['head']} head {bias}, solved by {chosen['solver']}"
        case "seed":
            return str(chosen)
        case _:  # a group that names a class, and perhaps a model
            name = str(chosen["_target_"]).rpartition(".")[2]
            return f"{chosen['model']} ({name})" if chosen.get("model") else name


def _images(config: Mapping[str, Any]) -> str:
    """Where the images come from, and how real ones are shown to the network."""
    data, trajectory, sampling = config["data"], config["trajectory"], config["steps"]["sampling"]
    count = f"{data['count']} " if data.get("count") else ""
    kind = class_name(trajectory)
    if kind == "generation":
        prompts = f"prompts of {data['prompts']}" if data.get("prompts") else "captions of the scene grammar"
        return f"made by the model from {count}{prompts}, in {sampling} steps"
    how = f"noised and denoised again, {trajectory.get('strength', 0):g} of {sampling} steps"
    if kind == "noised":
        how = f"noised at timesteps {_listed(trajectory['timesteps'])}"
    elif kind == "inversion":
        how = f"inverted in {sampling} steps"
    return f"{count}images of {data.get('images')}, {how}"


def _steps(select: Any) -> str:
    if select == "all":
        return "all"
    steps = [select] if isinstance(select, str | int) else select
    names = [step.replace("_", " ") if isinstance(step, str) else step + 1 for step in steps]
    return _listed(names) + " (counted from 1)" * any(isinstance(step, int) for step in names)


def _listed(values: Any) -> str:
    if isinstance(values, str | int | float):
        return f"{values}"
    if isinstance(values, Mapping):
        return ", ".join(f"{key}: {_listed(value)}" for key, value in values.items())
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
