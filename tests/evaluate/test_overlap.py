"""Overlap counts and Dice on masks small enough to count by eye."""

import math

import numpy as np
import pytest

from evaluate.overlap import Overlap, class_overlaps, dice, overlap

PREDICTION = np.array([[[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]], bool)
TRUTH = np.array([[[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]], bool)
NOTHING = np.zeros((1, 3, 4), bool)


def test_dice_is_twice_the_common_part_over_both_sizes():
    assert dice(PREDICTION, TRUTH) == 2 * 3 / (4 + 5)


def test_both_empty_scores_1_in_lits_and_what_the_caller_asks_elsewhere():
    assert dice(NOTHING, NOTHING) == 1.0
    assert math.isnan(dice(NOTHING, NOTHING, empty=math.nan))


def test_one_empty_scores_0_in_every_convention():
    assert dice(PREDICTION, NOTHING, empty=math.nan) == 0.0
    assert dice(NOTHING, TRUTH, empty=math.nan) == 0.0


def test_overlap_tells_prediction_from_truth():
    assert overlap(PREDICTION, TRUTH) == Overlap(both=3, prediction=4, truth=5)


def test_a_sum_of_overlaps_pools_the_voxels():
    pooled = Overlap(both=3, prediction=4, truth=5) + Overlap(both=1, prediction=2, truth=10)
    assert pooled == Overlap(both=4, prediction=6, truth=15)
    assert pooled.dice() == 8 / 21


def test_two_shapes_are_refused_although_they_would_broadcast():
    with pytest.raises(ValueError, match=r"shapes \(1, 3, 4\) and \(2, 3, 4\)"):
        overlap(PREDICTION, np.ones((2, 3, 4), bool))


@pytest.mark.parametrize("position", [0, 1])
def test_labels_are_refused_as_masks(position):
    masks = [PREDICTION, TRUTH]
    masks[position] = masks[position].astype(np.uint8)
    with pytest.raises(ValueError, match="must be bool"):
        dice(*masks)


def test_tumours_are_liver_and_liver_is_no_tumour():
    prediction = np.array([[[2, 2, 1, 0]], [[0, 0, 0, 1]]], np.uint8)
    truth = np.array([[[2, 1, 2, 1]], [[0, 0, 1, 0]]], np.uint8)
    liver, tumor = class_overlaps(prediction, truth)
    assert liver == Overlap(both=3, prediction=4, truth=5)
    assert tumor == Overlap(both=1, prediction=2, truth=2)


def test_label_arrays_of_two_shapes_are_refused():
    # As many slices on both sides, and slices that would broadcast.
    with pytest.raises(ValueError, match=r"labels of shapes \(2, 1, 4\) and \(2, 3, 4\)"):
        class_overlaps(np.zeros((2, 1, 4), np.uint8), np.zeros((2, 3, 4), np.uint8))
