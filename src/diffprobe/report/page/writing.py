"""From a `Page` to report.html: one file that needs no other and no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from diffprobe.report.files import write_text
from diffprobe.report.page.heatmap import heat_map
from diffprobe.report.page.html import Markup, joined, tag
from diffprobe.report.page.page import Page
from diffprobe.report.page.pictures import figure_uri, picture_size
from diffprobe.report.page.slider import example_slider
from diffprobe.report.page.tables import sortable_table

NAME = "report.html"
# The page may use what is in it, and nothing else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
PIXELS_PER_INCH = 200  # of the figures, as style.save_figure writes them


def write_page(folder: Path, page: Page) -> Path:
    """Writes report.html into a run folder, with its whole configuration where that is recorded; returns its path."""
    recorded = folder / ".hydra" / "config.yaml"
    configuration = recorded.read_text(encoding="utf-8") if recorded.exists() else ""
    return write_text(folder / NAME, page_html(page, configuration))


def page_html(page: Page, configuration: str = "") -> str:
    """The page as text; `configuration` is shown folded away."""
    sections = list(_sections(page, configuration))
    links = (tag("li", tag("a", title, href=f"#{_identity(title)}")) for title, _ in sections)
    header = tag("header", tag("h1", page.title), tag("nav", tag("ul", *links), aria_label="sections"))
    main = tag("main", *(_section(title, content) for title, content in sections))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", page.title),
        tag("style", Markup(_asset("page.css"))),
    )
    body = tag("body", header, main, tag("script", Markup(_asset("page.js"))))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _sections(page: Page, configuration: str) -> Iterator[tuple[str, Markup]]:
    """Title and content of what there is, in the order in which it is read."""
    if page.verdict:
        yield "Verdict", tag("ul", *(tag("li", line) for line in page.verdict), class_="verdict")
    if page.asked:
        yield "What was asked", _answers(page.asked)
    if page.heat_maps:
        yield "Where and when", joined(*(heat_map(heat, f"heat-{at}") for at, heat in enumerate(page.heat_maps, 1)))
    if page.examples:
        sliders = (example_slider(example, f"example-{at}") for at, example in enumerate(page.examples, 1))
        yield "Step by step", joined(*sliders)
    if page.figures:
        yield "Figures", joined(*(_figure(name, *shown) for name, shown in page.figures.items()))
    if page.tables:
        tables = enumerate(page.tables.items(), 1)
        hint = tag("p", "A heading sorts by its column, once more the other way round.", class_="hint")
        yield "Tables", joined(hint, *(sortable_table(name, rows, f"table-{at}") for at, (name, rows) in tables))
    if page.reproduce:
        whole = tag("details", tag("summary", "the whole configuration"), tag("pre", configuration))
        yield "How to reproduce it", joined(_answers(page.reproduce), *([whole] if configuration else []))


def _section(title: str, content: Markup) -> Markup:
    return tag("section", tag("h2", title), content, id=_identity(title))


def _identity(title: str) -> str:
    return title.lower().replace(" ", "-")


def _answers(answers: Sequence[tuple[str, str]]) -> Markup:
    pairs = (joined(tag("dt", what), tag("dd", _answer(what, answer))) for what, answer in answers)
    return tag("dl", *pairs)


def _answer(what: str, answer: str) -> Markup:
    return tag("code", answer) if what == "command" else joined(answer)


def _figure(name: str, path: Path, caption: str) -> Markup:
    width, height = picture_size(path)
    shown = f"width:{96 * width / PIXELS_PER_INCH:.0f}px"  # at the size it was drawn for
    picture = tag("img", src=figure_uri(path), alt=caption or name, width=width, height=height, style=shown)
    return tag("figure", picture, tag("figcaption", caption or name), class_="figure")


def _asset(name: str) -> str:
    return (files("diffprobe.report.page") / name).read_text(encoding="utf-8")
