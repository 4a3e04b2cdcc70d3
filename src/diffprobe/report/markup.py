"""Tables of text as Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

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


def markdown_table(lines: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """The lines as a table, the headings first; the notes as paragraphs below it."""
    heading, *body = lines
    marked = [heading, ["---"] * len(heading), *body]
    table = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in marked)
    return table + "".join(f"\n{note}\n" for note in notes)


def latex_table(lines: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """The lines as a tabular (needs booktabs), the headings first; the notes as small lines below it."""
    heading, *body = ([_latex(cell) for cell in line] for line in lines)
    below = [rf"\multicolumn{{{len(heading)}}}{{l}}{{\footnotesize {_latex(note)}}} \\" for note in notes]
    whole = [
        rf"\begin{{tabular}}{{{'l' * len(heading)}}}",
        r"\toprule",
        " & ".join(heading) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        *below,
        r"\end{tabular}",
    ]
    return "\n".join(whole) + "\n"


def _latex(cell: str) -> str:
    return _POWER.sub(lambda found: rf"${found[1]} \times 10^{{{int(found[2])}}}$", cell.translate(_LATEX))
