import numpy as np
import pytest

from preprocess.enhancement import vessel_hu
from preprocess.geometry import Box, Grid
from preprocess.volume import LabelMap, Volume

#: Cubes of 3 mm are 1 x 3 x 2 voxels.
GRID = Grid((24, 75, 52), (3.0, 1.0, 1.5))
#: Deep in the liver, 5 % of what lies deep, of whole cubes.
VESSELS = np.s_[8:18, 31:43, 21:41]


def scene(vessels=0, where=VESSELS, noise=0.0):
    """A liver of 60 HU, 72 x 75 x 78 mm, without its outermost voxels, and what is `vessels` brighter in it."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1:-1, 1:-1, 1:-1] = 1
    hu = np.random.default_rng(1).normal(np.where(labels, 60, -100), noise)
    hu[where] += vessels
    return LabelMap(labels, GRID), Volume(np.round(hu).astype(np.int16), GRID)


def changed(labels, where, value):
    array = labels.array.copy()
    array[where] = value
    return LabelMap(array, GRID)


@pytest.mark.parametrize(("vessels", "told"), [(40, 40), (7, 7), (0, 0), (-20, 0)])
def test_vessels_are_measured_against_the_liver(vessels, told):
    assert vessel_hu(*scene(vessels)) == told


def test_a_bright_spot_is_no_vessel():
    assert vessel_hu(*scene(300, np.s_[8:12, 31:34, 21:25])) == 0


@pytest.mark.parametrize("where", [np.s_[:3], np.s_[:, -7:], np.s_[:, :, :5]])
def test_what_lies_at_the_surface_does_not_count(where):
    assert vessel_hu(*scene(200, where)) == 0


def test_a_tumour_and_its_rim_do_not_count():
    labels, volume = scene(200, np.s_[7:19, 28:46, 19:43])
    assert vessel_hu(labels, volume) == 200
    assert vessel_hu(changed(labels, VESSELS, 2), volume) == 0


def test_where_the_scan_cuts_the_liver_is_its_surface():
    labels, volume = scene(200, np.s_[:3])
    box = Box((1, 1, 1), (23, 74, 51))
    assert vessel_hu(labels.cropped(box), volume.cropped(box)) == 0


def test_hu_that_are_not_whole_numbers_are_measured_too():
    labels, volume = scene(40)
    half = Volume(volume.array.astype(np.float32) + np.float32(0.5), GRID)
    assert vessel_hu(labels, half) == vessel_hu(labels, volume) == 40


def test_many_small_voxels_are_added_up_without_overflow():
    shape = (120, 150, 150)
    hu = np.full(shape, 150, np.int16)
    hu[40:60, 45:105, 45:105] += 50
    grid = Grid(shape, (0.5, 0.4, 0.4))
    assert vessel_hu(LabelMap(np.ones(shape, np.uint8), grid), Volume(hu, grid)) == 50


def test_noise_is_averaged():
    assert vessel_hu(*scene(noise=20)) == pytest.approx(2.05 * 20 / 6**0.5, abs=1)


def test_little_liver_says_nothing():
    labels, volume = scene(40)
    assert vessel_hu(changed(labels, np.s_[14:], 0), volume) == 40
    assert vessel_hu(changed(labels, np.s_[8:], 0), volume) == 0
    assert vessel_hu(changed(labels, np.s_[7:], 0), volume) is None
    assert vessel_hu(changed(labels, np.s_[:], 0), volume) is None
