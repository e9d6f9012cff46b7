"""Text that others will render: names that break no terminal, and CSV that a spreadsheet does not execute."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

#: What makes a spreadsheet take a cell for a formula (OWASP, CSV Injection), with the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    """`text` with control and undecodable characters as `?`: a file name must not break a table or a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def short(thing: object, most: int = 300) -> str:
    """`thing` as text of one line and at most `most` characters, for an error."""
    text = printable(str(thing))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """A CSV table: counts as they are, other numbers with six decimals, None and NaN empty, text that starts like a
    formula behind a `'`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _csv_cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return f"'{printable(value)}" if value.lstrip(" ").startswith(_FORMULA) else printable(value)
    if isinstance(value, int):
        return str(value)
    return "" if value is None or math.isnan(value) else f"{value:.6f}"
