"""Scores of a case, in space and of plain arrays."""

import dataclasses

import numpy as np
import pytest

import evaluate
from evaluate.scores import score, score_labels
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
    result = score_labels(labels(PREDICTION), labels(TRUTH), case="volume-3")
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
    assert score_labels(prediction, truth) == score_labels(labels(PREDICTION), labels(TRUTH))


def test_empty_masks_score_1_and_one_empty_mask_0(labels):
    assert score_labels(labels({}), labels({})).liver_dice == 1.0
    assert score_labels(labels({}), labels({})).tumor_dice == 1.0
    assert score_labels(labels({}), labels(TRUTH)).liver_dice == 0.0
    assert score_labels(labels({(0, 0, 0): 2}), labels({(0, 0, 0): 1})).tumor_dice == 0.0


def test_tumours_that_are_not_scored_have_no_dice_and_no_true_volume(labels):
    result = score_labels(labels(PREDICTION), labels(TRUTH), scores_tumor=False)
    assert (result.tumor_dice, result.tumor_ml_truth) == (None, None)
    assert result.tumor_ml == pytest.approx(0.010)
    assert result.liver_dice == 2 * 3 / (4 + 5)


def test_another_shape_is_refused_with_both_shapes(labels):
    truth = labels({})
    longer = Grid((2, 3, 5), truth.grid.spacing_mm, truth.grid.origin_mm)
    with pytest.raises(InputError, match=r"case a: .* 2 x 3 x 5 and 2 x 3 x 4 voxels \(z, y, x\)"):
        score_labels(labels({}, longer), truth, case="a")


def test_another_place_is_refused_with_the_distance(labels):
    truth = labels({})
    for shift, refused in ((0.09, False), (0.12, True)):
        moved = labels({}, dataclasses.replace(truth.grid, origin_mm=(10.0, -20.0 + shift, 30.0)))
        if refused:
            with pytest.raises(InputError, match=r"case a: .* 0\.12 mm apart .*limit 0\.1 mm"):
                score_labels(moved, truth, case="a")
        else:
            assert score_labels(moved, truth).liver_dice == 1.0


def test_another_spacing_is_refused_although_the_first_voxel_agrees(labels):
    truth = labels({})
    with pytest.raises(InputError, match=r"1\.00 mm apart"):
        score_labels(labels({}, dataclasses.replace(truth.grid, spacing_mm=(6.0, 2.0, 0.5))), truth)


def test_metrics_of_the_whole_classes_and_of_each_lesion(labels):
    result = score_labels(labels(PREDICTION), labels(TRUTH), case="volume-3")
    assert (result.patient, result.convention, result.voxel_ml) == ("volume-3", "lits", pytest.approx(0.005))
    assert result.liver.voe == pytest.approx(1 - 3 / 6)
    assert result.liver.rvd == pytest.approx(-1 / 5)
    # Tumours: predicted at x = 0 and 1 of the first row; true at x = 0 there, at (0, 1, 2) and at (1, 0, 1).
    ways = [0.0, 0.5, 0.0, (2.0**2 + 0.5**2) ** 0.5, 5.0]
    assert result.tumor.assd == pytest.approx(sum(ways) / 5)
    assert result.tumor.msd == pytest.approx(5.0)
    assert [len(result.lesions.prediction), len(result.lesions.truth), len(result.lesions.pairs)] == [1, 3, 1]


def test_tumour_burden_is_the_share_of_the_liver(labels):
    result = score_labels(labels(PREDICTION), labels(TRUTH))
    assert (result.tumor_burden, result.tumor_burden_truth) == (2 / 4, 3 / 5)
    nothing = score_labels(labels({}), labels({}))
    assert (nothing.tumor_burden, nothing.tumor_burden_truth) == (0.0, 0.0)


def test_nnunet_leaves_a_case_without_anything_out(labels):
    result = score_labels(labels({}), labels({}), convention="nnunet")
    assert (result.liver_dice, result.tumor_dice, result.liver.assd) == (None, None, None)
    assert score_labels(labels({}), labels(TRUTH), convention="nnunet").tumor_dice == 0.0


def test_lesions_are_placed_in_space_whatever_the_orientation(labels):
    turned = score_labels(stored_otherwise(labels(PREDICTION)), stored_otherwise(labels(TRUTH)))
    assert [lesion.centroid_mm for lesion in turned.lesions.prediction] == [pytest.approx((10.25, -20.0, 30.0))]


def test_plain_arrays_score_as_files_do(labels):
    prediction, truth = labels(PREDICTION), labels(TRUTH)
    spacing = prediction.grid.spacing_mm
    result = evaluate.score(prediction.array, truth.array, spacing, case="a")
    expected = score_labels(prediction, truth, case="a")
    assert (result.liver, result.tumor) == (expected.liver, expected.tumor)
    others = prediction.array.astype(float), truth.array.astype(np.int64)
    assert evaluate.score(*others, list(spacing), case="a") == result


def test_a_score_is_frozen():
    result = score(np.ones((1, 2, 3)), np.ones((1, 2, 3)), (1, 1, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.liver.dice = 1.0


@pytest.mark.parametrize("wrong", [3, -1, 0.5, 258, np.nan])
def test_arrays_of_other_classes_are_refused(wrong):
    array = np.zeros((1, 2, 3))
    array[0, 1, 2] = wrong
    with pytest.raises(ValueError, match="labels must be 0, 1 or 2"):
        score(np.zeros((1, 2, 3)), array, (1, 1, 1))


def test_arrays_that_are_not_3d_and_spacings_that_are_not_three_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\) are not 3D"):
        score(np.zeros((2, 3)), np.zeros((2, 3)), (1, 1, 1))
    with pytest.raises(ValueError, match="is not three numbers"):
        score(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), (1, 1))


def test_a_truth_on_another_grid_is_brought_onto_the_predictions(labels):
    prediction = labels({(0, 1, 2): 2, (0, 1, 3): 2, (1, 2, 3): 1})
    grid = dataclasses.replace(prediction.grid, shape=(2, 3, 2), origin_mm=(11.0, -20.0, 30.0))
    truth = LabelMap(np.ascontiguousarray(prediction.array[:, :, 2:]), grid)
    with pytest.raises(InputError, match="--resample-truth"):
        score_labels(prediction, truth)
    result = score_labels(prediction, truth, resample_truth=True)
    assert (result.liver_dice, result.tumor_dice, result.liver.msd) == (1.0, 1.0, 0.0)
