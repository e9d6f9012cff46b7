"""Intervals from resampled patients."""

import numpy as np
import pytest

from evaluate.bootstrap import Bootstrap, Interval


def test_two_patients_by_hand():
    # Half of the resampled cohorts hold both, a quarter the first twice, a quarter the second twice.
    bootstrap = Bootstrap(["a", "b"])
    assert bootstrap.ratio([0.2, 0.8], [1, 1]) == Interval(pytest.approx(0.2), pytest.approx(0.8))


def test_the_interval_of_a_mean_narrows_as_theory_says():
    values = np.random.default_rng(1).normal(0.7, 0.1, 400)
    interval = Bootstrap([f"p{i}" for i in range(400)]).ratio(values, np.ones(400))
    half = 1.96 * values.std() / 20
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.0012)


def test_the_same_names_give_the_same_interval_in_any_order():
    values = {"p1": 0.1, "p2": 0.5, "p10": 0.7, "p3": 0.9}
    intervals = [
        Bootstrap(list(names)).ratio([values[name] for name in names], [1] * 4)
        for names in (sorted(values), sorted(values, reverse=True))
    ]
    assert intervals[0].low == pytest.approx(intervals[1].low)
    assert intervals[0].high == pytest.approx(intervals[1].high)


def test_scans_of_one_patient_are_drawn_together():
    # Ten equal scans of each of two patients say no more than one of each.
    twenty = Bootstrap(["a"] * 10 + ["b"] * 10).ratio([0.2] * 10 + [0.8] * 10, [1] * 20)
    assert twenty == Interval(pytest.approx(0.2), pytest.approx(0.8))
    assert Bootstrap([f"p{i}" for i in range(20)]).ratio([0.2] * 10 + [0.8] * 10, [1] * 20).low > 0.3


def test_one_patient_has_no_interval():
    assert Bootstrap(["a", "a"]).ratio([0.1, 0.9], [1, 1]) is None
    assert Bootstrap(["a", "b"]).ratio([0.1, 0.0], [1, 0]) is None


def test_a_case_without_a_value_does_not_count():
    interval = Bootstrap(["a", "b", "c"]).ratio([0.4, 0.4, 0.0], [1, 1, 0])
    assert interval == Interval(pytest.approx(0.4), pytest.approx(0.4))


def test_a_difference_is_paired():
    # One is always 0.1 better, however much the cases differ.
    bootstrap = Bootstrap(["a", "b", "c"])
    interval = bootstrap.ratio_difference(([0.3, 0.6, 1.0], [1, 1, 1]), ([0.2, 0.5, 0.9], [1, 1, 1]))
    assert (interval.low, interval.high) == pytest.approx((0.1, 0.1))


def test_a_harmonic_mean_of_ratios():
    # One patient has a precision of 1/2 and a recall of 1, the other of 1 and 0.
    bootstrap = Bootstrap(["a", "b"])
    interval = bootstrap.harmonic_mean(([1, 2], [2, 2]), ([2, 0], [2, 2]))
    assert interval == Interval(0.0, pytest.approx(2 * 0.5 * 1 / 1.5))
    assert bootstrap.harmonic_mean(([0, 0], [0, 0]), ([0, 0], [0, 0])) is None
    # Nothing predicted, everything missed: 0.
    assert bootstrap.harmonic_mean(([0, 0], [0, 0]), ([0, 0], [1, 1])) == Interval(0.0, 0.0)


def test_no_patient_is_refused():
    with pytest.raises(ValueError, match="at least one patient"):
        Bootstrap([])
