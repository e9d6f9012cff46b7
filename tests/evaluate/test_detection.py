"""Counts of lesions, in all and by size."""

import dataclasses

import numpy as np

from evaluate.detection import SIZES, Detection, detection, size_class, touched
from evaluate.lesions import Lesion, LesionMatch, LesionPair, match_lesions
from evaluate.metrics import MaskScore
from preprocess.geometry import Grid

NO_SCORE = MaskScore(*[None] * 9)


def lesion(number, diameter_mm, covered=0.0, pair=None):
    return Lesion(number, 1.0, diameter_mm, (0.0, 0.0, 0.0), covered, pair)


#: A large lesion found well by a small prediction, a middle one found barely, a small one missed, a false one.
MATCH = LesionMatch(
    prediction=(lesion(1, 19.0, 1.0, 1), lesion(2, 12.0, 0.2, 2), lesion(3, 5.0)),
    truth=(lesion(1, 21.0, 0.7, 1), lesion(2, 12.0, 0.2, 2), lesion(3, 4.0)),
    pairs=(LesionPair(1, (1,), (1,), 0.7, NO_SCORE), LesionPair(2, (2,), (2,), 0.1, NO_SCORE)),
)


def test_counts_above_both_thresholds():
    assert detection(MATCH, 0.0) == Detection(truth=3, detected=2, predicted=3, correct=2)
    assert detection(MATCH, 0.5) == Detection(truth=3, detected=1, predicted=3, correct=1)


def test_the_own_size_of_a_lesion_decides_where_it_counts():
    assert detection(MATCH, 0.5, "<10") == Detection(truth=1, detected=0, predicted=1, correct=0)
    assert detection(MATCH, 0.5, "10-20") == Detection(truth=1, detected=0, predicted=2, correct=1)
    assert detection(MATCH, 0.5, ">20") == Detection(truth=1, detected=1, predicted=0, correct=0)


def test_ten_and_twenty_millimetres_are_of_the_middle_size():
    assert [size_class(d) for d in (9.99, 10.0, 20.0, 20.01)] == ["<10", "10-20", "10-20", ">20"]


def test_precision_recall_and_f1():
    counts = Detection(truth=4, detected=1, predicted=2, correct=1)
    assert (counts.missed, counts.false) == (3, 1)
    assert (counts.recall, counts.precision, counts.f1) == (0.25, 0.5, 2 * 0.25 * 0.5 / 0.75)


def test_what_has_nothing_to_divide_by():
    nothing = Detection()
    assert (nothing.recall, nothing.precision, nothing.f1) == (None, None, None)
    missed, false = Detection(truth=2), Detection(predicted=2)
    assert (missed.recall, missed.precision, missed.f1) == (0.0, None, 0.0)
    assert (false.recall, false.precision, false.f1) == (None, 0.0, 0.0)
    elsewhere = Detection(truth=8, detected=1)  # found by a lesion of another size
    assert (elsewhere.recall, elsewhere.precision, elsewhere.f1) == (0.125, None, None)


def test_a_sum_pools_cases():
    total = sum((Detection(1, 1, 2, 1), Detection(3, 0, 1, 1)), Detection())
    assert dataclasses.astuple(total) == (4, 1, 3, 2)


def test_touching_is_being_detected_above_zero():
    rng = np.random.default_rng(5)
    grid = Grid((9, 14, 17), (4.0, 3.0, 2.0))
    for share in (0.02, 0.2, 0.3):  # from specks to tangles of split and merged lesions of all sizes
        prediction, truth = (rng.random(grid.shape) < share for _ in range(2))
        truth[1:6, 2:9, 3:12] = True
        match = match_lesions(prediction, truth, grid, "lits")
        assert touched(prediction, truth, grid.voxel_ml) == {size: detection(match, 0.0, size) for size in SIZES}
