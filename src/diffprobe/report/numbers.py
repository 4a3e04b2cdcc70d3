"""Numbers as text: intervals, and p values beyond what a float can hold.

Tables of text as Markdown and LaTeX.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeGuard

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


SMALL = -300.0  # log10 p from here on is written from the logarithm, since p itself loses digits or is 0


def interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """'0.86 [0.83, 0.89]', '0.86' without an interval, '' without a value."""
    if not (is_number(low) and is_number(high)):
        return rounded(value, digits)
    return f"{rounded(value, digits)} [{rounded(low, digits)}, {rounded(high, digits)}]" if is_number(value) else ""


def rounded(value: float | None, digits: int = 2) -> str:
    """Fixed decimals, no minus before a zero; '' without a value."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if is_number(value) else ""


def p_text(p: float | None, log10_p: float | None = None) -> str:
    """Two digits of p: '0.00029', '1.5e-31', and '3.1e-436' from its logarithm where p underflows; '' without p."""
    if is_number(log10_p) and log10_p < SMALL:
        return _power(log10_p)
    return short_power(f"{p:.2g}") if is_number(p) else ""


def short_power(text: str) -> str:
    """'1e-05' as '1e-5'."""
    number, sign, exponent = text.partition("e")
    return f"{number}e{int(exponent)}" if sign else text


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether it is a number: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def _power(log10: float) -> str:
    exponent = math.floor(log10)
    mantissa = round(10 ** (log10 - exponent), 1)
    return f"1.0e{exponent + 1}" if mantissa >= 10 else f"{mantissa:.1f}e{exponent}"
