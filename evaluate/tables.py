"""The scores of a cohort on the screen, and as files for spreadsheets, programs and papers."""

from __future__ import annotations

from pathlib import Path

from evaluate.cohort import CohortScore
from evaluate.columns import LESION_FIELDS, case_rows, difference_rows, lesion_rows
from evaluate.comparison import Comparison
from evaluate.conventions import CONVENTIONS
from evaluate.detection import IOU_ABOVE
from evaluate.index_page import index_page
from evaluate.paper_tables import paper_tables, with_interval
from evaluate.scores import CaseScore
from evaluate.summary import summary_of
from evaluate.text import aligned, csv_of, make_folder, number, plain, printable
from preprocess.files import write_json, write_text

_HEADER = ("case", "liver Dice", "tumour Dice", "liver mL", "true", "tumour mL", "true")


#: All that is written to a folder of scores.
WRITTEN = ("summary.json", "cases.csv", "lesions.csv", "versus.csv", "tables.md", "tables.tex", "index.html")


def write_scores(cohort: CohortScore, folder: Path, comparison: Comparison | None = None) -> None:
    """Write the scores to `folder`, which is made if missing; every file names the convention.

    `index.html` to read, `cases.csv` (a line a case), `lesions.csv` (a line a lesion), `summary.json`, `tables.md` and
    `tables.tex`, and with `comparison` `versus.csv` (differences, a line a case). A value that is not there is empty in
    CSV, null in JSON and `-` in a table; no file ever holds NaN. docs/evaluate.md describes every column and key.
    Raises ResourceError when the folder or a file cannot be written.
    """
    make_folder(folder)
    summary = plain(summary_of(cohort, comparison))
    write_json(folder / "summary.json", summary)  # first: it says whose the others are
    write_text(folder / "cases.csv", csv_of(case_rows(cohort.cases)))
    write_text(folder / "lesions.csv", csv_of(lesion_rows(cohort.cases), LESION_FIELDS))
    if comparison:
        write_text(folder / "versus.csv", csv_of(difference_rows(comparison)))
    else:
        (folder / "versus.csv").unlink(missing_ok=True)  # of an earlier run: it would not belong to these scores
    tables = paper_tables(cohort, comparison)
    write_text(folder / "tables.md", "\n".join(table.markdown() for table in tables))
    write_text(folder / "tables.tex", "\n".join(table.latex() for table in tables))
    pages = [case.case for case in cohort.cases if (folder / case.case / "index.html").is_file()]
    write_text(folder / "index.html", index_page(summary["cases"], summary, pages))


def screen_table(cohort: CohortScore, comparison: Comparison | None = None) -> str:
    """The scores as aligned plain text: worst tumour first, mean and pooled Dice, lesions, then the convention."""
    rows = [_HEADER, *(_row(case) for case in cohort.worst_first("tumor"))]
    means = [number(cohort.summary(region, "dice").mean) for region in ("liver", "tumor")]
    pooled = [number(cohort.global_dice(region)) for region in ("liver", "tumor")]
    rows += [("mean", *means, "", "", "", ""), ("all voxels", *pooled, "", "", "", "")]
    changes = _changes(comparison) if comparison else ""
    return (
        f"{aligned(rows)}\n{_intervals(cohort)}{_lesions(cohort)}{_burden(cohort)}{changes}"
        f"Cases: {cohort.n}; tumours scored in {len(cohort.tumor_cases)}, of which {cohort.n_tumor_free} have none. "
        f"Convention {cohort.convention}: {CONVENTIONS[cohort.convention]}.\n"
    )


def _row(case: CaseScore) -> tuple[str, ...]:
    volumes = (case.liver_ml, case.liver_ml_truth, case.tumor_ml, case.tumor_ml_truth)
    return printable(case.case), number(case.liver_dice), number(case.tumor_dice), *(number(ml, 1) for ml in volumes)


def _intervals(cohort: CohortScore) -> str:
    """Means with intervals, of the metrics that most readers ask for; nothing of one patient."""
    lines = []
    for region, name in (("liver", "liver"), ("tumor", "tumour")):
        parts = []
        for metric, label in (("dice", "Dice"), ("assd", "ASSD mm"), ("nsd2", "NSD 2 mm")):
            summary = cohort.summary(region, metric)
            if summary.n:
                parts.append(f"{label} {with_interval(summary.mean, summary.interval)}")
        lines += [f"{name}: {', '.join(parts)}\n"] if parts else []
    return "".join(lines)


def _lesions(cohort: CohortScore) -> str:
    lines = []
    for above in IOU_ABOVE.values():
        counts = cohort.detection(above).counts
        if counts.truth or counts.predicted:
            lines.append(
                f"lesions, IoU > {above:g}: {counts.detected} of {counts.truth} found, {counts.false} of "
                f"{counts.predicted} predicted ones false, F1 {number(counts.f1)}\n"
            )
    return "".join(lines)


def _burden(cohort: CohortScore) -> str:
    error = cohort.burden_error()
    return f"tumour burden: RMSE {number(error.rmse)}, largest error {number(error.largest)}\n" if error else ""


def _changes(comparison: Comparison) -> str:
    lines = []
    for region, name in (("liver", "liver"), ("tumor", "tumour")):
        change = comparison.summary(region, "dice")
        if change.n:
            value = with_interval(change.mean, change.interval, signed=True)
            lines.append(f"{name} Dice less that of the other prediction: {value}, n = {change.n}\n")
    return "".join(lines)
