"""One table in two languages."""

from evaluate.typeset import Table

TABLE = Table("Scores, 95 % of them", ("", "n"), (("a_1 | <b>", "3"), ("a\x1bb\\", "10 & 2")))


def test_markdown():
    assert TABLE.markdown() == (
        "Scores, 95 % of them\n\n|  | n |\n| --- | ---: |\n| a_1 \\| &lt;b> | 3 |\n| a?b\\\\ | 10 & 2 |\n"
    )


def test_latex():
    assert TABLE.latex().splitlines() == [
        r"\begin{table}",
        r"\caption{Scores, 95 \% of them}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & n \\",
        r"\midrule",
        r"a\_1 | $<$b$>$ & 3 \\",
        r"a?b\textbackslash{} & 10 \& 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
