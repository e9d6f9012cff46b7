"""The account of the stages as files, and in one sentence the stage to work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluate.account import ACCOUNT_FIELDS, StageAccount, StageReport
from evaluate.text import aligned, csv_text, make_folder, number, plain, printable
from preprocess.files import write_json, write_text

_HELD_OUT = {True: "yes", False: "no", None: "unknown"}

_KIND = {"held_out": "held out", "in_training": "seen in training", "unknown": "training unknown"}

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


def write_account(report: StageReport, folder: Path, meta: Mapping[str, object]) -> None:
    """Write `report.json` (`meta`, means, cases), `report.txt` (the table) and `stages.csv` to `folder`.

    The folder is made if missing. Means are taken for held-out cases, for cases seen in training and for unknown ones
    apart. A number that does not apply is null in JSON, empty in CSV and `-` in the text. Raises ValueError for a
    report without a case, ResourceError when the folder or a file cannot be written.
    """
    if not report.accounts:
        raise ValueError("a report needs at least one case")
    make_folder(folder)
    rows = [[case.case, _HELD_OUT[case.held_out], *_numbers(case)] for case in report.accounts]
    write_text(folder / "stages.csv", csv_text(("case", "held_out", *ACCOUNT_FIELDS), rows))
    write_text(folder / "report.txt", report_text(report))
    write_json(folder / "report.json", plain(_as_json(report, meta)))


def _as_json(report: StageReport, meta: Mapping[str, object]) -> dict[str, Any]:
    means = {
        kind: {"n": len(group.accounts), **{field: group.mean(field) for field in ACCOUNT_FIELDS}}
        for kind, group in report.by_kind().items()
    }
    cases = [asdict(case) for case in report.accounts]
    return {"meta": meta, "convention": "lits", "mean": means, "advice": advice(report), "cases": cases}


def report_text(report: StageReport) -> str:
    """The account as an aligned text table: cases, a mean line a kind of case, a legend, and the advice."""
    rows = [
        *_HEADERS,
        *(_row(printable(case.case), _HELD_OUT[case.held_out], _numbers(case)) for case in report.accounts),
    ]
    for kind, group in report.by_kind().items():
        means = [group.mean(field) for field in ACCOUNT_FIELDS]
        rows.append(_row(f"mean, {_KIND[kind]} (n = {len(group.accounts)})", "", means))
    return f"{aligned(rows)}\n{_LEGEND}\n{advice(report)}\n"


def _numbers(case: StageAccount) -> list[float | None]:
    return [getattr(case, field) for field in ACCOUNT_FIELDS]


def _row(name: str, held_out: str, values: list[float | None]) -> tuple[str, ...]:
    cells = [number(v, signed=field.endswith("_gain")) for field, v in zip(ACCOUNT_FIELDS, values, strict=True)]
    return name, held_out, *cells


def losses(report: StageReport) -> dict[str, float]:
    """What each stage loses in the mean over all cases of `report`, in Dice or share of voxels: 0 is nothing lost.

    The keys are clauses for a sentence; a loss that no case could show is left out.
    """
    mean = report.mean
    candidates = {
        "stage 1: its liver lacks {} of Dice": _lacking(mean("stage1_liver_dice")),
        "the ROI: it leaves out {} of the true liver": _lacking(mean("roi_liver_share")),
        "the ROI: it leaves out {} of the true tumour": _lacking(mean("roi_tumor_share")),
        "stage 2: in the ROI of the true liver its tumours lack {} of Dice": _lacking(
            mean("stage2_tumor_dice_true_roi")
        ),
        "the ROI: the cascade's own costs {} of tumour Dice against that of the true liver": mean("roi_tumor_cost"),
        "clean-up: it costs {} of liver Dice": _negative(mean("cleanup_liver_gain")),
        "clean-up: it costs {} of tumour Dice": _negative(mean("cleanup_tumor_gain")),
    }
    return {clause: loss for clause, loss in candidates.items() if loss is not None}


def advice(report: StageReport) -> str:
    """One sentence: the stage that loses most in the mean over the held-out cases, or the best kind there is."""
    kind, group = next(iter(report.by_kind().items()))
    clause, loss = max(losses(group).items(), key=lambda item: item[1])
    cases = f"{'1 case' if len(group.accounts) == 1 else f'{len(group.accounts)} cases'} ({_KIND[kind]})"
    doubt = "" if kind == "held_out" else " No case is known to be held out: these numbers may flatter."
    if round(loss, 3) <= 0:
        return f"No stage loses anything over {cases}.{doubt}"
    return f"Work on {clause.format(number(loss))}, the largest loss over {cases}.{doubt}"


def _lacking(value: float | None) -> float | None:
    return None if value is None else 1 - value


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
