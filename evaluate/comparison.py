"""Two predictions of the same cases: paired differences, so that easy and hard cases cancel out."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from evaluate.bootstrap import Interval
from evaluate.cohort import CohortScore, Summary, dice_terms, summarize
from preprocess.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """The scores of one prediction (`first`) and of another (`second`); a difference is first less second.

    Raises InputError when they are not of the same cases and patients in the same order, ValueError for two
    conventions.
    """

    first: CohortScore
    second: CohortScore

    def __post_init__(self) -> None:
        one, other = ([(case.case, case.patient) for case in cohort.cases] for cohort in (self.first, self.second))
        if one != other:
            odd = sorted({name for name, _ in set(one) ^ set(other)}) or ["the order"]
            raise InputError(f"the two predictions are not of the same cases ({', '.join(odd[:5])}); predict the same")
        if self.first.convention != self.second.convention:
            raise ValueError("the two predictions are scored by two conventions; score them by one")

    def differences(self, region: str, metric: str) -> list[float | None]:
        """First less second, one a case, of a metric of `liver` or `tumor`; None where either has no value."""
        pairs = zip(self.first.values(region, metric), self.second.values(region, metric), strict=True)
        return [None if a is None or b is None else a - b for a, b in pairs]

    def means(self, region: str, metric: str) -> tuple[float | None, float | None]:
        """Mean of either over the cases where both have a value: the two that differ by the mean difference."""
        pairs = zip(self.first.values(region, metric), self.second.values(region, metric), strict=True)
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        return (fmean(a for a, _ in both), fmean(b for _, b in both)) if both else (None, None)

    def summary(self, region: str, metric: str) -> Summary:
        """Mean difference with its interval, and median, over the cases where both have a value."""
        return summarize(self.differences(region, metric), self.first.bootstrap)

    def global_difference(self, region: str) -> tuple[float | None, Interval | None]:
        """Difference of the pooled Dice and its interval; both None when there is nothing to score."""
        one, other = self.first.global_dice(region), self.second.global_dice(region)
        if one is None or other is None:
            return None, None
        terms = [dice_terms(cohort.pooled(region)) for cohort in (self.first, self.second)]
        return one - other, self.first.bootstrap.ratio_difference(terms[0], terms[1])
