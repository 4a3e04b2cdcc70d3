"""Tables as people read them: headings, short names of layers, steps from 1, intervals; as Markdown and LaTeX too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pandas import DataFrame, Series, isna
from pandas.api.types import is_float_dtype, is_numeric_dtype

from diffprobe.backbone.layers import short_names
from diffprobe.report.report import Table
from diffprobe.report.wording import interval, short_power

CENTRES = ("mean", "difference", "value")  # shown with `low` and `high` in one cell
HEADINGS = {"p_holm": "p (Holm)", "log10_p": "log10 p"}
# What columns hold, in every table that has them.
DESCRIPTIONS = {
    "model": "the diffusion model",
    "layer": "the layer whose activations were used",
    "step": "denoising step, counted from 1",
    "timestep": "how noisy the image was, in the timesteps that the model was trained with",
    "property": "what the probe was trained to predict",
    "probe": "name of the kind of probe, or of the classifier",
    "control": "none, or which control was probed in place of the network's activations",
    "split": "which images: validation (for choices) or test",
    "metric": "how predictions and labels are compared",
    "mean": "mean over images, with its 95 % interval",
    "difference": "mean difference on the same images, with its 95 % interval",
    "value": "the statistic, with its 95 % interval over images where it has one",
    "n": "number of images (of pairs in tables of sets)",
    "p": "two-sided p of no difference",
    "p_holm": "p adjusted after Holm for the tests of its family",
    "log10_p": "its logarithm, where p is too small for a number",
    "measure": "distance between prototypes",
    "set": "which pairs of objects: same or different class, same or different image",
    "statistic": "what was tested or measured",
}
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "±": r"$\pm$",
        "\N{EN DASH}": "--",
    }
)
_POWER = re.compile(r"\b(\d+(?:\.\d+)?)e([+-]?\d+)\b")  # 3.1e-436


@dataclass(frozen=True)
class Column:
    """A heading with its description, and the text of each row.

    Attributes:
        names: the columns of the data that it shows: one, or a centre and the ends of its interval.
        exact: of numbers, the values of `names` in each row as a CSV file has them; they are sorted by the first.
        shortened: whether short names stand for layers.
    """

    heading: str
    description: str
    numeric: bool
    cells: Sequence[str]
    names: Sequence[str]
    exact: Sequence[str] = ()
    shortened: bool = False


def columns_of(table: Table, most: int | None = None) -> list[Column]:
    """The columns that have a value, of the first `most` rows, without texts that are the same in all rows."""
    data = table.data
    names = [name for name in data.columns if any(_has_value(value) for value in data[name].unique())]
    intervals = _intervals(names)
    hidden = {end for pair in intervals.values() for end in pair} | set(shared_texts(table))
    return [_column(table, name, intervals.get(name), most) for name in names if name not in hidden]


def shared_texts(table: Table) -> dict[str, str]:
    """The texts that are the same in every row, of several, by their column."""
    data, short = table.data, layers_of(table.data)
    if len(data) < 2:
        return {}
    texts = [name for name in data.columns if not is_numeric_dtype(data[name])]
    alike = {name: data[name].iloc[0] for name in texts if data[name].nunique(dropna=False) == 1}
    return {name: short.get(value, value) for name, value in alike.items() if isinstance(value, str) and value}


def lines_of(table: Table) -> list[list[str]]:
    """The table as text, headings first."""
    if table.text is not None:
        return [list(map(str, table.text.columns)), *table.text.astype(str).to_numpy().tolist()]
    columns = columns_of(table)
    rows = zip(*(column.cells for column in columns), strict=True)
    return [[column.heading for column in columns], *map(list, rows)]


def notes_of(table: Table) -> list[str]:
    """What is said below the table: what all rows share, where no column says it, and its notes."""
    shared = {} if table.text is not None else shared_texts(table)
    in_all = ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in shared.items())
    return [f"In all rows: {in_all}."] * bool(in_all) + list(table.notes)


def _column(table: Table, name: str, ends: tuple[str, str] | None, most: int | None) -> Column:
    data = table.data.head(len(table.data) if most is None else most)
    values, heading = data[name], HEADINGS.get(name, name.replace("_", " "))
    description = {**DESCRIPTIONS, **table.columns}.get(name, "")
    if not is_numeric_dtype(values):
        short = layers_of(table.data)
        texts = ["" if not _has_value(value) else str(short.get(value, value)) for value in values]
        return Column(heading, description, False, texts, [name], shortened=any(value in short for value in values))
    keys, names = _numbers(values), [name, *(ends or ())]
    rows = zip(*(_exact(data[each]) for each in names), strict=True)
    exact = [",".join(row) if any(row) else "" for row in rows]
    if name in table.steps:
        cells = ["" if key is None else f"{key + 1:.0f}" for key in keys]
    elif ends:
        heading = f"{heading} [95 %]"
        low, high = (_numbers(data[end]) for end in ends)
        cells = [interval(*row, 3) for row in zip(keys, low, high, strict=True)]
    else:
        form = ".4g" if is_float_dtype(values) else ".0f"
        cells = ["" if key is None else short_power(f"{key:{form}}") for key in keys]
    return Column(heading, description, True, cells, names, exact)


def _exact(values: Series) -> list[str]:
    return [str(value) if _has_value(value) else "" for value in values.tolist()]


def _intervals(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The columns with an interval, and those of its ends: `x_low` and `x_high`, or `low` and `high` of a centre."""
    ends = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= set(names)}
    centre = next((name for name in CENTRES if name in names), None)
    return ends | ({centre: ("low", "high")} if centre and {"low", "high"} <= set(names) else {})


def layers_of(data: DataFrame) -> Mapping[Any, str]:
    """Layers of a table -> the short names that it shows."""
    columns = [name for name in data.columns if "layer" in name and not is_numeric_dtype(data[name])]
    return short_names(str(value) for name in columns for value in data[name].unique() if _has_value(value))


def _numbers(values: Series) -> list[float | None]:
    return [float(value) if _has_value(value) else None for value in values]


def _has_value(value: Any) -> bool:
    return not isna(value) and value != ""


def markdown_table(lines: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """The lines as a table, the headings first; the notes as paragraphs below it."""
    heading, *body = lines
    marked = [heading, ["---"] * len(heading), *body]
    table = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in marked)
    return table + "".join(f"\n{note}\n" for note in notes)


def latex_table(lines: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """The lines as a tabular (needs booktabs), the headings first; the notes as small lines below it."""
    heading, *body = (" & ".join(map(_latex, line)) + r" \\" for line in lines)
    width = len(lines[0])
    below = [rf"\multicolumn{{{width}}}{{l}}{{\footnotesize {_latex(note)}}} \\" for note in notes]
    begin = rf"\begin{{tabular}}{{{'l' * width}}}"
    whole = [begin, r"\toprule", heading, r"\midrule", *body, r"\bottomrule", *below, r"\end{tabular}"]
    return "\n".join(whole) + "\n"


def _latex(cell: str) -> str:
    return _POWER.sub(lambda match: rf"${match[1]} \times 10^{{{int(match[2])}}}$", cell.translate(_LATEX))
