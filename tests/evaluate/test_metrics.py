"""The nine metrics of a pair of masks, and every case of an empty one in both conventions."""

import numpy as np
import pytest

from evaluate.metrics import METRICS, MaskScore, mask_score
from evaluate.overlap import overlap
from tests.evaluate.shapes import block

SPACING = (2.0, 5.0, 5.0)
NOTHING = np.zeros((5, 4, 4), bool)
SHORT, LONG = block((5, 4, 4), (0, 3), (0, 3), (0, 3)), block((5, 4, 4), (0, 4), (0, 3), (0, 3))

DISTANCES = ("assd", "rmsd", "msd")
NSDS = ("nsd1", "nsd2", "nsd3")


def scored(prediction, truth, convention="lits"):
    return mask_score(prediction, truth, SPACING, overlap(prediction, truth), convention)


def test_the_names_are_those_of_the_columns():
    assert ("dice", "voe", "rvd", *DISTANCES, *NSDS) == METRICS


@pytest.mark.parametrize("convention", ["lits", "nnunet"])
def test_a_box_that_is_a_slice_short(convention):
    result = scored(SHORT, LONG, convention)
    assert result.dice == 2 * 27 / (27 + 36)
    assert result.voe == pytest.approx(1 - 27 / 36)
    assert result.rvd == pytest.approx(-9 / 36)
    assert (result.assd, result.msd) == (pytest.approx(20 / 60), 2.0)
    assert result.rmsd == pytest.approx((40 / 60) ** 0.5)
    assert 0 < result.nsd1 < result.nsd2 == result.nsd3 == 1


def test_rvd_is_relative_to_the_truth():
    assert scored(LONG, SHORT).rvd == pytest.approx(9 / 27)


def test_both_empty_is_perfect_in_lits():
    assert scored(NOTHING, NOTHING) == MaskScore(1, 0, 0, 0, 0, 0, 1, 1, 1)


def test_both_empty_has_no_value_in_nnunet():
    assert set(scored(NOTHING, NOTHING, "nnunet").values().values()) == {None}


@pytest.mark.parametrize("convention", ["lits", "nnunet"])
def test_an_empty_prediction_of_something(convention):
    assert scored(NOTHING, LONG, convention) == MaskScore(0, 1, -1, None, None, None, 0, 0, 0)


@pytest.mark.parametrize("convention", ["lits", "nnunet"])
def test_a_prediction_of_nothing(convention):
    assert scored(LONG, NOTHING, convention) == MaskScore(0, 1, None, None, None, None, 0, 0, 0)


def test_a_convention_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="'LiTS' is not known; use one of lits, nnunet"):
        scored(SHORT, LONG, "LiTS")


def test_where_the_masks_lie_in_the_array_does_not_matter():
    wide = np.zeros((9, 12, 11), bool)
    pair = [wide.copy(), wide.copy()]
    for place, mask in zip(pair, (SHORT, LONG), strict=True):
        place[2:7, 3:7, 5:9] = mask
    assert scored(*pair) == scored(SHORT, LONG)
