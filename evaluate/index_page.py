"""`index.html` of `cascade evaluate`: the cohort, its charts, and the cases worst first; from plain data."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from evaluate.agreement import bland_altman
from evaluate.charts import detection_bars, dice_boxes
from evaluate.page import Cell, Column, charts, figure, page, paragraph, section, table
from evaluate.text import number

Row = Mapping[str, Any]

_NAME = {"liver": "liver", "tumor": "tumour"}

#: What the end of a column's name is called, and the decimals of its numbers.
_MEASURES = {
    "dice": ("Dice", 3),
    "voe": ("VOE", 3),
    "rvd": ("RVD", 3),
    "assd": ("ASSD, mm", 2),
    "rmsd": ("RMSD, mm", 2),
    "msd": ("MSD, mm", 1),
    "nsd1": ("NSD at 1 mm", 3),
    "nsd2": ("NSD at 2 mm", 3),
    "nsd3": ("NSD at 3 mm", 3),
    "ml": ("mL", 1),
    "ml_truth": ("mL, true", 1),
    "burden": ("burden", 3),
    "burden_truth": ("burden, true", 3),
}

#: The columns of the table of cases that are shown where there are any; `cases.csv` has them all.
_CASE_COLUMNS = (
    *("tumor_dice", "liver_dice", "tumor_ml", "tumor_ml_truth", "liver_ml", "liver_ml_truth"),
    *("liver_assd", "liver_nsd2", "tumor_assd", "tumor_nsd2"),
)

_OVERLAPS = {"iou0": "IoU > 0", "iou50": "IoU > 0.5"}
_SIZES = {"all": "all", "<10": "< 10 mm", "10-20": "10-20 mm", ">20": "> 20 mm"}


def index_page(rows: Sequence[Row], summary: Mapping[str, Any], with_page: Collection[str] = ()) -> str:
    """The whole page as HTML. Whatever is missing is left out of it.

    `rows` has a mapping a case, with the columns of `cases.csv`: `case`, `liver_dice`, `tumor_dice`, `liver_ml`,
    `liver_ml_truth`, `tumor_ml`, `tumor_ml_truth` (mL), `liver_assd` (mm) and so on; None or NaN for no value.
    `summary` has, all of them optional, `convention` and its `empty_rule` as texts; `metrics`, by column: `mean`,
    `median`, `n` and `interval` (`low`, `high`); `global`, by column: the Dice of all voxels pooled; `detection`, by
    `iou0` and `iou50` and then by `all`, `<10`, `10-20` and `>20`: `recall`, `precision`, `truth` and `predicted`;
    `false_lesions`, `lesion_pairs`, `tumor_burden` and `versus` as in `summary.json` (docs/evaluate.md).
    Cases named in `with_page` are linked to `<case>/index.html`.
    """
    return page(
        "Scores",
        [
            paragraph(_lead(len(rows), summary), class_="lead"),
            *_cohort(summary),
            *_versus(summary),
            *_lesions(summary),
            section("Charts", charts(*_dice(rows), *_detection(summary), *_volumes(rows))),
            section("Cases, worst first", _cases(rows, with_page)),
        ],
    )


def _lead(n: int, summary: Mapping[str, Any]) -> str:
    cases = f"{n} case{'' if n == 1 else 's'}."
    convention, rule = (summary.get(key) for key in ("convention", "empty_rule"))
    return f"{cases} Convention {convention}{f': {rule}' if rule else ''}." if convention else cases


def _measure(column: str) -> tuple[str, int]:
    """What a column is called, and the decimals of its numbers."""
    region, _, kind = column.partition("_")
    name, decimals = _MEASURES.get(kind, (kind, 3))
    return (f"{_NAME[region]} {name}", decimals) if region in _NAME else (column, 3)


def _cohort(summary: Mapping[str, Any]) -> list[str]:
    """The section with means, intervals, medians and pooled values; nothing when there are none."""
    metrics, pooled = summary.get("metrics") or {}, summary.get("global") or {}
    rows = []
    for name in sorted({*metrics, *pooled}, key=[*metrics, *pooled].index):
        label, decimals = _measure(name)
        values = metrics.get(name) or {}
        numbers = [number(values.get(key), decimals) for key in ("mean", "median")]
        between = _between(values.get("interval"), decimals)
        rows.append((label, numbers[0], between, numbers[1], number(pooled.get(name), decimals), values.get("n")))
    columns = [Column("measure", numeric=False), *(Column(name) for name in _COHORT_COLUMNS), Column("cases", 0)]
    return [section("Cohort", table("Each measure over the cases that have one", columns, rows))] if rows else []


_COHORT_COLUMNS = ("mean", "95 % interval of the mean", "median", "all voxels pooled")


def _between(interval: Mapping[str, float] | None, decimals: int, *, signed: bool = False) -> str:
    ends = [number((interval or {}).get(end), decimals, signed=signed) for end in ("low", "high")]
    return "-" if "-" in ends else " to ".join(ends)


def _versus(summary: Mapping[str, Any]) -> list[str]:
    """The section with the paired differences of two predictions; nothing when there is one."""
    versus = summary.get("versus")
    if not versus:
        return []
    pooled = versus["global_difference"].items()
    changes = [
        (name, "", (change["first"], change["second"]), change["mean"], change)
        for name, change in versus["difference"].items()
    ]
    changes += [
        (name, ", all voxels pooled", (summary["global"][name], versus["global"][name]), change["value"], change)
        for name, change in pooled
    ]
    rows: list[list[Cell]] = []
    for name, suffix, values, value, change in changes:
        label, decimals = _measure(name)
        both = [number(each, decimals) for each in values]
        between = _between(change["interval"], decimals, signed=True)
        rows.append([label + suffix, *both, number(value, decimals, signed=True), between, change.get("n")])
    columns = [Column("measure", numeric=False), *(Column(name) for name in _VERSUS_COLUMNS), Column("cases", 0)]
    return [
        section(
            "Against the other prediction",
            table("Differences are this one less the other, where both have a value", columns, rows),
        )
    ]


_VERSUS_COLUMNS = ("this prediction", "the other", "mean difference", "95 % interval of the difference")


def _lesions(summary: Mapping[str, Any]) -> list[str]:
    """The section with false, split and merged lesions and the tumour burden; nothing when there are none."""
    rows = [
        (label, number(value, 0 if isinstance(value, int) else 3))
        for part, names in _LESION_ROWS.items()
        for key, label in names.items()
        if (value := (summary.get(part) or {}).get(key)) is not None
    ]
    columns = [Column("", numeric=False), Column("value")]
    return (
        [section("Lesions and tumour burden", paragraph(_LESION_TERMS), table("All cases", columns, rows))]
        if rows
        else []
    )


_LESION_TERMS = (
    "A false lesion touches no true one. A split is several predictions of one true lesion, a merge one of several, "
    "a tangle several of several. Tumour burden is tumour / liver."
)


#: What is shown of these parts of the summary.
_LESION_ROWS = {
    "false_lesions": {
        "per_case": "false lesions per case",
        "per_tumor_free_case": "false lesions, no true tumour",
    },
    "lesion_pairs": {
        "split": "splits",
        "merge": "merges",
        "tangle": "tangles",
    },
    "tumor_burden": {
        "rmse": "tumour burden, RMSE",
        "largest": "tumour burden, largest error",
    },
}


def _known(rows: Sequence[Row], *columns: str) -> Iterator[tuple[str, list[float]]]:
    """The cases that have a number in all of `columns`, and the numbers."""
    for row in rows:
        values = [math.nan if row.get(column) is None else float(row[column]) for column in columns]
        if not any(map(math.isnan, values)):
            yield str(row["case"]), values


def _dice(rows: Sequence[Row]) -> list[str]:
    groups = [
        (name, [(case, value) for case, (value,) in _known(rows, f"{region}_dice")]) for region, name in _NAME.items()
    ]
    return [figure("Dice by case", dice_boxes("Dice by case", groups))]


def _volumes(rows: Sequence[Row]) -> list[str]:
    pictures = []
    for region, name in _NAME.items():
        known = _known(rows, f"{region}_ml", f"{region}_ml_truth")
        title = f"{name.capitalize()} volume against the truth (Bland-Altman)"
        pictures.append(figure(title, bland_altman(title, [(case, ml, true) for case, (ml, true) in known])))
    return pictures


def _detection(summary: Mapping[str, Any]) -> list[str]:
    pictures = []
    for key, by_size in (summary.get("detection") or {}).items():
        bins = []
        for size, found in by_size.items():
            counts = ((found.get("truth"), "true"), (found.get("predicted"), "predicted"))
            note = ", ".join(f"{count} {what}" for count, what in counts if count is not None)
            bins.append((_SIZES.get(size, size), note, found.get("recall"), found.get("precision")))
        title = f"Lesions detected at {_OVERLAPS.get(key, key)}, by diameter"
        pictures.append(figure(title, detection_bars(title, bins)))
    return pictures


def _cases(rows: Sequence[Row], with_page: Collection[str]) -> str:
    shown = [column for column in _CASE_COLUMNS if any(column in row for row in rows)]
    columns = [Column("case", numeric=False), *(Column(*_measure(column)) for column in shown)]
    # The table sorts by its first column and keeps this order among equals: several cases have no tumour Dice, or 0.
    known = dict(_known(rows, "liver_dice"))
    ranked = sorted(rows, key=lambda row: known.get(str(row["case"]), [math.inf]))
    cells: list[list[Cell]] = [[str(row["case"]), *(row.get(column) for column in shown)] for row in ranked]
    links = {case: f"{_quoted(case)}/index.html" for case in with_page}
    return table("A click on a header sorts", columns, cells, sort_by=1 if shown else None, links=links)


def _quoted(case: str) -> str:
    """A folder name as one part of a URL; a name need not be valid UTF-8."""
    return quote(case.encode("utf-8", "surrogateescape"), safe="")
