import itertools
import math

import numpy as np
import pytest

from preprocess.geometry import CANONICAL_AXES, Box, Grid, index3, reoriented, triple

# Array axes z, y, x as world vectors (x, y, z); a rotation with rational entries, so positions can be done by hand.
AXES = ((-2 / 7, -3 / 7, 6 / 7), (-3 / 7, 6 / 7, 2 / 7), (6 / 7, 2 / 7, 3 / 7))
GRID = Grid(shape=(3, 4, 5), spacing_mm=(7.0, 3.5, 1.4), origin_mm=(10.0, -20.0, 30.0), axes=AXES)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def numbers(shape):
    return np.arange(math.prod(shape)).reshape(shape)


def turned(order, flips):
    """`GRID` and its voxel numbers with array axes in `order`, then flipped, built without the code under test."""
    corner = [0, 0, 0]
    for axis, flip in zip(order, flips, strict=True):
        corner[axis] = GRID.shape[axis] - 1 if flip else 0
    grid = Grid(
        shape=tuple(GRID.shape[a] for a in order),
        spacing_mm=tuple(GRID.spacing_mm[a] for a in order),
        origin_mm=GRID.position_mm(corner),
        axes=tuple(tuple(-v if flip else v for v in AXES[a]) for a, flip in zip(order, flips, strict=True)),
    )
    array = numbers(GRID.shape).transpose(order)
    return grid, np.flip(array, [i for i in range(3) if flips[i]])


def test_triple_and_index3_are_plain_tuples():
    assert triple(np.array([1, 2, 3])) == (1.0, 2.0, 3.0)
    assert all(type(v) is float for v in triple([1, 2, 3]))
    assert all(type(v) is int for v in index3(np.array([1, 2, 3])))
    with pytest.raises(ValueError, match="unpack"):
        triple([1.0, 2.0])


def test_position_by_hand():
    assert GRID.position_mm((0, 0, 0)) == (10.0, -20.0, 30.0)
    assert GRID.position_mm((1, 0, 0)) == pytest.approx((8.0, -23.0, 36.0))
    assert GRID.position_mm((0, 2, 0)) == pytest.approx((7.0, -14.0, 32.0))
    assert GRID.position_mm((0, 0, 5)) == pytest.approx((16.0, -18.0, 33.0))
    assert GRID.position_mm((1, 2, 5)) == pytest.approx((11.0, -15.0, 41.0))
    assert GRID.position_mm((-0.5, 0, 0)) == pytest.approx((11.0, -18.5, 27.0))


def test_canonical_axes_are_head_back_left():
    grid = Grid((2, 3, 4), (5.0, 2.0, 0.5))
    assert grid.position_mm((1, 0, 0)) == (0.0, 0.0, 5.0)
    assert grid.position_mm((0, 1, 0)) == (0.0, 2.0, 0.0)
    assert grid.position_mm((0, 0, 1)) == (0.5, 0.0, 0.0)


@pytest.mark.parametrize("index", [(0, 0, 0), (2, 3, 4), (1, 0, 3), (-0.5, 7.25, 1.5)])
def test_index_at_is_the_inverse_of_position(index):
    assert GRID.index_at(GRID.position_mm(index)) == pytest.approx(index)


def test_index_at_by_hand():
    assert GRID.index_at((11.0, -15.0, 41.0)) == pytest.approx((1, 2, 5))


def test_voxel_ml():
    assert Grid((1, 1, 1), (5.0, 2.0, 0.5)).voxel_ml == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (3, 0, 5)}, r"shape \(3, 0, 5\) has an empty axis"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "is not positive"),
        ({"spacing_mm": (1.0, -1.0, 1.0)}, "is not positive"),
        ({"spacing_mm": (1.0, math.nan, 1.0)}, "is not positive"),
        ({"spacing_mm": (1.0, math.inf, 1.0)}, "is not positive"),
        ({"origin_mm": (0.0, math.nan, 0.0)}, "is not finite"),
        ({"axes": ((0, 0, 1), (0, 1, 0), (0.1, 0, 1))}, "not perpendicular"),
        ({"axes": ((0, 0, 1), (0, 2, 0), (1, 0, 0))}, "not perpendicular"),
        ({"axes": ((0, 0, 1), (0, 0, 1), (1, 0, 0))}, "not perpendicular"),
    ],
)
def test_impossible_grids_are_refused(changes, message):
    fields = {"shape": (3, 4, 5), "spacing_mm": (1.0, 2.0, 3.0)} | changes
    with pytest.raises(ValueError, match=message):
        Grid(**fields)


def test_cropped_voxels_stay_in_place():
    part = GRID.cropped(Box((1, 2, 1), (3, 3, 5)))
    assert part.shape == (2, 1, 4)
    assert (part.spacing_mm, part.axes) == (GRID.spacing_mm, GRID.axes)
    assert part.origin_mm == pytest.approx((10 - 2 - 3 + 1.2, -20 - 3 + 6 + 0.4, 30 + 6 + 2 + 0.6))
    assert part.position_mm((1, 0, 3)) == pytest.approx(GRID.position_mm((2, 2, 4)))


def test_respaced_keeps_the_outer_corner_and_rounds_the_shape():
    new = GRID.respaced((2.0, 4.0, 1.4))
    # 21 mm / 2 = 10.5, up; 14 / 4 = 3.5, up; 7 / 1.4 = 5
    assert new.shape == (11, 4, 5)
    assert new.spacing_mm == (2.0, 4.0, 1.4)
    assert new.axes == GRID.axes
    corner = (-0.5, -0.5, -0.5)
    assert new.position_mm(corner) == pytest.approx(GRID.position_mm(corner))
    # the first centre: z moves by (2 - 7) / 2 mm, y by (4 - 3.5) / 2 mm, x not at all
    step = -2.5 * np.array(AXES[0]) + 0.25 * np.array(AXES[1])
    assert new.origin_mm == pytest.approx(np.array(GRID.origin_mm) + step)


def test_respaced_rounds_to_the_nearest_shape():
    assert Grid((10, 10, 10), (1.0, 1.0, 1.0)).respaced((3.0, 4.0, 6.0)).shape == (3, 3, 2)


def test_respaced_has_at_least_one_voxel():
    assert GRID.respaced((100.0, 100.0, 100.0)).shape == (1, 1, 1)


def test_respaced_to_its_own_spacing_is_the_same_grid():
    assert GRID.respaced(GRID.spacing_mm) == GRID


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_orientation_becomes_canonical_and_comes_back(order, flips):
    grid, array = turned(order, flips)

    canonical = grid.canonical()

    assert canonical.shape == GRID.shape
    assert canonical.spacing_mm == GRID.spacing_mm
    np.testing.assert_allclose(canonical.axes, GRID.axes)
    assert canonical.mismatch_mm(GRID) < 1e-9
    straight = reoriented(array, grid, canonical)
    np.testing.assert_array_equal(straight, numbers(GRID.shape))
    np.testing.assert_array_equal(reoriented(straight, canonical, grid), array)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_a_box_keeps_its_voxels_in_every_orientation(order, flips):
    grid, array = turned(order, flips)
    box = Box((0, 1, 2), (1, 3, 5))

    there = box.reoriented(GRID, grid)

    assert set(array[there.slices].ravel()) == set(numbers(GRID.shape)[box.slices].ravel())
    assert there.reoriented(grid, GRID) == box


def test_turned_voxels_have_the_same_world_position():
    grid, array = turned((2, 0, 1), (True, False, True))
    straight = numbers(GRID.shape)
    for number in (0, 17, 59):
        here, there = np.argwhere(array == number)[0], np.argwhere(straight == number)[0]
        assert grid.position_mm(here) == pytest.approx(GRID.position_mm(there))


def test_canonical_axes_hold_no_negative_zero():
    down = Grid((2, 3, 4), (1.0, 2.0, 3.0), axes=((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)))
    axes = down.canonical().axes
    assert axes == CANONICAL_AXES
    assert all(math.copysign(1, v) == 1 for axis in axes for v in axis)


def test_reoriented_is_a_view():
    grid, array = turned((1, 2, 0), (True, True, False))
    assert np.shares_memory(reoriented(array, grid, GRID), array)


def test_reoriented_refuses_another_shape():
    with pytest.raises(ValueError, match="not the same voxels: "):
        reoriented(numbers(GRID.shape), GRID, GRID.cropped(Box((0, 0, 0), (3, 4, 4))))


def test_reoriented_refuses_a_grid_turned_by_45_degrees():
    half = math.sqrt(0.5)
    source = Grid((2, 2, 2), (1.0, 1.0, 1.0))
    target = Grid((2, 2, 2), (1.0, 1.0, 1.0), axes=((half, 0, half), (0, 1, 0), (half, 0, -half)))
    with pytest.raises(ValueError, match="not the same voxels: "):
        reoriented(numbers((2, 2, 2)), source, target)


@pytest.mark.parametrize(
    "target",
    [
        Grid((3, 4, 5), (7.0, 3.5, 1.4), (110.0, -20.0, 30.0), AXES),
        Grid((3, 4, 5), (7.0, 3.5, 2.8), (10.0, -20.0, 30.0), AXES),
        Grid((3, 4, 5), (7.0, 3.5, 1.4), (10.0, -20.0, 30.0), CANONICAL_AXES),
    ],
    ids=["100 mm away", "other spacing", "other angle"],
)
def test_reoriented_refuses_other_voxels(target):
    with pytest.raises(ValueError, match="not the same voxels: "):
        reoriented(numbers(GRID.shape), GRID, target)


def test_reoriented_takes_the_rounding_of_a_header_for_the_same_voxels():
    def moved(mm):
        return Grid(GRID.shape, GRID.spacing_mm, (10.0 + mm, -20.0, 30.0), AXES)

    np.testing.assert_array_equal(reoriented(numbers(GRID.shape), GRID, moved(0.005)), numbers(GRID.shape))
    with pytest.raises(ValueError, match="not the same voxels: "):
        reoriented(numbers(GRID.shape), GRID, moved(0.02))


def test_an_oblique_scan_is_reoriented_halfway_between_two_axes_too():
    half = math.sqrt(0.5)
    source = Grid((2, 3, 4), (1.0, 2.0, 3.0), axes=((half, 0, half), (0, 1, 0), (half, 0, -half)))
    target = Grid((4, 3, 2), (3.0, 2.0, 1.0), axes=source.axes[::-1])
    np.testing.assert_array_equal(reoriented(numbers((2, 3, 4)), source, target), numbers((2, 3, 4)).T)


def test_mismatch_is_the_largest_corner_distance():
    other = Grid(GRID.shape, GRID.spacing_mm, (13.0, -16.0, 30.0), AXES)
    assert GRID.mismatch_mm(GRID) == 0
    assert GRID.mismatch_mm(other) == pytest.approx(5.0)
    # the last voxel of x is 4 * 0.1 mm further away, the origin the same
    assert GRID.mismatch_mm(Grid(GRID.shape, (7.0, 3.5, 1.5), GRID.origin_mm, AXES)) == pytest.approx(0.4)
    assert GRID.mismatch_mm(GRID.cropped(Box((0, 0, 0), (3, 4, 4)))) == math.inf


def test_box_around_by_hand():
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[1, 0, 4] = mask[2, 2, 3] = 7
    assert Box.around(mask) == Box((1, 0, 3), (3, 3, 5))
    assert Box.around(np.zeros((3, 4, 5), bool)) is None


def test_box_around_is_the_inverse_of_slices():
    box = Box((1, 0, 2), (3, 2, 5))
    mask = np.zeros((3, 4, 5), bool)
    mask[box.slices] = True
    assert mask.sum() == 2 * 2 * 3
    assert Box.around(mask) == box
    assert box.shape == (2, 2, 3)
    assert Box.whole(GRID) == Box((0, 0, 0), (3, 4, 5))


@pytest.mark.parametrize(("start", "stop"), [((0, 2, 0), (1, 2, 1)), ((0, 0, 3), (1, 1, 2)), ((-1, 0, 0), (1, 1, 1))])
def test_empty_boxes_are_refused(start, stop):
    with pytest.raises(ValueError, match="is empty or starts below 0"):
        Box(start, stop)


def test_grown_is_in_mm_per_axis_and_rounds_up():
    grid = Grid((20, 20, 20), (5.0, 2.0, 0.9))
    # 4 mm: 1 voxel of 5 mm, 2 of 2 mm, 5 of 0.9 mm
    assert Box((8, 8, 8), (9, 10, 11)).grown(4.0, grid) == Box((7, 6, 3), (10, 12, 16))
    assert Box((8, 8, 8), (9, 10, 11)).grown(0.0, grid) == Box((8, 8, 8), (9, 10, 11))


def test_grown_is_clipped_to_the_grid():
    assert Box((0, 1, 4), (2, 2, 5)).grown(5.0, GRID) == Box((0, 0, 0), (3, 4, 5))


def test_onto_finer_and_coarser_by_hand():
    source = Grid((10, 10, 10), (2.0, 3.0, 4.0))
    target = source.respaced((1.0, 1.5, 8.0))
    # x: source 3..6 is target 1.5..3, so every target voxel it touches is 1..3
    assert Box((1, 2, 3), (4, 5, 6)).onto(source, target) == Box((2, 4, 1), (8, 10, 3))


def test_onto_does_not_grow_by_rounding_noise():
    # 9 * (0.4 / 0.3) is 12.000000000000002, 7 * (0.4 / 0.7) is 4.000000000000001, 0.3 / 0.1 is 2.9999999999999996
    source = Grid((10, 10, 10), (0.4, 0.4, 0.3))
    target = source.respaced((0.3, 0.7, 0.1))
    assert Box((6, 0, 1), (9, 7, 2)).onto(source, target) == Box((8, 0, 3), (12, 4, 6))


def test_onto_stays_inside_a_shorter_target():
    source = Grid((10, 10, 10), (1.0, 1.0, 1.0))
    target = source.respaced((3.0, 3.0, 3.0))
    assert target.shape == (3, 3, 3)
    # voxel 9 lies beyond the last coarse voxel, which ends at 9 mm
    assert Box((9, 0, 8), (10, 10, 10)).onto(source, target) == Box((2, 0, 2), (3, 3, 3))


def test_onto_reaches_the_end_of_a_finer_target_that_is_longer():
    target = Grid((10, 10, 11), (1.0, 1.0, 1.0))
    source = target.respaced((3.0, 4.0, 4.0))
    assert source.shape == (3, 3, 3)  # 9, 12 and 12 mm of 10, 10 and 11
    assert Box((2, 2, 2), (3, 3, 3)).onto(source, target) == Box((6, 8, 8), (10, 10, 11))
    assert Box.whole(source).onto(source, target) == Box.whole(target)
    # no axis is stretched that does not reach the end
    assert Box((1, 1, 0), (2, 3, 2)).onto(source, target) == Box((3, 4, 0), (6, 10, 8))
