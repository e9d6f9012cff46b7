"""ASSD, RMSD and MSD where the answer is known, and against MedPy where the definitions agree."""

import math

import numpy as np
import pytest
from medpy.metric import binary
from scipy import ndimage

from evaluate.surface import surface_distances, surface_voxels
from tests.evaluate.shapes import ball, block, rough_pair

UNIT = (1.0, 1.0, 1.0)


def test_the_surface_of_a_box_is_its_outer_layer():
    box = block((7, 8, 9), (1, 5), (1, 6), (1, 7))
    assert np.array_equal(surface_voxels(box), box & ~block((7, 8, 9), (2, 4), (2, 5), (2, 6)))


def test_a_voxel_that_lacks_only_a_neighbour_across_an_edge_is_surface_across_a_corner_not():
    whole = np.ones((5, 5, 5), bool)
    for missing, is_surface in (((2, 1, 1), True), ((1, 1, 1), False)):
        mask = whole.copy()
        mask[missing] = False
        assert surface_voxels(mask)[2, 2, 2] == is_surface


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_surface_is_the_mask_less_its_erosion_with_the_18_neighbourhood(seed):
    mask = np.random.default_rng(seed).random((6, 7, 8)) < 0.93
    eroded = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 2))
    assert np.array_equal(surface_voxels(mask), mask ^ eroded)


def test_the_border_of_the_array_is_a_surface():
    assert surface_voxels(np.ones((3, 3, 3), bool)).sum() == 26
    assert surface_voxels(np.ones((1, 4, 4), bool)).all()


def test_planes_two_and_a_half_voxels_apart():
    # Two sheets of one voxel, 5 slices of 2.5 mm apart: every distance is 12.5 mm.
    a, b = block((8, 6, 5), (1, 2), (0, 6), (0, 5)), block((8, 6, 5), (6, 7), (0, 6), (0, 5))
    distances = surface_distances(a, b, (2.5, 0.7, 0.9))
    assert (distances.assd, distances.rmsd, distances.msd) == pytest.approx((12.5, 12.5, 12.5))


def test_a_box_and_the_same_box_longer_by_one_slice_touching_the_border():
    # 3 x 3 x 3 at the border and 4 x 3 x 3: A has 26 surface voxels, B 34. All of A is in B's surface except the middle
    # of its last slice, 2 mm from the middle of B's last; the 9 voxels of that slice are 2 mm from A's last slice; the
    # other surface voxels of B are A's.
    a, b = block((5, 4, 4), (0, 3), (0, 3), (0, 3)), block((5, 4, 4), (0, 4), (0, 3), (0, 3))
    distances = surface_distances(a, b, (2.0, 5.0, 5.0))
    assert distances.assd == pytest.approx((1 * 2 + 9 * 2) / (26 + 34))
    assert distances.rmsd == pytest.approx(math.sqrt((1 * 4 + 9 * 4) / (26 + 34)))
    assert distances.msd == 2.0


def test_one_voxel_against_one_voxel():
    a, b = block((4, 5, 6), (0, 1), (0, 1), (0, 1)), block((4, 5, 6), (3, 4), (4, 5), (0, 1))
    expected = math.hypot(3 * 1.5, 4 * 0.5)
    distances = surface_distances(a, b, (1.5, 0.5, 9.0))
    assert (distances.assd, distances.rmsd, distances.msd) == pytest.approx((expected, expected, expected))


def test_one_voxel_in_a_box_counts_both_ways():
    # The middle of 3 x 3 x 3 is 1 mm from 6 voxels, sqrt(2) from 12 and sqrt(3) from 8; and 1 mm from the surface.
    a, b = block((3, 3, 3), (1, 2), (1, 2), (1, 2)), np.ones((3, 3, 3), bool)
    distances = surface_distances(a, b, UNIT)
    assert distances.assd == pytest.approx((1 + 6 + 12 * math.sqrt(2) + 8 * math.sqrt(3)) / 27)
    assert distances.rmsd == pytest.approx(math.sqrt((1 + 6 + 12 * 2 + 8 * 3) / 27))
    assert distances.msd == pytest.approx(math.sqrt(3))


def test_concentric_balls_are_their_difference_in_radius_apart_to_half_a_voxel():
    # A surface is a layer of voxel centres up to a voxel deep, so two of them come a little closer than the balls.
    spacing = (0.9, 0.5, 0.6)
    shape = (40, 70, 60)
    small, large = (ball(shape, (17.5, 17.5, 17.5), radius, spacing) for radius in (10.0, 14.0))
    distances = surface_distances(small, large, spacing)
    assert distances.assd == pytest.approx(4.0, abs=0.45)
    assert distances.rmsd == pytest.approx(4.0, abs=0.45)
    assert distances.msd == pytest.approx(4.0, abs=0.9)


def test_equal_masks_are_no_distance_apart():
    mask = ball((9, 9, 9), (4, 4, 4), 3.2, UNIT)
    distances = surface_distances(mask, mask.copy(), UNIT)
    assert (distances.assd, distances.rmsd, distances.msd) == (0.0, 0.0, 0.0)


def test_distances_are_symmetric():
    a, b, spacing = rough_pair(4)
    assert surface_distances(a, b, spacing) == surface_distances(b, a, spacing)


def test_an_empty_mask_is_refused():
    mask, nothing = np.ones((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    for pair in ((mask, nothing), (nothing, mask), (nothing, nothing)):
        with pytest.raises(ValueError, match="no surface"):
            surface_distances(*pair, UNIT)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_medpy_agrees_where_its_definition_does(seed):
    a, b, spacing = rough_pair(seed)
    distances = surface_distances(a, b, spacing)
    assert distances.msd == pytest.approx(binary.hd(a, b, voxelspacing=spacing, connectivity=2))
    assert distances.assd == pytest.approx(binary.assd(a, b, voxelspacing=spacing, connectivity=2))
    # Its default, the 6-neighbourhood, leaves voxels out of the surface that LiTS has in it.
    assert abs(distances.assd - binary.assd(a, b, voxelspacing=spacing)) > 1e-3
