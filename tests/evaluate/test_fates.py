"""What became of each true tumour: seven tumours of one case, each lost at another step."""

import dataclasses

import numpy as np
import pytest

from evaluate.fates import FATES, LesionFate, fate_counts, lesion_fates
from evaluate.stage_masks import StageMasks
from preprocess.geometry import Box, Grid
from preprocess.volume import LabelMap

GRID = Grid((2, 3, 14), (5.0, 2.0, 10.0))  # 0.1 mL


def tumours(*columns):
    """Liver everywhere, and tumour in these columns of the slice z = 1, row y = 2."""
    array = np.ones(GRID.shape, np.uint8)
    array[1, 2, list(columns)] = 2
    return LabelMap(array, GRID)


@pytest.fixture
def masks():
    """Tumours in the columns 1+2, 4, 6, 8, 10 and 12; the ROI ends before 12."""
    return StageMasks(
        case="seven",
        truth=tumours(1, 2, 4, 6, 8, 10, 12),
        scores_tumor=True,
        held_out=True,
        coarse_truth=np.ones((1, 1, 1), bool),
        coarse_liver=np.ones((1, 1, 1), bool),
        stage1_liver=np.ones(GRID.shape, bool),
        roi=Box((0, 0, 0), (2, 3, 12)),
        stage2_true_roi=tumours(1, 6, 8, 10, 12),
        stage2_tumor=tumours(1, 8, 10).array == 2,
        stage2=tumours(1, 10),
        merged=tumours(1, 9),
    )


def test_each_tumour_has_the_fate_of_the_step_that_lost_it(masks):
    assert lesion_fates(masks) == (
        LesionFate(1, pytest.approx(0.2), 0.5, "found"),
        LesionFate(2, pytest.approx(0.1), 0.0, "missed"),
        LesionFate(3, pytest.approx(0.1), 0.0, "own_roi"),
        LesionFate(4, pytest.approx(0.1), 0.0, "outside_liver"),
        LesionFate(5, pytest.approx(0.1), 0.0, "cleanup"),
        LesionFate(6, pytest.approx(0.1), 0.0, "outside_roi"),
    )


def test_without_a_liver_every_tumour_is_lost_there(masks):
    nothing = tumours()
    lost = dataclasses.replace(masks, roi=None, stage2_tumor=np.zeros(GRID.shape, bool), stage2=nothing, merged=nothing)
    assert {lesion.fate for lesion in lesion_fates(lost)} == {"liver_not_found"}


def test_a_tumour_that_only_clean_up_brings_back_is_found(masks):
    # It lay in a hole of the predicted liver, which clean-up fills.
    (first, *_, _, _, _) = lesion_fates(dataclasses.replace(masks, stage2=tumours(), merged=tumours(1, 2)))
    assert (first.fate, first.found_share) == ("found", 1.0)


def test_no_tumours_or_none_that_are_scored_have_no_fate(masks):
    assert lesion_fates(dataclasses.replace(masks, scores_tumor=False)) == ()
    assert lesion_fates(dataclasses.replace(masks, truth=tumours())) == ()


def test_counts_name_every_fate(masks):
    counts = fate_counts(lesion_fates(masks)[:2])
    assert list(counts) == list(FATES)
    assert {fate: count for fate, count in counts.items() if count} == {"found": 1, "missed": 1}
