from pathlib import Path

import numpy as np
import pytest

from preprocess.decoded import Decoded, hu_array
from preprocess.geometry import Grid

SHAPE = (6, 5, 4)


def made(blank, value, dtype=np.int16, head_first=True):
    """A scan of -1000 to 293 HU whose slices `blank`, from below, have one value; and what they become."""
    hu = (np.arange(120).reshape(SHAPE) * 10 - 900).astype(dtype)
    hu[:, 0, 0] = -1000
    wanted = hu.copy()
    hu[list(blank)], wanted[list(blank)] = value, -1024
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    if not head_first:
        hu, axes = hu[::-1].copy(), ((0.0, 0.0, -1.0), *axes[1:])
    return Decoded(Path("a.nii"), hu, Grid(SHAPE, (5.0, 2.0, 2.0), (0.0, 0.0, 0.0), axes)), wanted


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("head_first", [True, False])
@pytest.mark.parametrize(
    ("blank", "value", "told"),
    [
        ((0, 5), 0, "2 slices at its ends show nothing (one value, 0); taken as air"),
        ((0, 1), -1000, ""),
        ((1, 3), 0, "2 slices between others show nothing (one value; the first is 2 of 6 from below): parts of"),
        ((2,), -1000, "1 slices between others show nothing (one value; the first is 3 of 6 from below): parts of"),
    ],
)
def test_slices_of_one_value_are_air_whatever_it_is(dtype, head_first, blank, value, told):
    image, wanted = made(blank, value, dtype, head_first)
    array, warnings = hu_array(image)
    np.testing.assert_array_equal(array, wanted)
    assert len(warnings) == bool(told)
    assert "".join(warnings).startswith(told)


def test_a_scan_of_one_value_stays_what_it_is():
    array, (warning,) = hu_array(made(range(6), 50)[0])
    assert (array == 50).all()
    assert "every voxel is 50 HU" in warning


def test_stored_values_become_hu():
    hu = np.random.default_rng(0).choice([-1000, -980, 40, 60, 90, 500], SHAPE).astype(np.int16)
    image, _ = made((), 0)
    array, (warning,) = hu_array(Decoded(image.path, hu + np.int16(1024), image.grid))
    np.testing.assert_array_equal(array, hu)
    assert "1024 was subtracted" in warning
    plain, _ = hu_array(Decoded(image.path, hu, image.grid))
    np.testing.assert_array_equal(plain, hu)
