"""Tables as Markdown and LaTeX."""

from diffprobe.report.wording import latex_table, markdown_table

LINES = [["set", "p"], ["a_b|c", "3.1e-436 / 0.5 ± 0.1"]]


def test_markdown_keeps_its_columns_whatever_is_in_the_cells():
    assert markdown_table(LINES, ["* a note"]).splitlines() == [
        "| set | p |",
        "| --- | --- |",
        "| a_b\\|c | 3.1e-436 / 0.5 ± 0.1 |",
        "",
        "* a note",
    ]


def test_latex_sets_powers_and_escapes_what_it_would_take_for_commands():
    lines = latex_table([["set", "p"], ["a_b & 50 % ^~\\", "3.1e-05 < 1"]], ["note"]).splitlines()

    assert lines[4] == (
        r"a\_b \& 50 \% \textasciicircum{}\textasciitilde{}\textbackslash{} & $3.1 \times 10^{-5}$ $<$ 1 \\"
    )
    assert r"\multicolumn{2}{l}{\footnotesize note} \\" in lines


def test_words_with_digits_are_no_powers():
    assert "encoder16e2x" in latex_table([["encoder16e2x"]])
