import numpy as np

from preprocess.geometry import Box, Grid
from stage2_tumor.patches import POOLS, training_box, validation_box

GRID = Grid((40, 60, 100), (5.0, 2.0, 1.0))


def labels():
    array = np.zeros((3, 4, 5), np.uint8)
    array[1, 1, 1:4] = 1
    array[1, 1, 2] = 2
    return array


def test_pools_by_hand():
    assert list(POOLS) == ["lesion", "liver", "outside"]
    assert POOLS["liver"](labels()).tolist() == [26, 27, 28]
    assert POOLS["outside"](labels()).tolist() == [*range(26), *range(29, 60)]
    assert set(POOLS["lesion"](labels()).tolist()) == {27}


def test_every_lesion_has_as_many_candidates_whatever_its_size():
    array = np.zeros((12, 14, 16), np.uint8)
    array[1:11, 2:12, 3:13] = 2  # 1000 voxels
    array[0, 0, 0] = 2
    array[11, 13, 10:16] = 2
    pool = POOLS["lesion"](array)
    assert (array.ravel()[pool] == 2).all()
    z, _, x = np.unravel_index(pool, array.shape)
    assert [(z == 0).sum(), (z == 11).sum(), len(pool)] == [64, 64, 192]
    # the small ones are used in full, the large one all over
    assert set(x[z == 11]) == set(range(10, 16))
    large = (z > 0) & (z < 11)
    assert len(set(pool[large])) > 60
    assert (z[large].min(), z[large].max()) == (1, 10)


def test_lesions_that_touch_at_an_edge_are_two():
    array = np.zeros((3, 4, 5), np.uint8)
    array[0, 0, 0] = array[0, 1, 1] = array[0, 1, 2] = 2
    assert np.bincount(POOLS["lesion"](array)).tolist() == [64, 0, 0, 0, 0, 0, 32, 32]


def test_a_scan_of_tumour_alone_has_candidates():
    pool = POOLS["lesion"](np.full((2, 3, 4), 2, np.uint8))
    assert set(pool.tolist()) == set(range(24))


def test_no_lesion_gives_no_candidate():
    for array in (np.zeros((2, 3, 4), np.uint8), np.ones((2, 3, 4), np.uint8)):
        pool = POOLS["lesion"](array)
        assert pool.size == 0
        assert np.issubdtype(pool.dtype, np.integer)


def test_boxes_grow_around_liver_and_tumour_in_mm():
    array = np.zeros(GRID.shape, np.uint8)
    array[20, 30, 50] = 1
    array[21, 30, 50] = 2
    # 40 mm are 8 slices, 20 rows, 40 columns
    assert training_box(array, GRID) == Box((12, 10, 10), (30, 51, 91))
    # 10 mm are 2 slices, 5 rows, 10 columns
    assert validation_box(array, GRID) == Box((18, 25, 40), (24, 36, 61))


def test_no_liver_is_the_whole_scan():
    array = np.zeros(GRID.shape, np.uint8)
    assert training_box(array, GRID) == validation_box(array, GRID) == Box((0, 0, 0), GRID.shape)
