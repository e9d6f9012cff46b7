"""A self-contained HTML page: no network, no outside script or font, everything that came from a file shown as text.

The content security policy names the one style sheet and the one script by their hash; nothing else runs or loads.
Tables are complete without the script, which only makes them sortable.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from evaluate.svg import element, text_of
from evaluate.text import number

#: What a table cell may hold; None and NaN are missing.
Cell = str | float | None


def page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML document; `title` is text, `sections` finished markup."""
    style, script = (resources.files("evaluate").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text_of(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{text_of(title)}</h1>\n" + "\n".join(sections) + "\n</main>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")


def section(title: str, *parts: str) -> str:
    """A heading and finished markup below it."""
    return element("section", element("h2", text_of(title)), *parts)


def paragraph(text: str, class_: str = "") -> str:
    """A paragraph of plain text."""
    return element("p", text_of(text), **({"class_": class_} if class_ else {}))


def charts(*pictures: str) -> str:
    """Charts beside each other, below each other where there is no room. Each is titled in text by `figure`."""
    return element("div", *pictures, class_="charts")


def figure(caption: str, picture: str) -> str:
    """A chart with its caption, which is plain text."""
    return element("figure", element("figcaption", text_of(caption)), picture)


@dataclass(frozen=True)
class Column:
    """A column of a table: its header, and how numbers are written in it."""

    header: str
    decimals: int = 3
    signed: bool = False
    numeric: bool = True


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    sort_by: int | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """A table whose first column names the rows.

    `sort_by` is a column to sort by, smallest first and missing values last; the reader can then sort by any other
    with a click on its header. Without `sort_by` the order stays. `links` gives the address for a text of the first
    column; addresses must be escaped for their part of a URL (`urllib.parse.quote`).
    """
    heads = [
        element(
            "th", text_of(c.header), scope="col", **_classes(c), **({"aria_sort": "ascending"} if i == sort_by else {})
        )
        for i, c in enumerate(columns)
    ]
    if sort_by is not None:
        rows = sorted(rows, key=lambda row: _order(row[sort_by]))
    body = [_row(columns, row, links or {}) for row in rows]
    return element(
        "div",
        element(
            "table",
            element("caption", text_of(caption)),
            element("thead", element("tr", *heads)),
            element("tbody", *body),
            **({} if sort_by is None else {"class_": "sortable"}),
        ),
        class_="wide",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _order(cell: Cell) -> tuple[bool, float, str]:
    if isinstance(cell, str):
        return False, 0.0, cell
    missing = cell is None or math.isnan(cell)
    return missing, 0.0 if missing or cell is None else cell, ""


def _classes(column: Column) -> dict[str, str | float]:
    return {"class_": "number"} if column.numeric else {}


def _row(columns: Sequence[Column], row: Sequence[Cell], links: Mapping[str, str]) -> str:
    first, *others = row
    name = text_of(str(first))
    link = links.get(str(first))
    cells = [element("th", element("a", name, href=link) if link else name, scope="row")]
    for column, cell in zip(columns[1:], others, strict=True):
        if isinstance(cell, str):
            cells.append(element("td", text_of(cell), **_classes(column)))
            continue
        # Not number's text: that is rounded. float, as NumPy's numbers do not repr as plain ones.
        known: dict[str, str | float] = {} if cell is None or math.isnan(cell) else {"data_value": repr(float(cell))}
        cells.append(element("td", number(cell, column.decimals, signed=column.signed), **_classes(column), **known))
    return element("tr", *cells)
