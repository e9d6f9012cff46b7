import numpy as np
import pytest

from preprocess.geometry import Grid
from preprocess.preparation import Preparation
from preprocess.volume import Volume
from stage2_tumor.predict import find_tumor

AXES = ((-2 / 7, -3 / 7, 6 / 7), (-3 / 7, 6 / 7, 2 / 7), (6 / 7, 2 / 7, 3 / 7))
GRID = Grid((5, 9, 13), (5.0, 2.0, 1.0), (10.0, -20.0, 30.0), AXES)
SAME = Preparation(GRID.spacing_mm, (-100.0, 100.0))


def looked_at(liver, reach_mm, preparation=SAME):
    """Where the network is told to look."""
    seen = []

    def infer(hu, where):
        seen.append(where)
        return np.zeros((2, *hu.shape), np.float32)

    find_tumor(Volume(np.zeros(GRID.shape, np.int16), GRID), liver, infer, preparation, reach_mm)
    return seen[0]


def one(*index):
    liver = np.zeros(GRID.shape, bool)
    liver[index] = True
    return liver


@pytest.mark.parametrize(
    ("reach_mm", "steps"), [(0.0, (0, 0, 0)), (1.0, (1, 1, 1)), (4.0, (1, 2, 4)), (5.5, (2, 3, 6))]
)
def test_the_reach_is_in_mm_on_each_axis(reach_mm, steps):
    expected = np.zeros(GRID.shape, bool)
    expected[tuple(slice(c - s, c + s + 1) for c, s in zip((2, 4, 6), steps, strict=True))] = True
    where = looked_at(one(2, 4, 6), reach_mm)
    assert where.dtype == np.bool_
    np.testing.assert_array_equal(where, expected)


def test_the_reach_ends_at_the_region_of_interest():
    where = looked_at(one(0, 8, 0), 4.0)
    expected = np.zeros(GRID.shape, bool)
    expected[:2, 6:, :5] = True
    np.testing.assert_array_equal(where, expected)


def test_no_liver_is_nowhere():
    assert not looked_at(np.zeros(GRID.shape, bool), 100.0).any()


def test_the_liver_is_taken_to_the_working_grid():
    # 2.5 x 6 x 1 mm: 10 slices, 3 rows, 13 columns. Liver slice 2 is new slices 4 and 5 and, by interpolation, a part
    # of 3 and 6; row 4 lies in the middle of new row 1 and gives a share to no other.
    where = looked_at(one(2, 4, 6), 0.0, Preparation((2.5, 6.0, 1.0), (-100.0, 100.0)))
    assert where.shape == (10, 3, 13)
    assert np.argwhere(where).tolist() == [[3, 1, 6], [4, 1, 6], [5, 1, 6], [6, 1, 6]]


def test_a_liver_voxel_is_not_lost_on_a_coarser_grid():
    preparation = Preparation((15.0, 7.0, 5.0), (-100.0, 100.0))
    for index in np.ndindex(GRID.shape):
        assert looked_at(one(*index), 0.0, preparation).any()


def test_channels_are_liver_then_tumour_on_the_working_grid():
    def infer(hu, where):
        return np.stack([(hu + 1) / 2, (1 - hu) / 4]).astype(np.float32)

    hu = np.full(GRID.shape, -100, np.int16)
    hu[1, 2, 3] = 100
    out = find_tumor(Volume(hu, GRID), np.ones(GRID.shape, bool), infer, SAME, 0.0)
    assert out.grid == GRID
    assert np.argwhere(out.liver == 1).tolist() == [[1, 2, 3]]
    assert np.argwhere(out.tumor == 0).tolist() == [[1, 2, 3]]
    assert out.tumor.max() == 0.5


def test_the_network_sees_the_prepared_region():
    preparation = Preparation((2.5, 4.0, 1.0), (-100.0, 100.0))
    hu = np.random.default_rng(1).integers(-1000, 1000, GRID.shape).astype(np.int16)
    seen = []

    def infer(image, where):
        seen.append((image, where))
        return np.zeros((2, *image.shape), np.float32)

    out = find_tumor(Volume(hu, GRID), np.ones(GRID.shape, bool), infer, preparation, 0.0)
    image, where = seen[0]
    np.testing.assert_array_equal(image, preparation.prepared(Volume(hu, GRID)))
    assert out.grid == GRID.respaced((2.5, 4.0, 1.0))
    assert image.shape == where.shape == out.grid.shape == (10, 5, 13)
