"""The scores of a cohort as a table on the screen and as files for spreadsheets and programs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from evaluate.scores import CaseScore, CohortScore
from evaluate.text import aligned, csv_text, make_folder, number, plain, printable
from preprocess.files import write_json, write_text

#: The columns of `cases.csv` and the keys of a case in `summary.json`.
CASE_FIELDS = ("case", "liver_dice", "tumor_dice", "liver_ml", "liver_ml_truth", "tumor_ml", "tumor_ml_truth")

_HEADER = ("case", "liver Dice", "tumour Dice", "liver mL", "true", "tumour mL", "true")


def write_scores(cohort: CohortScore, folder: Path) -> None:
    """Write `cases.csv` (one line a case, volumes in mL) and `summary.json` to `folder`, which is made if missing.

    A value that is not scored is empty in CSV and null in JSON; neither file ever holds NaN.
    Raises ResourceError when the folder or a file cannot be written.
    """
    make_folder(folder)
    rows = [[getattr(case, field) for field in CASE_FIELDS] for case in cohort.cases]
    write_text(folder / "cases.csv", csv_text(CASE_FIELDS, rows))
    write_json(folder / "summary.json", plain(_summary(cohort)))


def _summary(cohort: CohortScore) -> dict[str, Any]:
    return {
        "convention": cohort.convention,
        "n": cohort.n,
        "n_tumor_scored": len(cohort.tumor_cases),
        "n_tumor_free": cohort.n_tumor_free,
        "mean": {"liver_dice": cohort.liver_dice_mean, "tumor_dice": cohort.tumor_dice_mean},
        "global": {"liver_dice": cohort.liver_dice_global, "tumor_dice": cohort.tumor_dice_global},
        "cases": [{field: getattr(case, field) for field in CASE_FIELDS} for case in cohort.cases],
    }


def screen_table(cohort: CohortScore) -> str:
    """The scores as aligned plain text: worst tumour first, then mean and pooled Dice, then the convention."""
    rows = [_HEADER, *(_row(case) for case in sorted(cohort.cases, key=_badness))]
    rows.append(("mean", number(cohort.liver_dice_mean), number(cohort.tumor_dice_mean), "", "", "", ""))
    rows.append(("all voxels", number(cohort.liver_dice_global), number(cohort.tumor_dice_global), "", "", "", ""))
    return (
        f"{aligned(rows)}\n"
        f"Cases: {cohort.n}; tumours scored in {len(cohort.tumor_cases)}, of which {cohort.n_tumor_free} have none. "
        f"Convention {cohort.convention}: an empty prediction of an empty truth scores 1.\n"
    )


def _badness(case: CaseScore) -> tuple[float, float, str]:
    return math.inf if case.tumor_dice is None else case.tumor_dice, case.liver_dice, case.case


def _row(case: CaseScore) -> tuple[str, ...]:
    volumes = (case.liver_ml, case.liver_ml_truth, case.tumor_ml, case.tumor_ml_truth)
    return printable(case.case), number(case.liver_dice), number(case.tumor_dice), *(number(ml, 1) for ml in volumes)
