"""Scores of a case in space, and of a cohort by the rules of LiTS."""

import dataclasses

import numpy as np
import pytest

from evaluate.overlap import Overlap
from evaluate.scores import CaseScore, CohortScore, score
from preprocess.errors import InputError
from preprocess.geometry import Grid
from preprocess.volume import LabelMap

PREDICTION = {(0, 0, 0): 2, (0, 0, 1): 2, (0, 1, 2): 1, (1, 2, 3): 1}
TRUTH = {(0, 0, 0): 2, (0, 0, 1): 1, (0, 1, 2): 2, (1, 0, 0): 1, (1, 0, 1): 2}


def stored_otherwise(labels: LabelMap) -> LabelMap:
    """The same voxels at the same places, stored as (x from the right, z from the head, y)."""
    grid = labels.grid
    turned = Grid(
        shape=(grid.shape[2], grid.shape[0], grid.shape[1]),
        spacing_mm=(grid.spacing_mm[2], grid.spacing_mm[0], grid.spacing_mm[1]),
        origin_mm=grid.position_mm((grid.shape[0] - 1, 0, grid.shape[2] - 1)),
        axes=((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    )
    return LabelMap(np.ascontiguousarray(labels.array.transpose(2, 0, 1)[::-1, ::-1]), turned)


def test_a_case_by_hand(labels):
    result = score(labels(PREDICTION), labels(TRUTH), case="volume-3")
    assert result.case == "volume-3"
    assert result.liver_dice == 2 * 3 / (4 + 5)
    assert result.tumor_dice == 2 * 1 / (2 + 3)
    volumes = (result.liver_ml, result.liver_ml_truth, result.tumor_ml, result.tumor_ml_truth)
    assert volumes == pytest.approx((0.020, 0.025, 0.010, 0.015))


@pytest.mark.parametrize("turn", ["prediction", "truth", "both"])
def test_two_orientations_are_scored_in_space(labels, turn):
    prediction, truth = labels(PREDICTION), labels(TRUTH)
    if turn in ("prediction", "both"):
        prediction = stored_otherwise(prediction)
    if turn in ("truth", "both"):
        truth = stored_otherwise(truth)
    assert score(prediction, truth) == score(labels(PREDICTION), labels(TRUTH))


def test_empty_masks_score_1_and_one_empty_mask_0(labels):
    assert score(labels({}), labels({})).liver_dice == 1.0
    assert score(labels({}), labels({})).tumor_dice == 1.0
    assert score(labels({}), labels(TRUTH)).liver_dice == 0.0
    assert score(labels({(0, 0, 0): 2}), labels({(0, 0, 0): 1})).tumor_dice == 0.0


def test_tumours_that_are_not_scored_have_no_dice_and_no_true_volume(labels):
    result = score(labels(PREDICTION), labels(TRUTH), scores_tumor=False)
    assert (result.tumor_dice, result.tumor_ml_truth) == (None, None)
    assert result.tumor_ml == pytest.approx(0.010)
    assert result.liver_dice == 2 * 3 / (4 + 5)


def test_another_shape_is_refused_with_both_shapes(labels):
    truth = labels({})
    longer = Grid((2, 3, 5), truth.grid.spacing_mm, truth.grid.origin_mm)
    with pytest.raises(InputError, match=r"case a: .* 2 x 3 x 5 and 2 x 3 x 4 voxels \(z, y, x\)"):
        score(labels({}, longer), truth, case="a")


def test_another_place_is_refused_with_the_distance(labels):
    truth = labels({})
    for shift, refused in ((0.09, False), (0.12, True)):
        moved = labels({}, dataclasses.replace(truth.grid, origin_mm=(10.0, -20.0 + shift, 30.0)))
        if refused:
            with pytest.raises(InputError, match=r"case a: .* 0\.12 mm apart .*limit 0\.1 mm"):
                score(moved, truth, case="a")
        else:
            assert score(moved, truth).liver_dice == 1.0


def test_another_spacing_is_refused_although_the_first_voxel_agrees(labels):
    truth = labels({})
    with pytest.raises(InputError, match=r"1\.00 mm apart"):
        score(labels({}, dataclasses.replace(truth.grid, spacing_mm=(6.0, 2.0, 0.5))), truth)


SMALL = CaseScore("small", Overlap(3, 4, 5), Overlap(0, 1, 1), voxel_ml=0.1)
LARGE = CaseScore("large", Overlap(80, 90, 110), Overlap(30, 40, 60), voxel_ml=0.1)
HEALTHY = CaseScore("healthy", Overlap(5, 5, 5), Overlap(0, 0, 0), voxel_ml=0.1)
LIVER_ONLY = CaseScore("liver only", Overlap(0, 10, 10), Overlap(0, 999, 0), voxel_ml=0.1, scores_tumor=False)


def test_means_and_pooled_dice_of_a_cohort():
    cohort = CohortScore((SMALL, LARGE))
    assert (cohort.n, cohort.convention) == (2, "lits")
    assert cohort.liver_dice_mean == pytest.approx((2 * 3 / 9 + 160 / 200) / 2)
    assert cohort.liver_dice_global == pytest.approx(2 * 83 / (94 + 115))
    assert cohort.tumor_dice_mean == pytest.approx((0 + 60 / 100) / 2)
    assert cohort.tumor_dice_global == pytest.approx(2 * 30 / (41 + 61))


def test_a_healthy_liver_left_alone_counts_as_1():
    cohort = CohortScore((SMALL, HEALTHY))
    assert cohort.tumor_dice_mean == (0 + 1) / 2
    assert cohort.n_tumor_free == 1
    assert CohortScore((HEALTHY,)).tumor_dice_global == 1.0


def test_a_case_without_usable_tumours_counts_for_the_liver_only():
    cohort = CohortScore((LARGE, LIVER_ONLY))
    assert cohort.liver_dice_mean == pytest.approx((0.8 + 0) / 2)
    assert cohort.tumor_dice_mean == cohort.tumor_dice_global == 0.6
    assert (len(cohort.tumor_cases), cohort.n_tumor_free) == (1, 0)


def test_no_usable_tumours_at_all_is_none_not_a_number():
    cohort = CohortScore((LIVER_ONLY,))
    assert (cohort.tumor_dice_mean, cohort.tumor_dice_global) == (None, None)


def test_an_empty_cohort_is_refused():
    with pytest.raises(ValueError, match="at least one case"):
        CohortScore(())
