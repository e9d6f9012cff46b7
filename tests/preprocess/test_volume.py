import numpy as np
import pytest

from preprocess.geometry import Box, Grid
from preprocess.volume import LabelMap, Volume

GRID = Grid((2, 3, 4), (5.0, 2.0, 0.5), (10.0, -20.0, 30.0))


def numbers(dtype=np.int16):
    return np.arange(24, dtype=dtype).reshape(GRID.shape)


def test_arrays_are_read_only_and_not_copied():
    array = numbers()
    volume = Volume(array, GRID)
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1
    assert np.shares_memory(volume.array, array)
    array[0, 0, 0] = 5  # the caller's own array stays writable


@pytest.mark.parametrize("shape", [(4, 3, 2), (2, 3, 5), (2, 3)])
def test_an_array_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="on a grid of shape"):
        Volume(np.zeros(shape), GRID)


@pytest.mark.parametrize("dtype", [bool, np.int16, np.float32])
def test_labels_of_another_type_are_refused(dtype):
    with pytest.raises(ValueError, match="labels must be uint8"):
        LabelMap(np.zeros(GRID.shape, dtype), GRID)


@pytest.mark.parametrize("kind", [Volume, LabelMap])
def test_cropped_takes_the_place_along(kind):
    part = kind(numbers(np.uint8), GRID).cropped(Box((1, 0, 2), (2, 2, 4)))
    assert type(part) is kind
    np.testing.assert_array_equal(part.array, [[[14, 15], [18, 19]]])
    # one step of 5 mm to the head, two of 0.5 mm to the left
    assert part.grid == Grid((1, 2, 2), (5.0, 2.0, 0.5), (11.0, -20.0, 35.0))


@pytest.mark.parametrize("kind", [Volume, LabelMap])
def test_reoriented_takes_the_place_along(kind):
    # array axes: to the right, to the head, to the back
    source = Grid((2, 3, 4), (5.0, 2.0, 0.5), axes=((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)))
    straight = kind(numbers(np.uint8), source).reoriented(source.canonical())
    assert type(straight) is kind
    assert straight.grid == Grid((3, 4, 2), (2.0, 0.5, 5.0), (-5.0, 0.0, 0.0))
    np.testing.assert_array_equal(straight.array[0], [[12, 0], [13, 1], [14, 2], [15, 3]])
    np.testing.assert_array_equal(straight.reoriented(source).array, numbers())


def test_ml_counts_this_class_and_the_higher_ones():
    array = np.zeros(GRID.shape, np.uint8)
    array[0, 0, :3] = 1
    array[1, 2, :2] = 2
    labels = LabelMap(array, GRID)
    assert labels.ml(1) == pytest.approx(5 * 0.005)
    assert labels.ml(2) == pytest.approx(2 * 0.005)
