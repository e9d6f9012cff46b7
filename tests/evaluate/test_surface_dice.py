"""The surface Dice where the answer is known, and against the `surface-distance` package of its authors."""

import itertools
import math

import numpy as np
import pytest
import surface_distance as package
from surface_distance import lookup_tables as tables

from evaluate.surface import surface_distances
from evaluate.surface_dice import corner_codes, patch_areas_mm2, surface_dice
from tests.evaluate.shapes import ball, block, rough_pair

TOLERANCES = (1.0, 2.0, 3.0)

#: The package asks scipy for names that are on their way out.
old_names = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_the_area_of_a_flat_patch_is_a_voxel_face():
    areas = patch_areas_mm2((5.0, 2.0, 0.5))
    assert (areas[0b00001111], areas[0b00110011], areas[0b01010101]) == pytest.approx((2 * 0.5, 5 * 0.5, 5 * 2))


def test_the_area_of_a_corner_is_a_triangle_between_three_edge_middles():
    # Legs 2.5, 1 and 0.25 mm: the area of the triangle is half the length of the cross product of two sides.
    expected = math.sqrt((1 * 0.25) ** 2 + (2.5 * 0.25) ** 2 + (2.5 * 1) ** 2) / 2
    areas = patch_areas_mm2((5.0, 2.0, 0.5))
    assert [areas[1 << bit] for bit in range(8)] == pytest.approx([expected] * 8)


def test_a_block_and_its_complement_have_one_surface():
    areas = patch_areas_mm2((2.0, 1.3, 0.7))
    assert np.array_equal(areas, areas[::-1])
    assert areas[0] == areas[255] == 0
    assert (areas[1:255] > 0).all()


def test_corner_codes_name_the_voxels_around_a_corner():
    mask = block((2, 3, 4), (1, 2), (2, 3), (3, 4))
    codes = corner_codes(mask)
    assert codes.shape == (3, 4, 5)
    for z, y, x in itertools.product(range(2), repeat=3):
        # The corner before the voxel along an axis sees it as the far one.
        assert codes[1 + z, 2 + y, 3 + x] == 1 << ((1 - z) * 4 + (1 - y) * 2 + (1 - x))
    assert np.count_nonzero(codes) == 8


def test_equal_masks_agree_wholly():
    mask = ball((9, 9, 9), (4, 4, 4), 3.2, (1.0, 1.0, 1.0))
    assert surface_dice(mask, mask.copy(), (1.0, 1.0, 1.0), TOLERANCES) == (1.0, 1.0, 1.0)


def test_sheets_agree_as_soon_as_the_tolerance_reaches_their_distance():
    # Sheets of one voxel, moved by 2 slices of 1 mm: all of both surfaces is 1 mm or 2 mm apart.
    a, b = block((6, 5, 7), (1, 2), (0, 5), (0, 7)), block((6, 5, 7), (3, 4), (0, 5), (0, 7))
    nsd = surface_dice(a, b, (1.0, 1.0, 1.0), TOLERANCES)
    assert nsd[0] == pytest.approx(0.5)
    assert nsd[1:] == (1.0, 1.0)


def test_a_distance_equal_to_the_tolerance_is_within_it_whatever_the_rounding():
    # 10 x 0.1 mm is not 1 mm in binary.
    a, b = block((15, 1, 1), (1, 2), (0, 1), (0, 1)), block((15, 1, 1), (11, 12), (0, 1), (0, 1))
    assert surface_dice(a, b, (0.1, 1.0, 1.0), (1.0,)) == (1.0,)


def test_one_voxel_far_away_does_not_agree():
    a, b = block((9, 9, 9), (0, 1), (0, 1), (0, 1)), block((9, 9, 9), (8, 9), (8, 9), (8, 9))
    assert surface_dice(a, b, (1.0, 1.0, 1.0), TOLERANCES) == (0.0, 0.0, 0.0)


def test_an_empty_mask_is_refused():
    mask, nothing = np.ones((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    for pair in ((mask, nothing), (nothing, mask), (nothing, nothing)):
        with pytest.raises(ValueError, match="no surface"):
            surface_dice(*pair, (1.0, 1.0, 1.0), TOLERANCES)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.3, 0.7)])
def test_every_patch_has_the_area_of_the_authors_table(spacing):
    theirs = tables.create_table_neighbour_code_to_surface_area(spacing)
    # They number the eight voxels from the last to the first.
    reversed_bits = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    np.testing.assert_allclose(patch_areas_mm2(spacing)[reversed_bits], theirs, atol=1e-6)


@old_names
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_authors_package_agrees(seed):
    a, b, spacing = rough_pair(seed)
    theirs = package.compute_surface_distances(a, b, spacing)
    expected = [package.compute_surface_dice_at_tolerance(theirs, t) for t in TOLERANCES]
    assert surface_dice(a, b, spacing, TOLERANCES) == pytest.approx(expected, abs=1e-12)


@old_names
def test_the_authors_average_distance_is_another_one_than_assd():
    """Theirs is measured between corner points, weighs by area, and comes one way at a time."""
    a, b, spacing = rough_pair(1)
    there, back = package.compute_average_surface_distance(package.compute_surface_distances(a, b, spacing))
    assert abs(surface_distances(a, b, spacing).assd - (there + back) / 2) > 0.02
