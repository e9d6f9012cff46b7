"""What goes into `tables.md` and `tables.tex`: the figures of a cohort, its lesions, its cases, and a comparison."""

from __future__ import annotations

from evaluate.bootstrap import Interval
from evaluate.cohort import REGIONS, CohortScore
from evaluate.comparison import Comparison
from evaluate.conventions import CONVENTIONS
from evaluate.detection import IOU_ABOVE, SIZES
from evaluate.metrics import METRICS
from evaluate.text import number
from evaluate.typeset import Table

#: How the metrics are called in a table, with their unit.
LABELS = {
    "dice": "Dice",
    "voe": "VOE",
    "rvd": "RVD",
    "assd": "ASSD [mm]",
    "rmsd": "RMSD [mm]",
    "msd": "MSD [mm]",
    "nsd1": "NSD 1 mm",
    "nsd2": "NSD 2 mm",
    "nsd3": "NSD 3 mm",
}

_CLASSES = {"liver": "Liver", "tumor": "Tumour"}


def paper_tables(cohort: CohortScore, comparison: Comparison | None = None) -> list[Table]:
    """The tables of a report, each naming its convention in the caption."""
    tables = [_metrics(cohort), _lesions(cohort), _pairs(cohort), _counts(cohort), _cases(cohort)]
    return [*tables, _differences(comparison)] if comparison else tables


def _metrics(cohort: CohortScore) -> Table:
    rows = []
    for region in REGIONS:
        for metric in METRICS:
            summary = cohort.summary(region, metric)
            value = with_interval(summary.mean, summary.interval)
            rows.append([f"{_CLASSES[region]} {LABELS[metric]}", value, number(summary.median), str(summary.n)])
        value = with_interval(cohort.global_dice(region), cohort.global_interval(region))
        n = cohort.n if region == "liver" else len(cohort.tumor_cases)
        rows.append([f"{_CLASSES[region]} Dice global", value, "-", str(n)])
    caption = (
        f"Scores of {_count(cohort.n, 'case')} of {_count(cohort.n_patients, 'patient')}: mean over cases with its "
        f"95 % interval (bootstrap by patient), median, and number of cases with a value. {_rule(cohort)}"
    )
    return Table(caption, ("", "mean", "median", "n"), rows)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _lesions(cohort: CohortScore) -> Table:
    rows = []
    for above in IOU_ABOVE.values():
        for size in (None, *SIZES):
            found = cohort.detection(above, size)
            counts = found.counts
            rows.append(
                [
                    f"IoU > {above:g}, {f'{size} mm' if size else 'all'}",
                    str(counts.truth),
                    str(counts.missed),
                    str(counts.false),
                    with_interval(counts.precision, found.precision),
                    with_interval(counts.recall, found.recall),
                    with_interval(counts.f1, found.f1),
                ]
            )
    caption = (
        f"Detection of lesions in {len(cohort.tumor_cases)} cases, of which {cohort.n_tumor_free} have no tumour; "
        f"size is the diameter of the sphere of the same volume. {_rule(cohort)}"
    )
    return Table(caption, ("", "lesions", "missed", "false", "precision", "recall", "F1"), rows)


def _pairs(cohort: CohortScore) -> Table:
    columns = [cohort.pair_summaries(above) for above in IOU_ABOVE.values()]
    rows = [[LABELS[metric], *(number(column[metric].mean) for column in columns)] for metric in METRICS]
    rows.append(["pairs", *(str(column["dice"].n) for column in columns)])
    header = ("", *(f"IoU > {above:g}" for above in IOU_ABOVE.values()))
    return Table(f"Detected lesions alone: mean over pairs of prediction and truth. {_rule(cohort)}", header, rows)


def _counts(cohort: CohortScore) -> Table:
    kinds, burden = cohort.pair_kinds(), cohort.burden_error()
    rows = [
        ["false lesions per case", number(cohort.false_lesions(cohort.cases))],
        ["false lesions per case without tumour", number(cohort.false_lesions(cohort.tumor_free_cases))],
        ["true lesions predicted in parts", str(kinds["split"])],
        ["predictions over several true lesions", str(kinds["merge"])],
        ["several predictions over several true lesions", str(kinds["tangle"])],
        ["tumour burden, RMSE", number(burden.rmse if burden else None)],
        ["tumour burden, largest absolute error", number(burden.largest if burden else None)],
    ]
    caption = f"False, split and merged lesions (a false one touches no true one), and tumour burden. {_rule(cohort)}"
    return Table(caption, ("", "value"), rows)


def _cases(cohort: CohortScore) -> Table:
    columns = [(region, metric) for region in REGIONS for metric in ("dice", "assd", "nsd2")]
    rows = []
    for case in cohort.worst_first("tumor"):
        scores = {"liver": case.liver, "tumor": case.tumor}
        cells = [number(getattr(scores[region], metric)) if scores[region] else "-" for region, metric in columns]
        rows.append([case.case, *cells])
    header = ["case", *(f"{_CLASSES[region]} {LABELS[metric]}" for region, metric in columns)]
    return Table(f"All cases, worst tumour Dice first. {_rule(cohort)}", header, rows)


def _differences(comparison: Comparison) -> Table:
    rows = []
    for region in REGIONS:
        for metric in METRICS:
            change = comparison.summary(region, metric)
            pair = [number(mean) for mean in comparison.means(region, metric)]
            difference = with_interval(change.mean, change.interval, signed=True)
            rows.append([f"{_CLASSES[region]} {LABELS[metric]}", *pair, difference, str(change.n)])
        pooled = [number(cohort.global_dice(region)) for cohort in (comparison.first, comparison.second)]
        value, interval = comparison.global_difference(region)
        rows.append([f"{_CLASSES[region]} Dice global", *pooled, with_interval(value, interval, signed=True), "-"])
    caption = (
        "Two predictions of the same cases: means, and the mean of the paired differences (first less second) with its "
        f"95 % interval (bootstrap by patient) over the n cases where both have a value. {_rule(comparison.first)}"
    )
    return Table(caption, ("", "first", "second", "difference", "n"), rows)


def with_interval(value: float | None, interval: Interval | None, *, signed: bool = False) -> str:
    """A figure and its 95 % interval as `0.640 [0.598, 0.681]`."""
    text = number(value, signed=signed)
    if interval is None:
        return text
    return f"{text} [{number(interval.low, signed=signed)}, {number(interval.high, signed=signed)}]"


def _rule(cohort: CohortScore) -> str:
    return f"Convention {cohort.convention}: {CONVENTIONS[cohort.convention]}."
