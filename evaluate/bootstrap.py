"""How far a figure of a cohort can be trusted: 95 % intervals from resampling its patients.

The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13), with the patient
as the unit: two scans of one person are not two independent observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.cases import natural_key

#: Resamplings of the patients, and the seed that makes them the same every time.
RESAMPLES, SEED = 2000, 20230101

#: The ends of the interval in percent.
_ENDS = (2.5, 97.5)

Numbers = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of a figure over resampled cohorts."""

    low: float
    high: float


class Bootstrap:
    """Resampled cohorts: how often each case counts in each of them.

    The draw depends on the names of the patients and the seed alone, so two sets of scores of the same patients are
    resampled alike, whatever the order of the cases. Raises ValueError for no patient.
    """

    def __init__(self, patients: Sequence[str], *, resamples: int = RESAMPLES, seed: int = SEED) -> None:
        if not patients:
            raise ValueError("a bootstrap needs at least one patient")
        names = sorted(set(patients), key=natural_key)
        draws = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=resamples)
        self._patients = np.array([names.index(patient) for patient in patients])
        self._weights = draws[:, self._patients].astype(float)

    def ratio(self, numerators: Numbers, denominators: Numbers) -> Interval | None:
        """Interval of sum(numerators) / sum(denominators), both one number a case.

        A mean is the ratio of the values to ones; a case without a value has 0 in both. None when fewer than two
        patients have a denominator: one patient says nothing of others.
        """
        return self._interval(self._ratios(numerators, denominators), np.asarray(denominators) != 0)

    def ratio_difference(self, first: tuple[Numbers, Numbers], second: tuple[Numbers, Numbers]) -> Interval | None:
        """Interval of one `ratio` less another, both of the same resampled patients."""
        counts = (np.asarray(first[1]) != 0) & (np.asarray(second[1]) != 0)
        return self._interval(self._ratios(*first) - self._ratios(*second), counts)

    def harmonic_mean(self, first: tuple[Numbers, Numbers], second: tuple[Numbers, Numbers]) -> Interval | None:
        """Interval of the harmonic mean of two `ratio`s, as F1 is of precision and recall.

        A cohort where one of them is 0 or has no value counts as 0; one where neither has a value does not count.
        """
        ratios = np.stack([self._ratios(*first), self._ratios(*second)])
        one, other = np.nan_to_num(ratios)
        total = one + other
        samples = np.divide(2 * one * other, total, out=np.zeros_like(total), where=total != 0)
        samples[np.isnan(ratios).all(axis=0)] = np.nan
        return self._interval(samples, (np.asarray(first[1]) != 0) | (np.asarray(second[1]) != 0))

    def _ratios(self, numerators: Numbers, denominators: Numbers) -> NDArray[np.float64]:
        above, below = (self._weights @ np.asarray(numbers, float) for numbers in (numerators, denominators))
        # A resampled cohort can lack every case that counts; it then says nothing.
        return np.asarray(np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0))

    def _interval(self, samples: NDArray[np.float64], counts: NDArray[np.bool_]) -> Interval | None:
        if len(set(self._patients[counts].tolist())) < 2:
            return None
        low, high = np.nanpercentile(samples, _ENDS)
        return Interval(float(low), float(high))
