"""Prints the layer catalogue of a model: python -m diffprobe.backbone MODEL [--layers GLOB ...] [--resolution N ...]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from diffprobe.errors import UserError
from diffprobe.signals import run_command
from diffprobe.terminal import module_command, plain_console


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=module_command("diffprobe.backbone"), description="List the layers of a model."
    )
    parser.add_argument("model", help="pocket, sd14 (needs no weights), a pipeline or denoiser folder, or a hub id")
    parser.add_argument("--layers", nargs="+", metavar="GLOB", help="name, glob, kind or key=value, joined by &")
    parser.add_argument("--resolution", nargs="+", metavar="N", help="only layers of this height, or height x width")
    options = parser.parse_args(arguments)
    try:
        print_catalogue(options.model, options.layers, options.resolution)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def print_catalogue(model: str, wanted: Sequence[str] | None, resolutions: Sequence[str] | None) -> None:
    """Prints one row per layer, in execution order. Raises UserError for an unknown model, layer or resolution."""
    from rich.table import Table

    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.backbone.load import denoiser_without_weights

    layers = catalogue(denoiser_without_weights(model))
    if wanted:
        layers = select_layers(layers, wanted)
    if resolutions:
        layers = select_layers(layers, [f"resolution={resolution}" for resolution in resolutions])
    table = Table(title=f"{model}: {len(layers)} layers", title_justify="left")
    for heading in ("layer", "kind", "stage"):
        table.add_column(heading, no_wrap=True)
    for heading in ("channels", "height x width", "tokens x channels"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        size, shape = f"{layer.height}x{layer.width}", f"{layer.tokens}x{layer.channels}"
        table.add_row(layer.name, layer.kind, layer.stage, str(layer.channels), size, shape)
    console = plain_console()
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)  # a name is there to be copied: rather a wrapped line than a cut name
    console.print(table)


if __name__ == "__main__":
    sys.exit(run_command(main))
