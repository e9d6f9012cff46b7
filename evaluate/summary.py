"""The figures of a cohort as one nested table for programs: `summary.json`. Described in docs/evaluate.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evaluate.bootstrap import Interval
from evaluate.cohort import REGIONS, CohortScore, DetectionSummary, Summary
from evaluate.columns import case_rows
from evaluate.comparison import Comparison
from evaluate.conventions import CONVENTIONS
from evaluate.detection import IOU_ABOVE, SIZES
from evaluate.metrics import METRICS

#: Counts up when a key changes its meaning or goes away; new keys may come without.
SCHEMA = 1


def summary_of(cohort: CohortScore, comparison: Comparison | None = None) -> dict[str, Any]:
    """Everything `summary.json` holds, with None where a figure has no value."""
    burden = cohort.burden_error()
    summaries = {f"{region}_{metric}": cohort.summary(region, metric) for region in REGIONS for metric in METRICS}
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "convention": cohort.convention,
        "empty_rule": CONVENTIONS[cohort.convention],
        "n": cohort.n,
        "n_patients": cohort.n_patients,
        "n_tumor_scored": len(cohort.tumor_cases),
        "n_tumor_free": cohort.n_tumor_free,
        "mean": {name: each.mean for name, each in summaries.items()},
        "global": {f"{region}_dice": cohort.global_dice(region) for region in REGIONS},
        "global_interval": {f"{region}_dice": _interval(cohort.global_interval(region)) for region in REGIONS},
        "metrics": {name: _summary(each) for name, each in summaries.items()},
        "detection": {name: _detections(cohort, above) for name, above in IOU_ABOVE.items()},
        "detected_lesions": {
            name: {metric: _summary(each) for metric, each in cohort.pair_summaries(above).items()}
            for name, above in IOU_ABOVE.items()
        },
        "lesion_pairs": cohort.pair_kinds(),
        "false_lesions": {
            "per_case": cohort.false_lesions(cohort.cases),
            "per_tumor_free_case": cohort.false_lesions(cohort.tumor_free_cases),
        },
        "tumor_burden": asdict(burden) if burden else None,
        "worst_first": {f"{region}_dice": [case.case for case in cohort.worst_first(region)] for region in REGIONS},
        "cases": case_rows(cohort.cases),
    }
    return summary | ({"versus": _versus(comparison)} if comparison else {})


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return asdict(interval) if interval else None


def _summary(summary: Summary) -> dict[str, Any]:
    return asdict(summary)


def _detections(cohort: CohortScore, above: float) -> dict[str, Any]:
    return {"all": _detection(cohort.detection(above))} | {
        size: _detection(cohort.detection(above, size)) for size in SIZES
    }


def _detection(summary: DetectionSummary) -> dict[str, Any]:
    counts = summary.counts
    return {
        **asdict(counts),
        "missed": counts.missed,
        "false": counts.false,
        "recall": counts.recall,
        "recall_interval": _interval(summary.recall),
        "precision": counts.precision,
        "precision_interval": _interval(summary.precision),
        "f1": counts.f1,
        "f1_interval": _interval(summary.f1),
    }


def _versus(comparison: Comparison) -> dict[str, Any]:
    """The other prediction's means, and the differences, first less second, with their intervals."""
    pooled = {region: comparison.global_difference(region) for region in REGIONS}
    return {
        "mean": {f"{r}_{m}": comparison.second.summary(r, m).mean for r in REGIONS for m in METRICS},
        "global": {f"{region}_dice": comparison.second.global_dice(region) for region in REGIONS},
        "difference": {f"{r}_{m}": _difference(comparison, r, m) for r in REGIONS for m in METRICS},
        "global_difference": {
            f"{region}_dice": {"value": value, "interval": _interval(interval)}
            for region, (value, interval) in pooled.items()
        },
    }


def _difference(comparison: Comparison, region: str, metric: str) -> dict[str, Any]:
    first, second = comparison.means(region, metric)
    return {**_summary(comparison.summary(region, metric)), "first": first, "second": second}
