import numpy as np
import pytest

from preprocess.geometry import Box, Grid
from preprocess.preparation import Preparation
from preprocess.volume import Volume
from stage1_liver.predict import CoarseLiver, find_liver
from stage1_liver.recipe import LiverPolicy

AXES = ((-2 / 7, -3 / 7, 6 / 7), (-3 / 7, 6 / 7, 2 / 7), (6 / 7, 2 / 7, 3 / 7))
#: 10 mm3 a voxel.
GRID = Grid((4, 5, 6), (5.0, 2.0, 1.0), (10.0, -20.0, 30.0), AXES)
SAME = Preparation(GRID.spacing_mm, (-100.0, 100.0))


def scan(*parts, grid=GRID):
    """A scan of -100 HU with 100 HU in every one of `parts` (index expressions)."""
    hu = np.full(grid.shape, -100, np.int16)
    for part in parts:
        hu[part] = 100
    return Volume(hu, grid)


def bright(hu, where):
    """A network that takes bright voxels for liver."""
    return (hu[None] + 1) / 2


def policy(threshold=0.5, minimum_ml=0.0, margin_mm=0.0):
    return LiverPolicy(threshold, minimum_ml, margin_mm)


def test_only_the_largest_part_is_liver():
    out = find_liver(scan(np.s_[1:3, 1:3, 1:3], np.s_[0, 0, 5]), bright, SAME, policy())
    expected = np.zeros(GRID.shape, bool)
    expected[1:3, 1:3, 1:3] = True
    np.testing.assert_array_equal(out.mask, expected)
    assert out.found
    assert out.grid == GRID


def test_holes_are_filled():
    volume = scan(np.s_[0:3, 1:4, 2:5])
    hu = volume.array.copy()
    hu[1, 2, 3] = -100
    found = find_liver(Volume(hu, GRID), bright, SAME, policy())
    assert found.mask.sum() == 27
    assert found.probability[1, 2, 3] == 1
    assert found.probability.sum() == 27  # and nowhere else is it another than the network's


def test_a_hole_is_liver_to_its_middle():
    grid = Grid((5, 5, 6), (5.0, 2.0, 1.0), (10.0, -20.0, 30.0), AXES)
    hu = scan(np.s_[:, :, :5], grid=grid).array.copy()
    hu[1:4, 1:4, 1:4] = -100
    assert find_liver(Volume(hu, grid), bright, SAME, policy()).probability[2, 2, 2] == 1


def test_beyond_the_voxels_beside_what_looks_like_liver_nothing_is_probable():
    def unsure(hu, where):
        return np.where(hu[None] > 0, np.float32(0.9), np.float32(0.25))

    out = find_liver(scan(np.s_[1:3, 2, 1:3], np.s_[0, 0, 5]), unsure, SAME, policy(0.5))
    expected = np.zeros(GRID.shape)
    expected[:, 2, 1:3] = expected[1:3, 1, 1:3] = expected[1:3, 3, 1:3] = expected[1:3, 2, :4] = 0.25
    expected[1, 0, 5] = expected[0, 1, 5] = expected[0, 0, 4] = 0.25  # beside another part, too: it may be worth a word
    expected[1:3, 2, 1:3] = expected[0, 0, 5] = 0.9
    np.testing.assert_array_equal(out.probability, expected.astype(np.float32))
    assert out.probability.dtype == np.float32


def test_the_threshold_itself_is_liver():
    half = Volume(np.zeros(GRID.shape, np.int16), GRID)  # 0 HU is a probability of 0.5
    assert find_liver(half, bright, SAME, policy(0.5)).mask.all()
    assert not find_liver(half, bright, SAME, policy(0.51)).found


def test_the_network_sees_the_prepared_scan_everywhere():
    seen = []

    def infer(hu, where):
        seen.append((hu, where))
        return bright(hu, where)

    preparation = Preparation((5.0, 4.0, 0.5), (-100.0, 100.0))
    out = find_liver(scan(np.s_[1, 2, 3]), infer, preparation, policy())
    ((hu, where),) = seen
    assert where is None
    assert hu.shape == out.grid.shape == out.probability.shape == (4, 3, 12)
    assert out.grid == GRID.respaced((5.0, 4.0, 0.5))
    np.testing.assert_array_equal(hu, preparation.prepared(scan(np.s_[1, 2, 3])))


def test_only_the_first_channel_is_liver():
    def infer(hu, where):
        return np.stack([np.zeros_like(hu), np.ones_like(hu)])

    assert not find_liver(scan(), infer, SAME, policy()).found


def test_exactly_the_minimum_is_found_and_less_is_not():
    volume = scan(np.s_[1, 1, 1:4])  # 0.03 mL
    assert find_liver(volume, bright, SAME, policy(minimum_ml=0.03)).found
    out = find_liver(volume, bright, SAME, policy(minimum_ml=0.0301))
    assert not out.found
    assert not out.mask.any()
    assert out.probability.max() == 1  # what the network said is kept


def test_exactly_the_minimum_is_found_whatever_the_spacing():
    grid = Grid((4, 5, 6), (5.0, 0.6, 0.6), (10.0, -20.0, 30.0), AXES)
    volume, preparation = scan(np.s_[1, 1, 1:4], grid=grid), Preparation(grid.spacing_mm, (-100.0, 100.0))
    assert 3 * grid.voxel_ml < 0.0054  # by float noise alone
    assert find_liver(volume, bright, preparation, policy(minimum_ml=0.0054)).found
    assert not find_liver(volume, bright, preparation, policy(minimum_ml=0.00541)).found


def test_small_parts_do_not_add_up_to_the_minimum():
    volume = scan(np.s_[1, 1, 1:4], np.s_[3, 3, 1:4])
    assert not find_liver(volume, bright, SAME, policy(minimum_ml=0.04)).found


def test_nothing_is_not_found_even_with_no_minimum():
    out = find_liver(scan(), bright, SAME, policy(minimum_ml=0.0))
    assert not out.found
    assert not out.mask.any()


def test_no_liver_has_no_region_of_interest():
    out = find_liver(scan(), bright, SAME, policy())
    with pytest.raises(ValueError, match="no liver"):
        out.roi(GRID, 10.0)


def test_a_liver_that_was_not_found_has_no_region_of_interest():
    mask = np.ones(GRID.shape, bool)
    with pytest.raises(ValueError, match="no liver"):
        CoarseLiver(mask.astype(np.float32), mask, GRID, found=False).roi(GRID, 10.0)


def test_the_region_of_interest_by_hand():
    # 30 x 24 x 20 mm, seen at 6 mm
    full = Grid((10, 12, 20), (3.0, 2.0, 1.0), (10.0, -20.0, 30.0), AXES)
    coarse = full.respaced((6.0, 6.0, 6.0))
    assert coarse.shape == (5, 4, 3)
    mask = np.zeros(coarse.shape, bool)
    mask[2, 1, 0] = True
    liver = CoarseLiver(mask.astype(np.float32), mask, coarse, found=True)
    assert liver.roi(full, 0.0) == Box((4, 3, 0), (6, 6, 6))
    # 4 mm are 2 slices, 2 rows and 4 columns, and nothing lies before column 0
    assert liver.roi(full, 4.0) == Box((2, 1, 0), (8, 8, 10))


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (7.0, 1.7, 2.3), (0.9, 5.1, 0.4)])
def test_the_region_of_interest_covers_every_coarse_liver_voxel(spacing):
    full = Grid((5, 7, 11), (5.0, 2.0, 0.7), (10.0, -20.0, 30.0), AXES)
    coarse = full.respaced(spacing)
    for index in np.ndindex(coarse.shape):
        mask = np.zeros(coarse.shape, bool)
        mask[index] = True
        box = CoarseLiver(mask.astype(np.float32), mask, coarse, found=True).roi(full, 0.0)
        low, high = (np.array(full.index_at(coarse.position_mm(np.array(index) + half))) + 0.5 for half in (-0.5, 0.5))
        assert (np.minimum(low, np.array(full.shape) - 1) >= np.array(box.start) - 1e-5).all()
        assert (np.minimum(high, full.shape) <= np.array(box.stop) + 1e-5).all()
        # and no whole voxel more, except that the last coarse voxel stands for all that is left
        least = np.ceil(np.maximum(high, np.array(box.start) + 1) - 1e-5)
        last = np.array(index) == np.array(coarse.shape) - 1
        np.testing.assert_array_equal(box.stop, np.where(last, full.shape, np.minimum(least, full.shape)))
