"""Two predictions of the same cases."""

import pytest

from evaluate.bootstrap import Interval
from evaluate.cohort import CohortScore
from evaluate.comparison import Comparison
from preprocess.errors import InputError
from tests.evaluate.lines import scored


def cohort(*livers, convention="lits"):
    return CohortScore(
        tuple(scored(f"volume-{i}", liver, convention=convention) for i, liver in enumerate(livers)),
    )


BETTER, WORSE = cohort((10, 10, 10), (3, 5, 5)), cohort((9, 10, 10), (2, 5, 5))


def test_differences_are_first_less_second():
    comparison = Comparison(BETTER, WORSE)
    assert comparison.differences("liver", "dice") == pytest.approx([0.1, 0.2])
    summary = comparison.summary("liver", "dice")
    assert (summary.n, summary.mean, summary.median) == (2, pytest.approx(0.15), pytest.approx(0.15))
    assert summary.interval == Interval(pytest.approx(0.1), pytest.approx(0.2))


def test_the_pooled_dice_differs_by_its_own_interval():
    value, interval = Comparison(BETTER, WORSE).global_difference("liver")
    assert value == pytest.approx(26 / 30 - 22 / 30)
    assert interval == Interval(pytest.approx(0.1), pytest.approx(0.2))


def test_a_case_without_a_value_on_one_side_has_no_difference():
    other = cohort((9, 10, 10), (0, 0, 5))
    assert Comparison(BETTER, other).differences("liver", "assd")[1] is None
    assert Comparison(BETTER, other).summary("liver", "assd").n == 1


def test_means_are_over_the_cases_where_both_have_a_value():
    other = cohort((9, 10, 10), (0, 0, 5))
    first, second = Comparison(BETTER, other).means("liver", "assd")
    assert (first, second) == (BETTER.values("liver", "assd")[0], other.values("liver", "assd")[0])
    assert Comparison(BETTER, WORSE).means("liver", "dice") == (pytest.approx(0.8), pytest.approx(0.65))
    assert Comparison(other, cohort((0, 0, 10), (2, 5, 5))).means("liver", "assd") == (None, None)


def test_nothing_to_pool_is_no_difference():
    one = CohortScore((scored("a", (1, 1, 1), scores_tumor=False),))
    assert Comparison(one, one).global_difference("tumor") == (None, None)


def test_other_cases_and_other_conventions_are_refused():
    with pytest.raises(InputError, match=r"not of the same cases \(volume-1\)"):
        Comparison(BETTER, cohort((9, 10, 10)))
    with pytest.raises(ValueError, match="two conventions"):
        Comparison(BETTER, cohort((9, 10, 10), (2, 5, 5), convention="nnunet"))
