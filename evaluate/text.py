"""How results leave: table cells, aligned columns, CSV that a spreadsheet does not execute, JSON without NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from preprocess.errors import ResourceError
from preprocess.text import csv_text, printable

__all__ = ["aligned", "csv_of", "csv_text", "make_folder", "number", "plain", "printable"]


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it where missing. Raises ResourceError when that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error


def number(value: float | None, decimals: int = 3, *, signed: bool = False) -> str:
    """A number with fixed decimals, never -0.000; `-` for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:{'+' if signed else ''}z.{decimals}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(
            f"{cell:{'>' if i else '<'}{width}}" for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        + "\n"
        for row in rows
    )


def csv_of(rows: Sequence[Mapping[str, str | float | None]], header: Sequence[str] = ()) -> str:
    """Rows of named values as a CSV table with the names of the first row as `header`, or with those given.

    Without a row and a header there is nothing to name, and the text is empty.
    """
    if not (rows or header):
        return ""
    header = header or tuple(rows[0])
    return csv_text(header, [[row[name] for name in header] for row in rows])


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become None, paths text, NumPy scalars plain."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, PurePath) else value
