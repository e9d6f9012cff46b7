"""What a table of cases knows and masks do not: whose scan a case is, and whether anyone drew its tumours."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluate.names import case_key, case_of
from preprocess.cases import LABEL_SOURCES
from preprocess.errors import InputError


@dataclass(frozen=True)
class CaseFacts:
    """The patient of a case, and whether its true tumours can be scored."""

    patient: str
    scores_tumor: bool = True


def read_facts(table: Path, truths: Mapping[str, Path]) -> dict[str, CaseFacts]:
    """What the CSV table `table` says of each case in `truths`, whose values are the files of their true masks.

    Columns: `case`, and if wanted `patient` (default: the case), `tumor_label` and `liver_label` (expert, automatic or
    none), `image` and `label` (paths relative to the table); the table for `cascade prepare` is one. A row is found by
    its case, or else by its label being the true mask, or else by the name of its label or image. `tumor_label` none:
    only the liver is scored. Other rows and columns are ignored.
    Raises InputError for a table that cannot be read, a case with no row or several, a wrong word, and a case whose
    `liver_label` is none.
    """
    rows = list(_rows(table))
    return {case: _facts(_row_of(case, truth, rows, table), case, table) for case, truth in truths.items()}


def _rows(table: Path) -> Iterator[dict[str, str]]:
    try:
        # utf-8-sig: spreadsheets put a byte-order mark before the first column's name.
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if "case" not in reader.fieldnames:
                raise InputError(f"{table} has no column case; it needs a comma-separated header line")
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{table}, line {reader.line_num} has more or fewer fields than the header; "
                        "quote fields that hold a comma"
                    )
                yield {column: value.strip() for column, value in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a CSV table in UTF-8: {error}") from error


def _row_of(case: str, truth: Path, rows: Sequence[dict[str, str]], table: Path) -> dict[str, str]:
    def is_truth(row: dict[str, str]) -> bool:
        return bool(row.get("label")) and (table.parent / row["label"]).resolve() == truth.resolve()

    ways: list[Callable[[dict[str, str]], bool]] = [
        lambda row: case in (row["case"], case_key(row["case"])),
        is_truth,
        lambda row: case in {case_of(Path(file)) for column in ("label", "image") if (file := row.get(column))},
    ]
    found = next((hits for way in ways if (hits := [row for row in rows if way(row)])), [])
    if not found:
        raise InputError(f"{table} has no row for case {case}; add one with its patient and tumor_label")
    if len(found) > 1:
        names = " and ".join(row["case"] for row in found[:2])
        raise InputError(f"{table}: case {case} may be {names}; name the case {case} in one row")
    return found[0]


def _facts(row: dict[str, str], case: str, table: Path) -> CaseFacts:
    for column in ("liver_label", "tumor_label"):
        if (row.get(column) or "expert") not in LABEL_SOURCES:
            raise InputError(
                f"{table}: {column} of case {case} is {row[column]!r}; use one of {', '.join(LABEL_SOURCES)}"
            )
    if row.get("liver_label") == "none":
        raise InputError(f"{table}: liver_label of case {case} is none, so it cannot be scored; leave its masks out")
    return CaseFacts(row.get("patient") or case, row.get("tumor_label") != "none")
