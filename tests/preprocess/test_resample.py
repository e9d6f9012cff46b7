import re

import numpy as np
import pytest

from preprocess.geometry import Box, Grid, reoriented
from preprocess.resample import resample_labels, resampled, slabs
from preprocess.volume import LabelMap

AXES = ((-2 / 7, -3 / 7, 6 / 7), (-3 / 7, 6 / 7, 2 / 7), (6 / 7, 2 / 7, 3 / 7))
GRID = Grid(shape=(6, 8, 10), spacing_mm=(7.0, 3.5, 1.4), origin_mm=(10.0, -20.0, 30.0), axes=AXES)
#: Finer along z, coarser along y, a little coarser along x.
TARGET = GRID.respaced((2.0, 7.0, 1.5))


def line(values, axis, dtype=np.float32):
    """`values` along one axis of an array that is 2 and 3 long along the others, and its grid of 1 mm."""
    shape = [2, 2, 3]
    shape[axis] = len(values)
    around = [1, 1, 1]
    around[axis] = len(values)
    array = np.broadcast_to(np.array(values, dtype).reshape(around), shape)
    return array, Grid(tuple(shape), (1.0, 1.0, 1.0))


def respaced_line(values, axis, spacing, dtype=np.float32):
    """The line after resampling along `axis`; every parallel line must say the same."""
    array, grid = line(values, axis, dtype)
    target = grid.respaced(tuple(spacing if a == axis else 1.0 for a in range(3)))
    out = np.moveaxis(resampled(array, grid, target), axis, 0).reshape(target.shape[axis], -1)
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :1], out.shape), rtol=1e-6)
    return out[:, 0]


def field(grid):
    """A function that is linear in the world, at the voxels of `grid`."""
    steps = [np.arange(n) * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*steps, indexing="ij")
    place = [grid.origin_mm[i] + z * grid.axes[0][i] + y * grid.axes[1][i] + x * grid.axes[2][i] for i in range(3)]
    return (place[0] + 2 * place[1] - 3 * place[2]).astype(np.float32)


def noise(shape=GRID.shape, dtype=np.int16):
    return np.random.default_rng(1).integers(-1000, 1000, shape).astype(dtype)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_finer_is_linear_between_centres_and_flat_beyond_them(axis):
    # centres of the new voxels at -0.25, 0.25, 0.75, 1.25 old voxels
    np.testing.assert_allclose(respaced_line([0, 8], axis, 0.5), [0, 2, 6, 8])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_twice_as_coarse_weighs_by_hand(axis):
    # weights 3 3 1 (of 7) at the rim, 1 3 3 1 (of 8) inside
    expected = [8 / 7, 5.0, 11 / 7]
    np.testing.assert_allclose(respaced_line([0, 0, 8, 5, 1, 1], axis, 2.0), expected, rtol=1e-6)


def test_a_centre_beyond_the_last_voxel_is_moved_onto_it():
    # 5 mm become 3 voxels of 2 mm, the last one centred at 4.5 old voxels: weights 1 2 (of 3) as for 4.0
    assert respaced_line([0, 0, 0, 0, 9], 0, 2.0)[2] == pytest.approx(6)


def test_three_times_as_coarse_weighs_by_hand():
    # 1 2 3 2 1 of 9 around the middle voxel
    row = respaced_line([0, 0, 9, 18, 27, 9, 0, 0, 0], 0, 3.0)
    assert row[1] == pytest.approx((9 * 1 + 18 * 2 + 27 * 3 + 9 * 2 + 0) / 9)


@pytest.mark.parametrize("spacing", [4.0, 5.0, 3.3])
def test_every_voxel_counts_when_going_coarser(spacing):
    for index in range(20):
        assert respaced_line(np.eye(20)[index], 1, spacing).max() > 0


def test_noise_averages_out():
    row = respaced_line(np.tile([-100.0, 100.0], 32), 2, 8.0)
    np.testing.assert_allclose(row[1:-1], 0, atol=1e-4)


@pytest.mark.parametrize("spacing", [0.3, 0.7, 1.0, 1.7, 2.0, 5.0, 100.0])
def test_a_constant_stays_constant(spacing):
    target = GRID.respaced((spacing, 2 * spacing, spacing / 2))
    np.testing.assert_allclose(resampled(np.full(GRID.shape, 777, np.int16), GRID, target), 777, rtol=1e-6)


def test_a_ramp_is_kept_going_finer_on_an_oblique_grid():
    target = GRID.respaced((2.0, 1.0, 0.7))
    out = resampled(field(GRID), GRID, target)
    # beyond the outermost old centres the value is held: at most half an old voxel, 2, 2 and 1 new ones
    inner = (slice(2, -2), slice(2, -2), slice(1, -1))
    np.testing.assert_allclose(out[inner], field(target)[inner], rtol=1e-5, atol=1e-4)


def test_a_ramp_is_kept_going_coarser_by_whole_numbers_on_an_oblique_grid():
    grid = Grid((12, 18, 16), (1.0, 2.0, 0.5), GRID.origin_mm, AXES)
    target = grid.respaced((2.0, 6.0, 2.0))
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(resampled(field(grid), grid, target)[inner], field(target)[inner], rtol=1e-5, atol=1e-4)


def test_a_ramp_is_nearly_kept_going_coarser_by_a_fraction():
    row = respaced_line(np.arange(40.0), 0, 1.5)
    centres = (np.arange(len(row)) + 0.5) * 1.5 - 0.5
    np.testing.assert_allclose(row[1:-1], centres[1:-1], atol=0.05)


def test_the_same_grid_gives_the_same_numbers():
    np.testing.assert_array_equal(resampled(noise(), GRID, GRID), noise())


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float16, np.float64, bool])
def test_any_scalar_type_gives_float32(dtype):
    row = respaced_line([0, 1], 0, 0.5, dtype)
    assert row.dtype == np.float32
    np.testing.assert_allclose(row, [0, 0.25, 0.75, 1])


@pytest.mark.parametrize("target", [TARGET, GRID, GRID.respaced((2.0, 1.0, 5.0))])
def test_a_box_equals_the_part_of_the_whole(target):
    box = Box((1, 1, 0), (2, 3, 2)) if target is not GRID else Box((5, 2, 3), (6, 8, 4))
    whole = resampled(noise(), GRID, target)
    np.testing.assert_allclose(resampled(noise(), GRID, target, box), whole[box.slices], rtol=1e-5, atol=1e-3)


def test_every_single_voxel_box_equals_the_whole():
    whole = resampled(noise(), GRID, TARGET)
    for index in [(0, 0, 0), (20, 3, 8), (7, 2, 5)]:
        box = Box(index, tuple(i + 1 for i in index))
        np.testing.assert_allclose(resampled(noise(), GRID, TARGET, box)[0, 0, 0], whole[index], rtol=1e-5, atol=1e-3)


def test_slabs_are_the_slices_of_the_whole():
    whole = resampled(noise(), GRID, TARGET)
    slices = list(slabs(noise(), GRID, TARGET))
    assert len(slices) == TARGET.shape[0] == 21
    np.testing.assert_array_equal(np.stack(slices), whole)


@pytest.mark.parametrize("box", [None, Box((1, 1, 0), (9, 3, 5))])
def test_values_are_clipped_before_they_are_mixed(box):
    clipped = list(slabs(noise().clip(-160, 240), GRID, TARGET, box))
    np.testing.assert_array_equal(list(slabs(noise(), GRID, TARGET, box, clip=(-160.0, 240.0))), clipped)


def test_the_origin_does_not_matter_bit_for_bit():
    moved = Grid(GRID.shape, GRID.spacing_mm, (-1234.56789, 0.1, 987.654321), AXES)
    first = resampled(noise(), GRID, TARGET)
    np.testing.assert_array_equal(resampled(noise(), moved, moved.respaced(TARGET.spacing_mm)), first)


def test_a_turned_view_gives_the_same_bits_as_a_copy():
    source = Grid((10, 6, 8), (1.4, 7.0, 3.5), axes=((-1, 0, 0), (0, 0, 1), (0, 1, 0)))
    grid = source.canonical()
    view = reoriented(noise(source.shape), source, grid)
    target = grid.respaced((2.0, 7.0, 1.5))
    np.testing.assert_array_equal(resampled(view, grid, target), resampled(view.copy(), grid, target))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_grids_without_a_common_corner_are_refused(axis):
    origin = [*TARGET.origin_mm]
    origin[axis] += 0.02
    with pytest.raises(ValueError, match="do not share a corner"):
        resampled(noise(), GRID, Grid(TARGET.shape, TARGET.spacing_mm, tuple(origin), AXES))


def test_float_noise_of_a_corner_is_accepted():
    near = Grid(TARGET.shape, TARGET.spacing_mm, tuple(v + 1e-3 for v in TARGET.origin_mm), AXES)
    np.testing.assert_array_equal(resampled(noise(), GRID, near), resampled(noise(), GRID, TARGET))


def test_grids_of_other_directions_are_refused():
    # the outer corner of both is 0, 0, 0
    one = Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    other = Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), ((0, 1, 0), (0, 0, 1), (1, 0, 0)))
    with pytest.raises(ValueError, match="do not share a corner and axes"):
        resampled(np.zeros((2, 2, 2)), one, other)


def test_a_grid_with_the_same_first_centre_does_not_share_the_corner():
    same_centre = Grid((3, 8, 10), (14.0, 3.5, 1.4), GRID.origin_mm, AXES)
    with pytest.raises(ValueError, match="do not share a corner"):
        resampled(noise(), GRID, same_centre)


@pytest.mark.parametrize("shape", [(6, 8, 9), (7, 8, 10), (6, 10, 8), (6, 8)])
def test_an_array_that_does_not_fit_its_grid_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"array of shape {shape} on a grid of shape (6, 8, 10)")):
        next(slabs(noise(shape), GRID, TARGET))


def labels_of(values, spacing, axis=0):
    array, grid = line(values, axis, np.uint8)
    target = grid.respaced(tuple(spacing if a == axis else 1.0 for a in range(3)))
    out = resample_labels(LabelMap(array.copy(), grid), target)
    assert out.grid == target
    return np.moveaxis(out.array, axis, 0)[:, 0, 0].tolist()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labels_move_their_edge_to_the_half(axis):
    # between centres 0 and 1 the new voxels lie at 1/8, 3/8, 5/8, 7/8
    assert labels_of([0, 1], 0.25, axis) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_exactly_one_half_is_kept():
    # thirds: the middle of three new voxels lies exactly between the old ones
    assert labels_of([1, 0], 2 / 3) == [1, 1, 0]


def test_a_tumour_beside_background_has_no_rim_of_liver():
    assert labels_of([0, 2], 0.25) == [0, 0, 0, 0, 2, 2, 2, 2]


def test_labels_do_not_change_on_their_own_grid():
    assert labels_of([0, 2, 1, 0, 2], 1.0) == [0, 2, 1, 0, 2]


def test_no_label_stays_no_label():
    assert labels_of([0, 0, 0], 0.4) == [0] * 8


def test_classes_stay_nested():
    array = np.random.default_rng(2).integers(0, 3, GRID.shape).astype(np.uint8)
    target = GRID.respaced((3.0, 2.0, 2.5))
    both = resample_labels(LabelMap(array, GRID), target).array
    liver = resample_labels(LabelMap((array > 0).astype(np.uint8), GRID), target).array
    tumor = resample_labels(LabelMap((array > 1).astype(np.uint8), GRID), target).array
    assert tumor.any()
    np.testing.assert_array_equal(both > 0, liver > 0)
    np.testing.assert_array_equal(both > 1, tumor > 0)
    assert not (tumor > liver).any()
