"""Labels on another grid of the same space."""

import dataclasses

import numpy as np
import pytest

from evaluate.placing import beyond_mm, placed_on
from preprocess.geometry import Grid
from preprocess.volume import LabelMap

GRID = Grid(shape=(4, 5, 6), spacing_mm=(5.0, 2.0, 0.5), origin_mm=(10.0, -20.0, 30.0))


def some_labels(grid=GRID):
    return LabelMap(np.random.default_rng(1).integers(0, 3, grid.shape).astype(np.uint8), grid)


def test_the_same_grid_changes_nothing():
    labels = some_labels()
    assert np.array_equal(placed_on(labels, GRID).array, labels.array)


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 2, 0), (0, 0, -3)])
def test_a_shifted_grid_sees_the_same_voxels_and_background_outside(shift):
    labels = some_labels()
    moved = dataclasses.replace(GRID, origin_mm=GRID.position_mm(shift))
    expected = np.zeros_like(labels.array)
    inside = [slice(max(0, s), n + min(0, s)) for s, n in zip(shift, GRID.shape, strict=True)]
    there = [slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, GRID.shape, strict=True)]
    expected[tuple(there)] = labels.array[tuple(inside)]
    assert np.array_equal(placed_on(labels, moved).array, expected)


def test_a_finer_grid_cuts_between_voxels_and_keeps_the_outer_edge():
    labels = LabelMap(np.array([0, 1, 2, 0, 1], np.uint8).reshape(1, 1, 5), Grid((1, 1, 5), (1.0, 1.0, 1.0)))
    fine = placed_on(labels, labels.grid.respaced((1.0, 1.0, 0.25)))
    assert "".join(map(str, fine.array[0, 0])) == "00001111222200001111"


def test_another_orientation_is_the_same_place():
    labels = some_labels()
    turned = labels.grid.turned((2, 0, 1), (True, False, True))
    assert np.array_equal(placed_on(labels, turned).array, labels.reoriented(turned).array)


def test_a_slanted_grid_is_followed():
    # Turned by 90 degrees about z with floats that are not exact, and shifted by a voxel.
    labels = LabelMap(some_labels().array[:, :5, :5].copy(), Grid((4, 5, 5), (3.0, 1.0, 1.0)))
    turned = Grid((4, 5, 5), (3.0, 1.0, 1.0), (4.0, 0.0, 0.0), ((0, 0, 1), (-1, 1e-9, 0), (1e-9, 1, 0)))
    assert np.array_equal(placed_on(labels, turned).array, labels.array.transpose(0, 2, 1)[:, ::-1])


@pytest.mark.parametrize("rounded_mm", [-3e-5, 0.0, 3e-5])
def test_a_voxel_halfway_is_kept_whatever_a_header_rounds(rounded_mm):
    labels = LabelMap(np.array([0, 0, 1, 0, 0], np.uint8).reshape(1, 1, 5), Grid((1, 1, 5), (1.0, 1.0, 0.7)))
    shifted = dataclasses.replace(labels.grid, origin_mm=(-0.35 + rounded_mm, 0.0, 0.0))
    assert placed_on(labels, shifted).array[0, 0].tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("at", "shape", "step_mm", "expected"),
    [
        ((0, 0, 4), (1, 1, 5), 1.0, 0),  # a voxel within
        ((0, 0, 5), (1, 1, 5), 1.0, 0),  # ends a voxel beyond, as a grid may that was cut elsewhere
        ((0, 0, 7), (1, 1, 5), 1.0, 1.5),  # its centre is 3 mm from the last one
        ((0, 0, 7), (1, 1, 3), 2.5, 0),  # the voxels reach to 6.75 mm, and one more of 2.5 is allowed
        ((4, 0, 0), (1, 1, 9), 1.0, 2.5),  # in another direction
    ],
)
def test_how_far_a_liver_reaches_beyond_a_grid(at, shape, step_mm, expected):
    array = np.zeros((5, 1, 9), np.uint8)
    array[at] = 1
    labels = LabelMap(array, Grid(array.shape, (1.0, 1.0, 1.0)))
    grid = Grid(shape, (1.0, 1.0, step_mm), ((step_mm - 1) / 2, 0.0, 0.0))
    assert beyond_mm(labels, grid) == pytest.approx(expected)


def test_nothing_reaches_nowhere():
    labels = LabelMap(np.zeros((2, 3, 4), np.uint8), Grid((2, 3, 4), (1.0, 1.0, 1.0)))
    assert beyond_mm(labels, Grid((1, 1, 1), (1.0, 1.0, 1.0), (500.0, 0.0, 0.0))) == 0


def test_a_round_liver_on_a_turned_grid_reaches_nowhere_beyond():
    _, y, x = np.indices((3, 41, 41))
    ball = LabelMap(((y - 20) ** 2 + (x - 20) ** 2 <= 15**2).astype(np.uint8), Grid((3, 41, 41), (1.0, 1.0, 1.0)))
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    axes = ((0, 0, 1), (sine, cosine, 0), (cosine, -sine, 0))
    middle = np.array([20.0, 20.0, 1.0])
    corner = middle - 16 * np.array(axes[1]) - 16 * np.array(axes[2]) - np.array(axes[0])
    grid = Grid((3, 33, 33), (1.0, 1.0, 1.0), tuple(corner), axes)  # 16 voxels to each side of the middle
    assert beyond_mm(ball, grid) == 0
    assert np.count_nonzero(placed_on(ball, grid).array) > 0.98 * np.count_nonzero(ball.array)
