"""Scores as rows of named values, for a data frame, a CSV file and `summary.json`. Described in docs/evaluate.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from evaluate.cohort import REGIONS
from evaluate.comparison import Comparison
from evaluate.detection import IOU_ABOVE, detection, size_class
from evaluate.lesions import Lesion, LesionMatch
from evaluate.metrics import METRICS
from evaluate.scores import CaseScore

Row = dict[str, str | float | None]

#: The Dice and volume columns of `cases.csv`, which are attributes of a `CaseScore`; first, as most readers want these.
_FIRST = ("liver_dice", "tumor_dice", "liver_ml", "liver_ml_truth", "tumor_ml", "tumor_ml_truth")

#: The columns of `cases.csv` that count lesions.
LESION_COUNTS = (
    *("lesions_truth", "lesions_predicted"),
    *(f"lesions_{what}_{name}" for name in IOU_ABOVE for what in ("detected", "false")),
    *("lesions_splits", "lesions_merges"),
)


def case_rows(cases: Iterable[CaseScore]) -> list[Row]:
    """One row a case: names, volumes in mL, the metrics of liver and tumour, tumour burden, counts of lesions."""
    return [_case_row(case) for case in cases]


def _case_row(case: CaseScore) -> Row:
    row: Row = {"case": case.case, **{name: getattr(case, name) for name in _FIRST}}
    row |= {"patient": case.patient, "convention": case.convention}
    for region, score in (("liver", case.liver), ("tumor", case.tumor)):
        metrics = score.values() if score else dict.fromkeys(METRICS)
        row |= {f"{region}_{metric}": value for metric, value in metrics.items() if metric != "dice"}
    row |= {"tumor_burden": case.tumor_burden, "tumor_burden_truth": case.tumor_burden_truth}
    return row | _lesion_counts(case.lesions)


def _lesion_counts(match: LesionMatch | None) -> Row:
    if match is None:
        return dict.fromkeys(LESION_COUNTS)
    counts = [detection(match, above) for above in IOU_ABOVE.values()]
    found = [number for at_iou in counts for number in (at_iou.detected, at_iou.false)]
    splits, merges = (
        sum(len(lesions) > 1 for lesions in side)
        for side in ([pair.prediction for pair in match.pairs], [pair.truth for pair in match.pairs])
    )
    numbers = (len(match.truth), len(match.prediction), *found, splits, merges)
    return dict(zip(LESION_COUNTS, numbers, strict=True))


def lesion_rows(cases: Iterable[CaseScore]) -> list[Row]:
    """One row a lesion, true ones and then predicted ones of each case whose tumours are scored, the largest first.

    The metrics of a pair stand in the row of its largest true lesion only, so that a column's mean counts a pair once.
    """
    return [row for case in cases if case.lesions for row in _lesion_rows(case, case.lesions)]


def _lesion_rows(case: CaseScore, match: LesionMatch) -> Iterator[Row]:
    for side, lesions in (("truth", match.truth), ("prediction", match.prediction)):
        for lesion in lesions:
            names: Row = {"case": case.case, "patient": case.patient, "convention": case.convention}
            yield {**names, "side": side, **_lesion_row(lesion, match, side)}


def _lesion_row(lesion: Lesion, match: LesionMatch, side: str) -> Row:
    pair = match.pairs[lesion.pair - 1] if lesion.pair else None
    leads = pair is not None and side == "truth" and lesion.number == pair.truth[0]
    x_mm, y_mm, z_mm = lesion.centroid_mm
    return {
        "lesion": lesion.number,
        "volume_ml": lesion.volume_ml,
        "diameter_mm": lesion.diameter_mm,
        "size": size_class(lesion.diameter_mm),
        "x_mm": x_mm,
        "y_mm": y_mm,
        "z_mm": z_mm,
        "pair": lesion.pair,
        "pair_kind": pair.kind if pair else None,
        "iou": pair.iou if pair else 0.0,
        "covered": lesion.covered,
        **{f"detected_{name}": "yes" if match.detected(lesion, above) else "no" for name, above in IOU_ABOVE.items()},
        **{metric: getattr(pair.score, metric) if pair and leads else None for metric in METRICS},
    }


def difference_rows(comparison: Comparison) -> list[Row]:
    """One row a case: every metric of liver and tumour, first prediction less second."""
    rows: list[Row] = [
        {"case": case.case, "patient": case.patient, "convention": case.convention} for case in comparison.first.cases
    ]
    for region in REGIONS:
        for metric in METRICS:
            for row, value in zip(rows, comparison.differences(region, metric), strict=True):
                row[f"{region}_{metric}_difference"] = value
    return rows


#: The columns of `lesions.csv`, for a cohort without a lesion.
LESION_FIELDS = (
    *("case", "patient", "convention", "side", "lesion", "volume_ml", "diameter_mm", "size", "x_mm", "y_mm", "z_mm"),
    *("pair", "pair_kind", "iou", "covered", *(f"detected_{name}" for name in IOU_ABOVE), *METRICS),
)
