"""Tables for papers and pages: the same cells as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluate.text import printable

_LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "²": r"$^2$",
}


@dataclass(frozen=True)
class Table:
    """A caption, a header and rows of text cells, the first column being names."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As a pipe table with its caption above it."""
        lines = [_pipe(self.header), _pipe(["---", *("---:" for _ in self.header[1:])]), *map(_pipe, self.rows)]
        return f"{printable(self.caption)}\n\n" + "\n".join(lines) + "\n"

    def latex(self) -> str:
        """As a `table` with a `tabular`, for `\\usepackage{booktabs}`."""
        body = [" & ".join(map(_escaped, row)) + r" \\" for row in self.rows]
        lines = [
            r"\begin{table}",
            rf"\caption{{{_escaped(self.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
            r"\toprule",
            " & ".join(map(_escaped, self.header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _pipe(cells: Sequence[str]) -> str:
    # A pipe or a tag in a case name must not break the table or the page.
    safe = (printable(cell).replace("\\", "\\\\").replace("|", r"\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(safe)} |"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in printable(text))
