"""The account of the stages as files: tables for a person, a spreadsheet and a program; see `docs/report.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluate.account import ACCOUNT_FIELDS, StageAccount, StageReport
from evaluate.advice import HELD_OUT, KIND, NAME, advice
from evaluate.fates import FATES, fate_counts
from evaluate.stage_page import stage_page
from evaluate.text import aligned, csv_text, make_folder, number, plain, printable
from evaluate.waterfall import STEPS, Waterfall
from preprocess.files import write_bytes, write_json, write_text

#: Two header lines of `report.txt`, one column a field of `ACCOUNT_FIELDS`.
_HEADERS = (
    (
        "case",
        "held",
        "stage 1",
        "stage 1",
        "ROI",
        "ROI",
        "stage 2",
        "stage 2",
        "final",
        "final",
        "clean-up",
        "clean-up",
    ),
    ("", "out", "coarse", "liver", "liver", "tumour", "true ROI", "own ROI", "liver", "tumour", "liver", "tumour"),
)

_LEGEND = """\
stage 1: Dice of the liver, on the coarse grid and on the image's. ROI: share of the true liver and tumour inside it.
stage 2: Dice of the tumours as the network left them, in the ROI of the true liver and in the cascade's own.
final: Dice of the merged mask. clean-up: final Dice minus the Dice before clean-up.
Convention lits: an empty prediction of an empty truth scores 1. -: not scored, or nothing to score.
"""

_WATERFALL_FIELDS = ("case", "held_out", "structure", "step", "loss", "dice")
_LESION_FIELDS = ("case", "held_out", "lesion", "volume_ml", "found_share", "fate")


#: All that is written to the folder of an account, beside pictures.
WRITTEN = ("report.json", "stages.csv", "waterfall.csv", "lesions.csv", "report.txt", "index.html")


def write_account(
    report: StageReport, folder: Path, meta: Mapping[str, object], pictures: Mapping[str, bytes] | None = None
) -> None:
    """Write all files of an account to `folder`, which is made if missing.

    `report.json` (`meta`, means, cases), `report.txt`, `index.html`; `stages.csv` has a line a case, `waterfall.csv`
    one a case, structure and step, `lesions.csv` one a true tumour. Means are taken for held-out cases, for cases seen
    in training and for unknown ones apart. `pictures`, PNG files by case, go into a folder of that name, in which those
    of an earlier account do not stay. A number that does not apply is null in JSON, empty in CSV and `-` in texts.
    Raises ValueError for a report without a case, ResourceError when the folder or a file cannot be written.
    """
    if not report.accounts:
        raise ValueError("a report needs at least one case")
    make_folder(folder)
    before = _cases_before(folder)
    write_json(folder / "report.json", plain(_as_json(report, meta)))  # first: it says whose the others are
    rows = [[case.case, HELD_OUT[case.held_out], *_numbers(case)] for case in report.accounts]
    write_text(folder / "stages.csv", csv_text(("case", "held_out", *ACCOUNT_FIELDS), rows))
    write_text(folder / "waterfall.csv", csv_text(_WATERFALL_FIELDS, _waterfall_rows(report)))
    write_text(folder / "lesions.csv", csv_text(_LESION_FIELDS, _lesion_rows(report)))
    write_text(folder / "report.txt", report_text(report))
    _write_pictures(folder / "pictures", pictures or {}, before)
    write_text(folder / "index.html", stage_page(report, pictures or ()))


def _cases_before(folder: Path) -> list[str]:
    """The cases of the account that stands in `folder`."""
    try:
        return [str(case["case"]) for case in json.loads((folder / "report.json").read_text("utf-8"))["cases"]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _write_pictures(folder: Path, pictures: Mapping[str, bytes], before: Sequence[str]) -> None:
    for case in before:
        if case not in pictures and case == Path(case).name:
            (folder / f"{case}.png").unlink(missing_ok=True)
    if pictures:
        make_folder(folder)
    for case, picture in pictures.items():
        write_bytes(folder / f"{case}.png", picture)


def _waterfall_rows(report: StageReport) -> Iterator[list[str | float | None]]:
    for case in report.accounts:
        for structure in STEPS:
            waterfall: Waterfall | None = getattr(case, structure)
            if waterfall is not None:
                steps = zip(waterfall.steps, waterfall.losses, waterfall.dice[1:], strict=True)
                for step, loss, dice in steps:
                    yield [case.case, HELD_OUT[case.held_out], structure, step.key, float(loss), float(dice)]


def _lesion_rows(report: StageReport) -> Iterator[list[str | float | None]]:
    for case in report.accounts:
        for row in case.lesions:
            known = HELD_OUT[case.held_out]
            yield [case.case, known, str(row.lesion), row.volume_ml, row.found_share, row.fate]


def _as_json(report: StageReport, meta: Mapping[str, object]) -> dict[str, Any]:
    means = {
        kind: {
            "n": len(group.accounts),
            **{field: group.mean(field) for field in ACCOUNT_FIELDS},
            "waterfall": {structure: _by_step(group.waterfall(structure)) for structure in STEPS},
            "lesions": fate_counts(group.lesions),
        }
        for kind, group in report.by_kind().items()
    }
    cases = [
        {
            "case": case.case,
            "held_out": case.held_out,
            **dict(zip(ACCOUNT_FIELDS, _numbers(case), strict=True)),
            "waterfall": {structure: _by_step(getattr(case, structure)) for structure in STEPS},
            "lesions": [asdict(lesion) for lesion in case.lesions],
        }
        for case in report.accounts
    ]
    return {"meta": meta, "convention": "lits", "mean": means, "advice": advice(report), "cases": cases}


def _by_step(waterfall: Waterfall | None) -> dict[str, float] | None:
    """What each step loses, by its key."""
    if waterfall is None:
        return None
    return {step.key: float(loss) for step, loss in zip(waterfall.steps, waterfall.losses, strict=True)}


def report_text(report: StageReport) -> str:
    """The account as aligned text: the cases with a mean line a kind, a legend, the mean waterfalls, and the advice."""
    rows = [
        *_HEADERS,
        *(_row(printable(case.case), HELD_OUT[case.held_out], _numbers(case)) for case in report.accounts),
    ]
    for kind, group in report.by_kind().items():
        means = [group.mean(field) for field in ACCOUNT_FIELDS]
        rows.append(_row(f"mean, {KIND[kind]} (n = {len(group.accounts)})", "", means))
    return f"{aligned(rows)}\n{_LEGEND}\n{aligned(_waterfall_table(report))}\n{advice(report)}\n"


def _waterfall_table(report: StageReport) -> list[list[str]]:
    """Rows of the mean losses of both structures and of the fates of tumours, a column a kind of case."""
    kinds = report.by_kind()
    rows = [["lost, of a Dice of 1", *(f"{KIND[kind]} (n = {len(group.accounts)})" for kind, group in kinds.items())]]
    for structure, steps in STEPS.items():
        waterfalls = [group.waterfall(structure) for group in kinds.values()]
        for i, step in enumerate(steps):
            losses = [None if w is None else float(w.losses[i]) for w in waterfalls]
            rows.append([f"{NAME[structure]}: {step.label}", *(number(loss) for loss in losses)])
        finals = [None if w is None else float(w.dice[-1]) for w in waterfalls]
        rows.append([f"{NAME[structure]}: what is left", *(number(final) for final in finals)])
    scored = [group.waterfall("tumor") is not None for group in kinds.values()]
    counts = [fate_counts(group.lesions) for group in kinds.values()]
    for fate, label in FATES.items():
        if any(count[fate] for count in counts):
            cells = (str(count[fate]) if known else "-" for count, known in zip(counts, scored, strict=True))
            rows.append([f"true tumours: {label}", *cells])
    return rows


def _numbers(case: StageAccount) -> list[float | None]:
    return [getattr(case, field) for field in ACCOUNT_FIELDS]


def _row(name: str, held_out: str, values: list[float | None]) -> tuple[str, ...]:
    cells = [number(v, signed=field.endswith("_gain")) for field, v in zip(ACCOUNT_FIELDS, values, strict=True)]
    return name, held_out, *cells
