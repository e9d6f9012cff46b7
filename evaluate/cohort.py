"""The scores of many cases and what they come to: means with intervals, pooled Dice, lesions, tumour burden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

from evaluate.bootstrap import Bootstrap, Interval
from evaluate.conventions import Convention, empty_dice
from evaluate.detection import Detection, detection
from evaluate.metrics import METRICS, MaskScore
from evaluate.overlap import Overlap
from evaluate.scores import CaseScore

#: The two classes that are scored, by the names used in files.
REGIONS = ("liver", "tumor")


@dataclass(frozen=True)
class Summary:
    """A metric over the `n` cases (or lesion pairs) where it has a value; None without any."""

    n: int
    mean: float | None
    median: float | None
    interval: Interval | None = None


@dataclass(frozen=True)
class DetectionSummary:
    """Pooled counts of lesions, and the intervals of what follows from them."""

    counts: Detection
    recall: Interval | None
    precision: Interval | None
    f1: Interval | None


@dataclass(frozen=True)
class BurdenError:
    """Predicted less true tumour burden over `n` cases: root mean square, largest absolute value, and mean (bias)."""

    n: int
    rmse: float
    largest: float
    mean: float


@dataclass(frozen=True)
class CohortScore:
    """The scores of some cases, all by one convention.

    The convention belongs into every report, as it alone can move the mean tumour Dice of LiTS by 0.10.
    Raises ValueError for no case or two conventions.
    """

    cases: tuple[CaseScore, ...]

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError("a cohort needs at least one case")
        if len({case.convention for case in self.cases}) > 1:
            raise ValueError("the cases of a cohort are scored by two conventions; score them by one")

    @property
    def convention(self) -> Convention:
        """The name of the rule for empty masks."""
        return self.cases[0].convention

    @property
    def n(self) -> int:
        """Number of cases."""
        return len(self.cases)

    @property
    def n_patients(self) -> int:
        """Number of patients, the unit of every interval."""
        return len({case.patient for case in self.cases})

    @property
    def tumor_cases(self) -> tuple[CaseScore, ...]:
        """The cases whose tumours are scored."""
        return tuple(case for case in self.cases if case.scores_tumor)

    @property
    def tumor_free_cases(self) -> tuple[CaseScore, ...]:
        """The cases whose tumours are scored and whose truth has none; the rule for empty masks decides these."""
        return tuple(case for case in self.tumor_cases if not case.tumor_overlap.truth)

    @property
    def n_tumor_free(self) -> int:
        """Number of `tumor_free_cases`."""
        return len(self.tumor_free_cases)

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """The resampled patients of this cohort."""
        return Bootstrap([case.patient for case in self.cases])

    def values(self, region: str, metric: str) -> list[float | None]:
        """A metric of `liver` or `tumor`, one a case, None where it has no value."""
        scores: list[MaskScore | None] = [getattr(case, region) for case in self.cases]
        return [getattr(score, metric) if score else None for score in scores]

    def summary(self, region: str, metric: str) -> Summary:
        """Mean with its interval, and median, of a metric over the cases that have it ("per case")."""
        return summarize(self.values(region, metric), self.bootstrap)

    def pooled(self, region: str) -> list[Overlap]:
        """The voxel counts of each case that the global Dice pools; nothing of a case that is not scored."""
        scored = [region == "liver" or case.scores_tumor for case in self.cases]
        overlaps = [getattr(case, f"{region}_overlap") for case in self.cases]
        return [counts if counted else Overlap() for counts, counted in zip(overlaps, scored, strict=True)]

    def global_dice(self, region: str) -> float | None:
        """Dice of the voxels of all scored cases pooled ("Dice global"); None when there is none to score."""
        total = sum(self.pooled(region), Overlap())
        if total.is_empty:
            return empty_dice(self.convention) if region == "liver" or self.tumor_cases else None
        return total.dice()

    def global_interval(self, region: str) -> Interval | None:
        """The interval of `global_dice`."""
        return self.bootstrap.ratio(*dice_terms(self.pooled(region)))

    def detection(self, above: float, size: str | None = None) -> DetectionSummary:
        """Lesions of all cases at an IoU strictly greater than `above`, of one of `evaluate.detection.SIZES` or all."""
        each = [detection(case.lesions, above, size) if case.lesions else Detection() for case in self.cases]

        recall = [c.detected for c in each], [c.truth for c in each]
        precision = [c.correct for c in each], [c.predicted for c in each]
        counts = sum(each, Detection())
        return DetectionSummary(
            counts=counts,
            recall=self.bootstrap.ratio(*recall),
            precision=self.bootstrap.ratio(*precision),
            f1=None if counts.f1 is None else self.bootstrap.harmonic_mean(precision, recall),
        )

    def false_lesions(self, cases: Sequence[CaseScore]) -> float | None:
        """Predicted lesions that touch no true one, a case in the mean over `cases`; None for no case."""
        counts = [detection(case.lesions, 0.0).false for case in cases if case.lesions]
        return fmean(counts) if counts else None

    def pair_summaries(self, above: float) -> dict[str, Summary]:
        """Each metric over the pairs of detected lesions (see `evaluate.lesions`); every pair counts once."""
        pairs = [pair for case in self.tumor_cases if case.lesions for pair in case.lesions.detected_pairs(above)]
        return {metric: summarize([getattr(pair.score, metric) for pair in pairs]) for metric in METRICS}

    def pair_kinds(self) -> dict[str, int]:
        """How many pairs of lesions there are of each `LesionPair.kind`."""
        kinds = [pair.kind for case in self.tumor_cases if case.lesions for pair in case.lesions.pairs]
        return {kind: kinds.count(kind) for kind in ("single", "split", "merge", "tangle")}

    def burden_error(self) -> BurdenError | None:
        """The error of the tumour burden over the cases whose tumours are scored; None when there is none."""
        errors = [
            case.tumor_burden - case.tumor_burden_truth
            for case in self.tumor_cases
            if case.tumor_burden_truth is not None
        ]
        if not errors:
            return None
        rmse = math.sqrt(fmean(error**2 for error in errors))
        return BurdenError(len(errors), rmse, max(map(abs, errors)), fmean(errors))

    def worst_first(self, region: str) -> tuple[CaseScore, ...]:
        """The cases by the Dice of `liver` or `tumor`, worst first; those without a value last."""

        def badness(case: CaseScore) -> tuple[float, float, str]:
            return _last(getattr(case, f"{region}_dice")), _last(case.liver_dice), case.case

        return tuple(sorted(self.cases, key=badness))


def _last(value: float | None) -> float:
    return math.inf if value is None else value


def summarize(values: Sequence[float | None], bootstrap: Bootstrap | None = None) -> Summary:
    """The summary of values, of which None do not count; with `bootstrap`, for one value a case, its interval too."""
    known = [value for value in values if value is not None]
    if not known:
        return Summary(0, None, None)
    ones = [float(value is not None) for value in values]
    interval = bootstrap.ratio([value or 0.0 for value in values], ones) if bootstrap else None
    return Summary(len(known), fmean(known), median(known), interval)


def dice_terms(overlaps: Sequence[Overlap]) -> tuple[list[float], list[float]]:
    """Numerators and denominators, one a case, whose sums' ratio is the pooled Dice."""
    return [2.0 * o.both for o in overlaps], [float(o.prediction + o.truth) for o in overlaps]
