"""What the scores of many cases come to."""

import dataclasses
import math

import pytest

from evaluate.bootstrap import Interval
from evaluate.cohort import BurdenError, CohortScore
from evaluate.detection import Detection
from tests.evaluate.lines import scored

SMALL = scored("small", (4, 6, 7), (0, 1, 2))
LARGE = scored("large", (80, 90, 110), (30, 40, 60))
HEALTHY = scored("healthy", (5, 5, 5))
FALSE = scored("false", (5, 6, 5), (0, 1, 0))
LIVER_ONLY = scored("liver only", (0, 10, 10), (0, 9, 0), scores_tumor=False)


def test_means_medians_and_pooled_dice():
    cohort = CohortScore((SMALL, LARGE))
    assert (cohort.n, cohort.n_patients, cohort.convention) == (2, 2, "lits")
    liver = cohort.summary("liver", "dice")
    assert (liver.n, liver.mean) == (2, liver.median) == (2, pytest.approx((8 / 13 + 0.8) / 2))
    assert liver.interval == Interval(pytest.approx(8 / 13), pytest.approx(0.8))
    assert cohort.summary("tumor", "dice").mean == pytest.approx(0.6 / 2)
    assert cohort.global_dice("liver") == pytest.approx(2 * 84 / (96 + 117))
    assert cohort.global_dice("tumor") == pytest.approx(2 * 30 / (41 + 62))
    assert cohort.global_interval("liver") == Interval(pytest.approx(8 / 13), pytest.approx(0.8))


def test_an_odd_cohort_has_the_middle_value_as_median():
    summary = CohortScore((SMALL, LARGE, HEALTHY)).summary("liver", "dice")
    assert summary.median == pytest.approx(0.8)
    assert summary.mean == pytest.approx((8 / 13 + 0.8 + 1) / 3)


def test_the_empty_rule_moves_the_mean_and_not_the_pooled_dice():
    for convention, mean in (("lits", (0.6 + 1) / 2), ("nnunet", 0.6)):
        cases = (
            scored("large", (80, 90, 110), (30, 40, 60), convention=convention),
            scored("healthy", (5, 5, 5), convention=convention),
        )
        cohort = CohortScore(cases)
        assert cohort.summary("tumor", "dice").mean == pytest.approx(mean)
        assert (cohort.n_tumor_free, cohort.global_dice("tumor")) == (1, 0.6)


def test_the_pooled_dice_of_nothing_follows_the_convention():
    assert CohortScore((HEALTHY,)).global_dice("tumor") == 1.0
    assert CohortScore((scored("healthy", (5, 5, 5), convention="nnunet"),)).global_dice("tumor") is None


def test_a_distance_to_nothing_is_left_out_and_the_rest_counted():
    summary = CohortScore((LARGE, FALSE)).summary("tumor", "assd")
    assert (summary.n, summary.mean) == (1, LARGE.tumor.assd)


def test_a_case_without_usable_tumours_counts_for_the_liver_only():
    cohort = CohortScore((LARGE, LIVER_ONLY))
    assert cohort.summary("liver", "dice").mean == pytest.approx((0.8 + 0) / 2)
    assert cohort.summary("tumor", "dice").mean == cohort.global_dice("tumor") == 0.6
    assert (len(cohort.tumor_cases), cohort.n_tumor_free) == (1, 0)
    assert cohort.detection(0.0).counts.predicted == 1
    assert cohort.burden_error().n == 1


def test_no_usable_tumours_at_all_is_none_not_a_number():
    cohort = CohortScore((LIVER_ONLY,))
    assert cohort.summary("tumor", "dice").mean is None
    assert (cohort.global_dice("tumor"), cohort.global_interval("tumor"), cohort.burden_error()) == (None, None, None)
    assert cohort.false_lesions(cohort.cases) is None


def test_lesions_of_all_cases_are_pooled():
    cohort = CohortScore((SMALL, LARGE, HEALTHY, FALSE))
    found = cohort.detection(0.0)
    assert found.counts == Detection(truth=2, detected=1, predicted=3, correct=1)
    assert found.recall == Interval(0.0, 1.0)
    # 20 mm x 10 mm x 5 mm of 2 voxels is 1 mL, a sphere of 12.4 mm; 1 voxel 9.8 mm.
    assert cohort.detection(0.0, "10-20").counts == Detection(truth=1, detected=0, predicted=0, correct=0)
    assert cohort.detection(0.0, "<10").counts == Detection(truth=0, detected=0, predicted=2, correct=0)


def test_false_lesions_a_case_and_on_livers_without_tumour():
    cohort = CohortScore((SMALL, LARGE, HEALTHY, FALSE, LIVER_ONLY))
    assert cohort.false_lesions(cohort.cases) == 2 / 4
    assert cohort.false_lesions(cohort.tumor_free_cases) == 1 / 2
    assert cohort.false_lesions(()) is None


def test_metrics_of_detected_pairs_are_averaged_over_pairs():
    cohort = CohortScore((SMALL, LARGE))
    assert cohort.pair_summaries(0.0)["dice"].mean == pytest.approx(0.6)
    assert cohort.pair_summaries(0.0)["dice"].n == 1
    assert cohort.pair_summaries(0.5)["dice"].n == 0  # the IoU is 3 / 7
    assert cohort.pair_kinds() == {"single": 1, "split": 0, "merge": 0, "tangle": 0}


def test_the_largest_burden_error_is_absolute():
    # The scorer takes the maximum of signed differences: -0.25 and 0.1 give 0.1 there.
    under, over = scored("under", (9, 9, 12), (0, 0, 3)), scored("over", (9, 10, 9), (0, 1, 0))
    error = CohortScore((under, over)).burden_error()
    expected = BurdenError(2, math.sqrt((0.25**2 + 0.1**2) / 2), 0.25, -0.075)
    assert dataclasses.astuple(error) == pytest.approx(dataclasses.astuple(expected))


def test_worst_cases_come_first_and_those_without_a_value_last():
    cohort = CohortScore((HEALTHY, LARGE, LIVER_ONLY, SMALL))
    assert [case.case for case in cohort.worst_first("tumor")] == ["small", "large", "healthy", "liver only"]
    assert [case.case for case in cohort.worst_first("liver")] == ["liver only", "small", "large", "healthy"]


def test_two_scans_of_a_patient_are_one_patient():
    cohort = CohortScore((dataclasses.replace(SMALL, patient="p"), dataclasses.replace(LARGE, patient="p")))
    assert cohort.n_patients == 1
    assert cohort.summary("liver", "dice").interval is None


def test_an_empty_cohort_and_two_conventions_are_refused():
    with pytest.raises(ValueError, match="at least one case"):
        CohortScore(())
    with pytest.raises(ValueError, match="two conventions"):
        CohortScore((SMALL, scored("a", (1, 1, 1), convention="nnunet")))
