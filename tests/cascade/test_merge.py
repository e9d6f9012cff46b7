from dataclasses import replace

import numpy as np
import pytest

from cascade.merge import Fused, clean_up, credible, fuse, liver_alone, pasted
from preprocess.geometry import Box, Grid
from preprocess.volume import LabelMap, Volume
from stage1_liver.predict import CoarseLiver
from stage2_tumor.predict import RoiProbabilities
from stage2_tumor.recipe import TumorPolicy

AXES = ((-2 / 7, -3 / 7, 6 / 7), (-3 / 7, 6 / 7, 2 / 7), (6 / 7, 2 / 7, 3 / 7))
#: 10 mm3 a voxel.
FULL = Grid((4, 5, 7), (5.0, 2.0, 1.0), (10.0, -20.0, 30.0), AXES)
BOX = Box((1, 2, 1), (3, 5, 6))
POLICY = TumorPolicy(
    0.5,
    0.5,
    0.25,
    0.5,
    20.0,
    10.0,
    0.0,
    0.3,
    (0.0, 0.0),
    0.0,
    outline_threshold=0.1,
    outline_share=0.5,
    fat_share=0.0,
    gallbladder_hu=-1024.0,
)
SLAB = Grid((1, 5, 7), (5.0, 2.0, 1.0))


def coarse(probability, grid=FULL):
    probability = np.asarray(probability, np.float32)
    return CoarseLiver(probability, probability >= 0.5, grid, found=True)


def filled(grid, *parts):
    """An array of zeros with `value` at every (index expression, value)."""
    array = np.zeros(grid.shape, np.float32)
    for where, value in parts:
        array[where] = value
    return array


def drawing(*rows):
    """One slice as a `Fused`: L liver, T tumour in liver, t tumour outside the liver."""
    text = np.array([[list(row) for row in rows]])
    grid = Grid(text.shape, (5.0, 2.0, 1.0))
    return Fused(np.isin(text, ["L", "T"]), np.isin(text, ["T", "t"]), grid)


def cleaned(*rows, minimum=0.0):
    """The same after clean-up, as text, and the warnings."""
    labels, warnings = clean_up(drawing(*rows), minimum)
    return ["".join(".LT"[v] for v in row) for row in labels.array[0]], warnings


def test_the_liver_is_where_the_geometric_mean_of_both_stages_reaches_the_threshold():
    first = filled(FULL, (np.s_[1, 2, 1:4], [0.5, 0.5, 0.25]), (np.s_[0], 1.0), (np.s_[2, 4, 5], 1.0))
    roi = FULL.cropped(BOX)
    second = filled(roi, (np.s_[0, 0, :3], [0.5, 0.45, 1.0]), (np.s_[1, 1, 1], 1.0))
    fused = fuse(coarse(first), RoiProbabilities(second, filled(roi), roi), FULL, BOX, POLICY)
    assert fused.grid == roi
    # it is 0.5 exactly, 0.47, 0.5 again, and 0 where one stage is sure of no liver, either way round
    assert np.argwhere(fused.liver).tolist() == [[0, 0, 0], [0, 0, 2]]
    assert not fused.tumor.any()


def test_the_tumour_is_where_its_geometric_mean_with_stage_1s_liver_reaches_the_threshold():
    roi = FULL.cropped(BOX)
    tumor = filled(roi, (np.s_[0, 1, 2], 0.25), (np.s_[1, 2, 3], 0.24), (np.s_[1, 0, 4], 1.0), (np.s_[0, 0, 0], 0.25))
    first = filled(FULL, (np.s_[1, 3, 3], 0.25), (np.s_[2, 4, 4], 0.25), (np.s_[1, 2, 1], 1.0))
    fused = fuse(coarse(first), RoiProbabilities(filled(roi), tumor, roi), FULL, BOX, POLICY)
    # 0.25 exactly, 0.245, 0 where stage 1 is sure of no liver, 0.5
    assert np.argwhere(fused.tumor).tolist() == [[0, 0, 0], [0, 1, 2]]
    assert np.argwhere(fused.sure).tolist() == [[0, 0, 0]]
    assert np.argwhere(fused.called).tolist() == [[0, 0, 0]]
    tumor = filled(roi, (np.s_[0, 0, :2], [0.15, 0.17]))
    fused = fuse(coarse(filled(FULL, (np.s_[:], 1.0))), RoiProbabilities(tumor, tumor, roi), FULL, BOX, POLICY)
    assert np.argwhere(fused.called).tolist() == [[0, 0, 1]]  # .39 and .41


def test_a_clear_one_has_a_peak_of_its_own():
    roi = FULL.cropped(BOX)
    tumor = filled(roi, (np.s_[0, 1, 2], 0.18), (np.s_[1, 2, 3], 0.17))  # roots of .5 of these: .3 exactly, and .292
    fused = fuse(coarse(filled(FULL, (np.s_[:], 0.5))), RoiProbabilities(filled(roi), tumor, roi), FULL, BOX, POLICY)
    assert np.argwhere(fused.likely).tolist() == [[0, 1, 2]]


def test_stage_2_counts_for_its_weight_in_the_mean_of_the_liver_alone():
    one, two, tumor = 0.0625, 0.75, 0.9
    roi = FULL.cropped(BOX)
    fine = RoiProbabilities(np.full(roi.shape, two, np.float32), filled(roi, (np.s_[0], tumor)), roi)

    def at(weight, **thresholds):
        policy = replace(POLICY, stage2_weight=weight, **thresholds)
        return fuse(coarse(np.full(FULL.shape, one)), fine, FULL, BOX, policy)

    # .0625^.2 .75^.8 = .456; stage 2 alone has .75, both alike .217
    assert at(0.8, liver_threshold=0.45).liver.all()
    assert not at(0.8, liver_threshold=0.46).liver[1].any()
    assert at(1.0, liver_threshold=0.74).liver[1].all()
    assert not at(0.5, liver_threshold=0.22).liver[1].any()
    # A tumour has to convince both alike: .0625^.5 .9^.5 = .237.
    for weight in (0.5, 0.8, 1.0):
        assert at(weight, tumor_threshold=0.23, tumor_peak=0.24).tumor[0].all()
        assert not at(weight, tumor_threshold=0.23, tumor_peak=0.24).sure.any()


def test_a_tumour_whose_liver_stage_2_forgot_is_liver_where_stage_1_says_so():
    roi = FULL.cropped(BOX)
    fine = RoiProbabilities(filled(roi), filled(roi, (np.s_[0, 1, 2], 0.9), (np.s_[1, 2, 3], 0.9)), roi)
    fused = fuse(coarse(filled(FULL, (np.s_[1, 3, 3], 0.9))), fine, FULL, BOX, POLICY)
    assert np.argwhere(fused.liver).tolist() == [[0, 1, 2]]
    assert np.argwhere(fused.labels.array == 2).tolist() == [[0, 1, 2]]


def test_each_stage_is_read_on_its_own_grid():
    full = Grid((4, 6, 8), (2.0, 2.0, 2.0), (10.0, -20.0, 30.0), AXES)
    box = Box((0, 0, 2), (4, 6, 8))
    roi = full.cropped(box)
    columns, rows = full.respaced((2.0, 2.0, 4.0)), roi.respaced((2.0, 6.0, 2.0))
    assert (columns.shape, rows.shape) == ((4, 6, 4), (4, 2, 6))
    first = filled(columns, (np.s_[:, :, :2], 1.0))  # the scan's columns 0-3, the region's 0 and 1
    second = filled(rows, (np.s_[:, 1], 1.0))  # rows 3-5
    tumor = filled(rows, (np.s_[3], 1.0))
    strict = TumorPolicy(
        0.5, 0.75, 0.5, 0.5, 0.0, 0.0, 0.0, 1.0, (0.0, 0.0), 0.0, 0.5, 0.0, 0.0, -1024.0
    )  # p1 * p2 >= 0.5625: both
    fused = fuse(coarse(first, columns), RoiProbabilities(second, tumor, rows), full, box, strict)
    # along the region's columns p1 is 1 .75 .25 0 0 0, along its rows p2 is 0 0 1/3 2/3 1 1
    liver = np.zeros(roi.shape, bool)
    liver[:, 3:, 0] = True
    liver[:, 4:, 1] = True
    liver[3, :, :2] = True  # a tumour is liver: there p2 is 1
    np.testing.assert_array_equal(fused.liver, liver)
    lowest = np.zeros(roi.shape, bool)
    lowest[3, :, :3] = True  # p1 >= 0.25
    np.testing.assert_array_equal(fused.tumor, lowest)


def test_a_lesion_that_is_sure_nowhere_is_dropped():
    roi = FULL.cropped(BOX)
    tumor = filled(roi, (np.s_[0, 0, :2], 0.2), (np.s_[1, 2, 3:], 0.2), (np.s_[1, 2, 4], 0.25))
    fused = fuse(coarse(np.ones(FULL.shape)), RoiProbabilities(np.ones_like(tumor), tumor, roi), FULL, BOX, POLICY)
    assert np.argwhere(fused.tumor).tolist() == [[0, 0, 0], [0, 0, 1], [1, 2, 3], [1, 2, 4]]
    labels, _ = clean_up(fused, 0)
    assert np.argwhere(labels.array == 2).tolist() == [[1, 2, 3], [1, 2, 4]]


def test_stage_2_of_another_region_is_refused():
    other = FULL.cropped(Box((0, 2, 1), (2, 5, 6)))
    fine = RoiProbabilities(filled(other), filled(other), other)
    with pytest.raises(ValueError, match="do not share a corner"):
        fuse(coarse(np.zeros(FULL.shape)), fine, FULL, BOX, POLICY)


def test_liver_alone_is_stage_1_inside_the_box():
    first = filled(FULL, (np.s_[1, 2, 1], 0.6), (np.s_[1, 2, 2], 0.59), (np.s_[2, 4, 5], 1.0), (np.s_[3], 1.0))
    fused = liver_alone(coarse(first), FULL, BOX, 0.6)
    assert fused.grid == FULL.cropped(BOX)
    assert np.argwhere(fused.liver).tolist() == [[0, 0, 0], [1, 2, 4]]
    assert not fused.tumor.any()


def test_labels_before_clean_up_hold_tumour_only_inside_the_liver():
    labels = drawing("LT.t", "L..L").labels
    assert labels.array.tolist() == [[[1, 2, 0, 0], [1, 0, 0, 1]]]
    assert labels.array.dtype == np.uint8


def test_tumour_outside_the_liver_is_dropped():
    assert cleaned("LLLt", "LTt.") == (["LLL.", "LT.."], ())


def test_only_the_largest_liver_part_is_kept_with_its_tumour():
    rows, _ = cleaned("LTL.LT", "LLL...")
    assert rows == ["LTL...", "LLL..."]


def test_holes_of_the_liver_are_filled_and_tumour_in_them_counts():
    liver = np.zeros((3, 4, 5), bool)
    liver[:, :3, :3] = True
    liver[1, 1, 1] = False
    tumor = np.zeros_like(liver)
    tumor[1, 1, 1] = True
    labels, warnings = clean_up(Fused(liver, tumor, Grid(liver.shape, (5.0, 2.0, 1.0))), 10.0)
    assert labels.array[1, 1, 1] == 2
    assert (labels.array > 0).sum() == 27
    assert warnings == ()


def test_a_lesion_of_exactly_the_minimum_is_kept():
    rows = ("LLLLLLL", "LTTLTLL", "LLLLLLL")
    assert cleaned(*rows, minimum=20.0)[0] == ["LLLLLLL", "LTTLLLL", "LLLLLLL"]
    assert cleaned(*rows, minimum=10.0)[0] == list(rows)
    assert cleaned(*rows, minimum=20.1)[0] == ["LLLLLLL"] * 3


def test_a_lesion_of_exactly_the_minimum_is_kept_whatever_the_spacing():
    # 9 mm3 / (1000 * voxel_ml) is 5.000000000000001 voxels
    five = np.zeros((1, 2, 5), bool)
    five[0, 0] = True
    labels, _ = clean_up(Fused(np.ones_like(five), five, Grid(five.shape, (5.0, 0.6, 0.6))), 9.0)
    assert (labels.array == 2).sum() == 5


def test_a_lesion_counts_with_its_part_inside_the_liver_only():
    assert cleaned("LLLTttt", minimum=20.0)[0] == ["LLLL..."]


def test_lesions_that_touch_at_an_edge_are_two():
    assert cleaned("LTL", "LLT", "LLL", minimum=20.0)[0] == ["LLL", "LLL", "LLL"]


def test_a_notable_second_part_is_warned_of():
    big = np.zeros((10, 20, 30), bool)
    big[:, :10, :10] = True  # 1000 voxels of 10 mm3
    big[0, 12, :30] = True
    big[0, 13:15, :30] = True
    big[0, 15, :10] = True  # 100 voxels: exactly a tenth
    grid = Grid(big.shape, (5.0, 2.0, 1.0))
    labels, warnings = clean_up(Fused(big, np.zeros_like(big), grid), 0)
    assert warnings == ("liver in several parts: 10 mL kept, the next of 1 mL dropped",)
    assert (labels.array > 0).sum() == 1000
    big[0, 15, 9] = False
    assert clean_up(Fused(big, np.zeros_like(big), grid), 0)[1] == ()


def test_no_liver_is_an_empty_map_without_warning():
    assert cleaned("..t", "...") == (["...", "..."], ())


def test_clean_up_does_not_change_what_it_was_given():
    fused = drawing("LLLt", "L.TL", "LLLL")
    before = fused.liver.copy(), fused.tumor.copy()
    clean_up(fused, 1000.0)
    np.testing.assert_array_equal(fused.liver, before[0])
    np.testing.assert_array_equal(fused.tumor, before[1])


def test_pasted_at_its_place():
    part = np.arange(30, dtype=np.uint8).reshape(BOX.shape) % 3
    out = pasted(LabelMap(part, FULL.cropped(BOX)), BOX, FULL)
    assert out.grid == FULL
    np.testing.assert_array_equal(out.cropped(BOX).array, part)
    assert out.array[1, 2, 2] == 1
    assert out.array.sum() == part.sum()


def test_pasted_refuses_a_part_of_another_shape():
    other = Box((0, 0, 0), (2, 3, 4))
    part = LabelMap(np.zeros(other.shape, np.uint8), FULL.cropped(other))
    with pytest.raises(ValueError, match="broadcast"):
        pasted(part, BOX, FULL)


def credible_lesions(least_hu, clear=(30.0, 55.0), clear_mm3=0.0):
    """Which of a faint lesion (10 HU darker), a dark one (40) and one like fat (70) count, all likely, the last sure;
    and with how many voxels they come out."""
    grid = Grid((3, 20, 60), (5.0, 2.0, 1.0))
    liver, tumor, hu = np.ones(grid.shape, bool), np.zeros(grid.shape, bool), np.full(grid.shape, 100, np.int16)
    faint, dark, fat = np.s_[1, 3:6, 4:9], np.s_[1, 12:15, 25:30], np.s_[1, 8:10, 48:52]
    for where, value in ((faint, 90), (dark, 60), (fat, 30)):
        tumor[where], hu[where] = True, value
    sure, likely = np.zeros_like(tumor), np.zeros_like(tumor)
    sure[faint], sure[1, 9, 50], likely[1, 13, 27], likely[1, 4, 5] = True, True, True, True
    fused, roi = Fused(liver, tumor, grid, sure=sure, likely=likely), Volume(hu, grid)
    policy = replace(POLICY, minimum_contrast_hu=least_hu, clear_contrast_hu=clear, clear_mm3=clear_mm3)
    labels, _ = clean_up(credible(fused, roi, policy), 0.0)
    assert np.count_nonzero(fused.sure) == 16  # as it was
    return [int(np.count_nonzero(labels.array[where] == 2)) for where in (faint, dark, fat)]


def test_a_lesion_like_the_liver_around_it_does_not_count():
    assert credible_lesions(15.0, clear=(0.0, 0.0)) == [0, 0, 8]
    assert credible_lesions(0.0, clear=(0.0, 0.0)) == [15, 0, 8]


def test_one_that_is_clear_to_see_counts_where_it_is_but_likely():
    assert credible_lesions(15.0) == [0, 15, 8]
    assert credible_lesions(15.0, clear_mm3=150.0) == [0, 15, 8]
    assert credible_lesions(15.0, clear_mm3=151.0) == [0, 0, 8]  # 15 voxels of 10 mm3
    assert credible_lesions(15.0, clear=(41.0, 55.0)) == [0, 0, 8]
    assert credible_lesions(15.0, clear=(30.0, 39.0)) == [0, 0, 8]


def test_fat_at_the_livers_edge_is_no_liver_but_where_a_lesion_is_possible():
    grid = Grid((3, 20, 40), (5.0, 1.0, 1.0))
    liver, possible, hu = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool), np.full(grid.shape, -150, np.int16)
    liver[:, 2:18, 2:30], hu[:, 2:18, 3:30] = True, 100  # a column too wide
    possible[:, 5, 2] = True
    fused = Fused(liver, np.zeros_like(liver), grid, possible=possible)
    left = credible(fused, Volume(hu, grid), replace(POLICY, fat_share=0.5)).liver
    expected = liver.copy()
    expected[:, :, 2] = possible[:, :, 2]
    np.testing.assert_array_equal(left, expected)
    np.testing.assert_array_equal(credible(fused, Volume(hu, grid), POLICY).liver, liver)


def test_the_gallbladder_is_neither_liver_nor_tumour_and_is_said():
    """One of 12 mL on the front face, 15 HU, and a tumour of 60 HU beside it."""
    grid = Grid((6, 20, 40), (10.0, 10.0, 10.0))
    liver, called, hu = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool), np.full(grid.shape, -100, np.int16)
    liver[:, 2:], hu[:, 2:] = True, 100
    bile, tumor = np.s_[1:5, 2, 10:13], np.s_[1:5, 2, 20:23]
    called[bile] = called[tumor] = True
    hu[bile], hu[tumor] = 15, 60
    fused = Fused(liver, called, grid, sure=called.copy(), likely=called.copy(), called=called)
    seen = credible(fused, Volume(hu, grid), replace(POLICY, gallbladder_hu=20.0))
    labels, said = clean_up(seen, 0.0)
    assert (labels.array[bile] == 0).all()
    assert (labels.array[tumor] == 2).all()
    assert np.count_nonzero(labels.array) == np.count_nonzero(liver) - 12
    assert said == (
        "12.0 mL that looked like tumour was left out of liver and tumour as gallbladder, bowel or other fluid: "
        "as dark as water, at the liver's surface; it may be a cyst or a dead tumour, so look at it",
    )
    assert seen.called is None  # it has been looked at
    labels, said = clean_up(credible(fused, Volume(hu, grid), POLICY), 0.0)
    assert (labels.array[bile] == 2).all()
    assert said == ()
    wide = fused.liver.copy()
    wide[:, 1] = True  # a layer of fat, over the gallbladder too
    fused = replace(fused, liver=wide, possible=np.zeros_like(wide))
    lean = credible(fused, Volume(hu, grid), replace(POLICY, gallbladder_hu=20.0, fat_share=0.5))
    np.testing.assert_array_equal(lean.liver, seen.liver)


def test_a_gallbladder_beside_what_is_dropped_is_not_said():
    """Of 12 mL on a part of the liver of a few voxels."""
    grid = Grid((6, 20, 40), (10.0, 10.0, 10.0))
    liver, called, hu = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool), np.full(grid.shape, 100, np.int16)
    liver[:, :12] = True
    bile = np.s_[1:5, 15, 10:13]
    liver[1:5, 15:17, 10:14] = called[bile] = True
    hu[bile] = 15
    fused = Fused(liver, called, grid, sure=called, likely=called, called=called)
    seen = credible(fused, Volume(hu, grid), replace(POLICY, gallbladder_hu=20.0))
    assert np.count_nonzero(seen.gallbladder) == 12
    assert clean_up(seen, 0.0)[1] == ()


def test_stage_1_alone_has_no_lesion_to_judge():
    grid = Grid((3, 20, 40), (5.0, 2.0, 1.0))
    liver = np.ones(grid.shape, bool)
    assert credible(Fused(liver, liver, grid), Volume(np.zeros(grid.shape, np.int16), grid), POLICY).sure is None


def drawn_too_small():
    """A dark lesion of 3 x 4 x 8 voxels and a speck, of which the networks are sure of the middle; and the scan."""
    grid = Grid((9, 24, 44), (2.0, 2.0, 1.0))
    liver, tumor = np.ones(grid.shape, bool), np.zeros(grid.shape, bool)
    hu = np.full(grid.shape, 100, np.int16)
    hu[3:6, 9:13, 11:19] = 40
    tumor[4, 10:12, 13:17] = tumor[4, 20, 38:40] = True
    possible = np.zeros(grid.shape, bool)
    possible[:, :, 8:40] = True
    return Fused(liver, tumor, grid, sure=tumor.copy(), possible=possible), Volume(hu, grid)


def test_a_lesion_that_counts_is_drawn_to_where_it_can_be_seen():
    fused, roi = drawn_too_small()
    found = clean_up(fused, 0.0, roi, 0.5)[0].array == 2
    assert found[3:6, 9:13, 11:19].sum() > 48  # of 96; corners are further away than 3 mm
    assert found.sum() - found[3:6, 9:13, 11:19].sum() == 2  # the speck, which nothing shows, stays as it was
    assert (clean_up(fused, 0.0, roi, 0.0)[0].array == np.where(fused.tumor, 2, 1)).all()
    assert (clean_up(fused, 0.0)[0].array == np.where(fused.tumor, 2, 1)).all()


def test_the_least_size_is_that_of_the_lesion_as_it_is_drawn_in_the_end():
    fused, roi = drawn_too_small()
    assert not (clean_up(fused, 100.0)[0].array == 2).any()  # 8 voxels of 4 mm3
    assert (clean_up(fused, 100.0, roi, 0.5)[0].array == 2).sum() > 48


def test_what_does_not_count_is_not_drawn():
    fused, roi = drawn_too_small()
    fused.sure[4, 10:12, 13:17] = False
    found = clean_up(fused, 0.0, roi, 0.5)[0].array == 2
    assert np.argwhere(found).tolist() == [[4, 20, 38], [4, 20, 39]]


def test_a_lesion_is_not_drawn_beyond_the_liver_or_what_is_possible():
    fused, roi = drawn_too_small()
    fused.possible[:, :, 11] = False
    fused.liver[:, :, 18:] = False
    found = clean_up(fused, 0.0, roi, 0.5)[0].array == 2
    assert found.any(axis=(0, 1)).nonzero()[0].tolist() == [12, 13, 14, 15, 16, 17]


def test_where_a_lesion_may_reach_is_where_the_pool_reaches_the_outline_threshold():
    roi = FULL.cropped(BOX)
    tumor = filled(roi, (np.s_[0, 1, 2], 0.02), (np.s_[1, 2, 3], 0.009))  # roots of .5 of these: .1 and .067
    fused = fuse(coarse(filled(FULL, (np.s_[:], 0.5))), RoiProbabilities(filled(roi), tumor, roi), FULL, BOX, POLICY)
    assert np.argwhere(fused.possible).tolist() == [[0, 1, 2]]
