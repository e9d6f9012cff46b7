import numpy as np

from preprocess.components import components, fill_holes, largest


def mask(*slices):
    """A mask (z, y, x) from rows of text, `#` is inside."""
    return np.array([[[c == "#" for c in row] for row in rows] for rows in slices])


def test_parts_are_numbered_and_counted():
    numbered, sizes = components(mask(["##.#", "....", "#..."]))
    np.testing.assert_array_equal(numbered, [[[1, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0]]])
    assert sizes.tolist() == [8, 2, 1, 1]


def test_an_empty_mask_has_only_background():
    assert components(np.zeros((2, 3, 4), bool))[1].tolist() == [24]


def test_a_full_mask_has_no_background():
    assert components(np.ones((2, 3, 4), bool))[1].tolist() == [0, 24]


def test_neighbours_share_a_face():
    assert len(components(mask(["#.", ".#"]))[1]) == 3
    assert len(components(mask(["#.", ".."], [".#", ".."]))[1]) == 3
    assert len(components(mask(["#.", ".."], ["..", ".#"]))[1]) == 3
    assert len(components(mask(["#.", ".."], ["#.", ".."]))[1]) == 2


def test_largest_part():
    np.testing.assert_array_equal(largest(mask(["#..##", "#...#"])), mask(["...##", "....#"]))


def test_largest_of_equal_parts_is_the_first():
    np.testing.assert_array_equal(largest(mask(["..#", "#..", "#.#"])), mask(["...", "#..", "#.."]))
    np.testing.assert_array_equal(largest(mask(["..#", "...", "#.."])), mask(["..#", "...", "..."]))


def test_largest_of_nothing_is_nothing():
    out = largest(np.zeros((2, 3, 4), bool))
    assert (out.shape, out.dtype, out.any()) == ((2, 3, 4), np.bool_, False)


FULL = ["#####", "#####", "#####"]


def test_a_hole_inside_is_filled():
    hollow = mask(FULL, ["#####", "#...#", "#####"], FULL)
    np.testing.assert_array_equal(fill_holes(hollow), mask(FULL, FULL, FULL))


def test_a_ring_that_is_open_above_is_not_filled():
    bowl = mask(FULL, ["#####", "#...#", "#####"], ["#####", "##.##", "#####"])
    np.testing.assert_array_equal(fill_holes(bowl), bowl)


def test_a_gap_at_the_border_of_the_image_is_no_hole():
    open_left = mask(FULL, ["#####", "..###", "#####"], FULL)
    np.testing.assert_array_equal(fill_holes(open_left), open_left)


def test_a_hole_that_leaks_only_over_an_edge_is_filled():
    # two voxels of background that share an edge, not a face
    leak = mask(FULL, [".####", "#.###", "#####"], FULL)
    np.testing.assert_array_equal(fill_holes(leak), mask(FULL, [".####", "#####", "#####"], FULL))


def test_holes_are_filled_wherever_the_mask_lies():
    hollow = np.zeros((6, 7, 8), bool)
    hollow[1:4, 2:5, 4:7] = True
    hollow[2, 3, 5] = False
    full = hollow.copy()
    full[2, 3, 5] = True
    before = hollow.copy()
    np.testing.assert_array_equal(fill_holes(hollow), full)
    np.testing.assert_array_equal(hollow, before)


def test_filling_nothing_gives_a_new_empty_mask():
    empty = np.zeros((2, 3, 4), bool)
    out = fill_holes(empty)
    assert not out.any()
    assert out is not empty
