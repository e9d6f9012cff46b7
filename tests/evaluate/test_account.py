"""The account of the stages of one case, counted by hand on 2 x 3 x 4 voxels."""

import dataclasses

import numpy as np
import pytest

from evaluate.account import ACCOUNT_FIELDS, StageReport, account
from evaluate.stage_masks import StageMasks
from preprocess.geometry import Box

TRUTH = {(0, 0, 0): 1, (0, 0, 1): 1, (0, 1, 1): 2, (0, 1, 2): 2, (1, 2, 3): 2}


def bools(*indices, shape=(2, 3, 4)):
    mask = np.zeros(shape, bool)
    for index in indices:
        mask[index] = True
    return mask


@pytest.fixture
def masks(labels):
    """A case that loses something different at every stage."""
    return StageMasks(
        case="volume-3",
        truth=labels(TRUTH),
        scores_tumor=True,
        held_out=True,
        coarse_truth=bools((0, 0, 0), (0, 1, 0), shape=(1, 2, 3)),
        coarse_liver=bools((0, 0, 0), shape=(1, 2, 3)),
        stage1_liver=bools((0, 0, 0), (0, 0, 1), (0, 1, 1)),
        roi=Box((0, 0, 0), (1, 2, 3)),
        stage2_true_roi=labels({(0, 1, 1): 2, (0, 1, 2): 2, (1, 2, 3): 2, (0, 0, 0): 2}),
        stage2_tumor=bools((0, 0, 1), (0, 1, 1), (0, 2, 0)),
        stage2=labels({(0, 0, 0): 1, (0, 0, 1): 2, (0, 1, 1): 2, (0, 1, 0): 1}),
        merged=labels({(0, 0, 0): 1, (0, 0, 1): 1, (0, 1, 1): 2, (0, 1, 2): 1, (0, 1, 0): 1}),
    )


def test_every_number_of_a_case(masks):
    result = account(masks)
    assert (result.case, result.held_out) == ("volume-3", True)
    assert {field: getattr(result, field) for field in ACCOUNT_FIELDS} == {
        "stage1_liver_dice_coarse": 2 * 1 / (1 + 2),
        "stage1_liver_dice": 2 * 3 / (3 + 5),
        "roi_liver_share": 4 / 5,
        "roi_tumor_share": 2 / 3,
        "stage2_tumor_dice_true_roi": 2 * 3 / (4 + 3),
        "stage2_tumor_dice_predicted_roi": 2 * 1 / (2 + 3),
        "merged_liver_dice": 2 * 4 / (5 + 5),
        "merged_tumor_dice": 2 * 1 / (1 + 3),
        "cleanup_liver_gain": 2 * 4 / (5 + 5) - 2 * 3 / (4 + 5),
        "cleanup_tumor_gain": 2 * 1 / (1 + 3) - 2 * 1 / (2 + 3),
    }


def test_the_waterfalls_of_a_case_end_in_its_final_dice(masks):
    result = account(masks)
    assert float(result.liver.dice[-1]) == result.merged_liver_dice
    assert float(result.tumor.dice[-1]) == result.merged_tumor_dice
    assert [lesion.fate for lesion in result.lesions] == ["found", "outside_roi"]


def test_clean_up_that_does_harm_has_a_negative_gain(masks, labels):
    harmed = account(dataclasses.replace(masks, merged=labels({(0, 0, 0): 1})))
    assert harmed.cleanup_liver_gain == 2 / 6 - 6 / 9
    assert harmed.cleanup_tumor_gain == 0 - 2 / 5


def test_without_usable_tumours_the_liver_is_still_accounted(masks):
    result = account(dataclasses.replace(masks, scores_tumor=False))
    assert {field.name for field in dataclasses.fields(result) if getattr(result, field.name) is None} == {
        "roi_tumor_share",
        "stage2_tumor_dice_true_roi",
        "stage2_tumor_dice_predicted_roi",
        "merged_tumor_dice",
        "cleanup_tumor_gain",
        "tumor",
    }
    assert result.lesions == ()


def test_a_liver_that_is_not_found_has_no_share_in_the_roi(masks, labels):
    result = account(
        dataclasses.replace(masks, roi=None, stage1_liver=bools(), stage2=labels({}), merged=labels({})),
    )
    assert (result.roi_liver_share, result.roi_tumor_share) == (0.0, 0.0)
    assert (result.stage1_liver_dice, result.merged_liver_dice, result.merged_tumor_dice) == (0.0, 0.0, 0.0)


def test_no_true_tumour_has_no_share(masks, labels):
    result = account(dataclasses.replace(masks, truth=labels({(0, 0, 0): 1}), merged=labels({(0, 0, 0): 1})))
    assert (result.roi_liver_share, result.roi_tumor_share) == (1.0, None)
    assert result.merged_tumor_dice == 1.0


def test_no_true_liver_has_no_true_roi(masks, labels):
    result = account(dataclasses.replace(masks, truth=labels({}), stage2_true_roi=None))
    assert (result.roi_liver_share, result.stage2_tumor_dice_true_roi) == (None, None)


@pytest.mark.parametrize("field", ["stage2_true_roi", "stage2", "merged"])
def test_label_maps_on_another_grid_are_refused(masks, labels, field):
    elsewhere = labels({}, dataclasses.replace(masks.truth.grid, origin_mm=(10.0, -20.0, 31.0)))
    with pytest.raises(ValueError, match="is not the grid of the truth"):
        dataclasses.replace(masks, **{field: elsewhere})


@pytest.mark.parametrize("field", ["stage1_liver", "stage2_tumor", "coarse_liver"])
def test_masks_of_another_shape_are_refused(masks, field):
    with pytest.raises(ValueError, match=rf"volume-3: {field} has shape \(4, 3, 2\)"):
        dataclasses.replace(masks, **{field: np.zeros((4, 3, 2), bool)})


def test_a_roi_outside_the_image_is_refused(masks):
    with pytest.raises(ValueError, match="leaves the image"):
        dataclasses.replace(masks, roi=Box((0, 0, 0), (2, 3, 5)))


def test_means_leave_out_what_does_not_apply(masks):
    full = account(masks)
    report = StageReport((full, account(dataclasses.replace(masks, scores_tumor=False)), full))
    assert report.mean("merged_tumor_dice") == 0.5
    assert report.mean("merged_liver_dice") == pytest.approx(0.8)
    assert StageReport(report.accounts[1:2]).mean("merged_tumor_dice") is None
    assert report.waterfall("tumor") == full.tumor
    assert StageReport(report.accounts[1:2]).waterfall("tumor") is None
    assert report.waterfall("liver").dice[-1] == sum(a.liver.dice[-1] for a in report.accounts) / 3
    assert len(report.lesions) == 4


def test_kinds_of_cases_come_apart(masks):
    trained, unknown, held_out = (account(dataclasses.replace(masks, held_out=kind)) for kind in (False, None, True))
    kinds = StageReport((trained, unknown, held_out, trained)).by_kind()
    assert list(kinds) == ["held_out", "in_training", "unknown"]
    assert [kind.accounts for kind in kinds.values()] == [(held_out,), (trained, trained), (unknown,)]
    assert list(StageReport((unknown,)).by_kind()) == ["unknown"]
