"""Lists of cases in files: our CSV table, and the `dataset.json` of MSD and nnU-Net. Reads no image.

Neither is trusted: a case name becomes a file name of the output, and a path in a downloaded `dataset.json` must not
lead out of its folder.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from preprocess.case_checks import Listing
from preprocess.cases import LABEL_SOURCES, Case
from preprocess.errors import InputError
from preprocess.folders import is_there, label_at
from preprocess.text import short

_REQUIRED = ("case", "image", "label")


def read_table(table: Path) -> Listing:
    """The cases of a CSV table, one a line.

    Columns: case, image, label (paths relative to the table; an empty label is an unlabelled case), and optionally
    patient, liver_label, tumor_label (expert, automatic or none). Other columns are ignored.
    A line with a missing file or a value outside those is a fault of the listing, which names the line.
    Raises InputError for a missing column and a file that is no CSV table.
    """
    listing = Listing()
    try:
        # utf-8-sig: spreadsheets put a byte-order mark before the first column's name.
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, strict=True)
            rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
            missing = [column for column in _REQUIRED if column not in rows.fieldnames]
            if missing:
                raise InputError(f"{table} has no column {', '.join(missing)}; it needs a comma-separated header line")
            for row in rows:
                try:
                    listing.cases.append(_case(row, table.parent, f"{table}, line {rows.line_num}"))
                except InputError as error:
                    listing.faults.append(str(error))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a CSV table in UTF-8: {error}") from error
    return listing


def _case(row: dict[str | Any, Any], folder: Path, where: str) -> Case:
    if None in row or None in row.values():
        raise InputError(f"{where} has more or fewer fields than the header; quote fields that hold a comma")
    cell = {column: value.strip() for column, value in row.items()}
    for column in ("liver_label", "tumor_label"):
        if (cell.get(column) or "expert") not in LABEL_SOURCES:
            raise InputError(f"{where}: {column} is {short(repr(cell[column]))}; use one of {', '.join(LABEL_SOURCES)}")
    if not cell["case"] or not cell["image"]:
        raise InputError(f"{where} has an empty case or image; name both")
    for column in ("image", "label"):
        if cell[column] and not is_there(folder / cell[column]):
            raise InputError(f"{where}: {column} {short(folder / cell[column])} is missing; correct the path")
    return Case(
        name=cell["case"],
        image=folder / cell["image"],
        label=label_at(folder / cell["label"]) if cell["label"] else None,
        patient=cell.get("patient", ""),
        liver_label=cell.get("liver_label") or "expert",
        tumor_label=cell.get("tumor_label") or "expert",
    )


@dataclass(frozen=True)
class DatasetJson:
    """What a `dataset.json` says: image and label of each training case (none: look into the folders), and whether
    its classes include 2, a tumour."""

    training: tuple[tuple[Path, Path], ...] = ()
    has_tumor: bool = True


def read_dataset_json(folder: Path) -> DatasetJson:
    """The `dataset.json` of an MSD or nnU-Net dataset; the default when there is none.

    Raises InputError for a file that is no such JSON, or a path that is absolute, holds `..` or leads out of `folder`.
    """
    file = folder / "dataset.json"
    if not file.exists():
        return DatasetJson()
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}; mend or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no JSON object; mend or remove it")
    listed = content.get("training") or []
    if not isinstance(listed, list) or not all(isinstance(e, dict) and {"image", "label"} <= e.keys() for e in listed):
        raise InputError(f"{file}: training must be a list of {{image, label}}; mend or remove it")
    pairs = tuple((_inside(folder, e["image"], file), _inside(folder, e["label"], file)) for e in listed)
    return DatasetJson(pairs, has_tumor=_names_class_2(content.get("labels")))


def _inside(folder: Path, text: object, file: Path) -> Path:
    """`folder` / `text`, checked to stay within `folder` as written and with all links followed."""
    if not isinstance(text, str) or not text:
        raise InputError(f"{file}: the path {short(repr(text))} is no text; name a file inside {folder}")
    outside = any(path.anchor or ".." in path.parts for path in (PurePosixPath(text), PureWindowsPath(text)))
    path = folder / text
    try:
        outside = outside or not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{file}: the path {short(repr(text))} cannot be followed (a loop of links?); correct it"
        ) from error
    if outside:
        raise InputError(f"{file}: the path {short(repr(text))} leads out of {folder}; put the files inside it")
    return path


def _names_class_2(labels: object) -> bool:
    """Whether a `labels` object (MSD: number to name; nnU-Net: name to number or numbers) has a class 2.

    True when there is none to ask. A liver-only dataset says False: its tumours, if any, are part of class 1.
    """
    if not isinstance(labels, dict) or not labels:
        return True
    # One string a class, so that {"2": "cancer"}, {"tumor": 2} and {"tumor": [2]} read alike.
    values = [v if isinstance(v, list) else [v] for v in labels.values()]
    return "2" in {str(key) for key in labels} | {str(v) for group in values for v in group}
