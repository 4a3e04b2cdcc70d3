"""A selection of a model's layers, which shows itself as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, overload

from diffprobe.backbone.layers import Layer, short_names, unknown_layer

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("short", "kind", "stage", "resolution", "channels", "name")


class Layers(Sequence[Layer]):
    """Layers in the order in which the network runs them; printed, they are a table.

    >>> import diffprobe as dp
    >>> layers = dp.load("pocket").layers("self_attention & decoder")
    >>> len(layers), layers.names[0], layers[0].channels
    (9, 'up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0', 96)
    >>> print(layers[-2:])
    short   kind            stage    resolution  channels  name
    up 3.1  self_attention  decoder  16                64  up_blocks.3.attentions.1.transformer_blocks.0.attn1.to_out.0
    up 3.2  self_attention  decoder  16                64  up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)

    @property
    def names(self) -> list[str]:
        """Full names, as `capture` and the settings of a study take them."""
        return [layer.name for layer in self._layers]

    @property
    def short(self) -> dict[str, str]:
        """Full name -> short name, as tables and figures show it: 'up 3.0'."""
        return short_names(self.names)

    @property
    def frame(self) -> DataFrame:
        """The table, one row a layer."""
        from pandas import DataFrame

        rows = [
            (self.short[layer.name], layer.kind, layer.stage, layer.resolution, layer.channels, layer.name)
            for layer in self._layers
        ]
        return DataFrame(rows, columns=list(COLUMNS))

    def find(self, name: str) -> Layer:
        """The layer of a full or short name. Raises UserError for one that is not here."""
        for layer in self._layers:
            if name in (layer.name, self.short[layer.name]):
                return layer
        raise unknown_layer(name, [*self.names, *self.short.values()])

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, place: int) -> Layer: ...
    @overload
    def __getitem__(self, place: slice) -> Layers: ...
    def __getitem__(self, place: int | slice) -> Layer | Layers:
        return Layers(self._layers[place]) if isinstance(place, slice) else self._layers[place]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    def __repr__(self) -> str:
        frame = self.frame
        widths = {name: max([len(name), *frame[name].astype(str).str.len()]) for name in COLUMNS}
        lines = [dict(zip(COLUMNS, COLUMNS, strict=True)), *frame.astype(str).to_dict("records")]
        return "\n".join(
            "  ".join(
                line[name].rjust(widths[name]) if name == "channels" else line[name].ljust(widths[name])
                for name in COLUMNS
            ).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in self.frame.itertuples(index=False)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
