"""One image as it is denoised: films side by side, moved by one slider."""

from __future__ import annotations

from diffprobe.report.page.html import Markup, tag
from diffprobe.report.page.page import Example
from diffprobe.report.page.pictures import frame


def example_slider(example: Example, identity: str) -> Markup:
    """Starts at the last step, so that a page without scripts, or on paper, shows the finished image."""
    last = len(example.steps) - 1
    numbers = " ".join(str(step + 1) for step in example.steps)
    slider = tag(
        "input", type="range", min=0, max=last, step=1, value=last, id=f"{identity}-at", data_steps=numbers,
        aria_valuetext=f"step {example.steps[last] + 1}",
    )  # fmt: skip
    output = tag("output", str(example.steps[last] + 1), for_=f"{identity}-at")
    label = tag("label", "denoising step ", output, for_=f"{identity}-at")
    films = (
        tag("figure", frame(film, f"{name}: {example.title}", last), tag("figcaption", name), class_="picture")
        for name, film in example.films.items()
    )
    controls = tag("div", label, slider, class_="controls")
    pictures = tag("div", *films, class_="pictures")
    return tag("section", tag("h3", example.title), controls, pictures, class_="slider", id=identity)
