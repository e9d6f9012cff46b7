import numpy as np
import pytest

from preprocess.geometry import Grid
from preprocess.measures import Measures, measure, measures_from, widened
from preprocess.volume import LabelMap, Volume

GRID = Grid((3, 4, 6), (2.0, 1.0, 1.0))


def scan():
    """A liver of 100 HU with two tumours of 3 and 1 voxels of 2 mm3, of 40 HU."""
    labels = np.zeros((3, 4, 6), np.uint8)
    labels[:, 1:, 1:] = 1
    labels[1, 1, 1:4] = 2
    labels[1, 3, 5] = 2
    hu = np.full(labels.shape, -500, np.int16)
    hu[labels == 1], hu[labels == 2] = 100, 40
    return hu, labels


def measured(*, tumors=True, empty=False):
    hu, labels = scan()
    return measure(Volume(hu, GRID), LabelMap(labels * (not empty), GRID), tumors=tumors)


def test_hu_and_diameters_by_hand():
    # balls of 6 and 2 mm3
    assert measured() == Measures((100.0, 100.0, 100.0), (40.0, 40.0, 40.0), (2.25, 1.56))


def test_tumours_that_nobody_drew_are_not_measured():
    assert measured(tumors=False) == Measures((100.0, 100.0, 100.0), (), ())


def test_nothing_is_measured_without_a_liver():
    assert measured(empty=True) == Measures((), (), ())


def test_json_gives_them_back():
    assert measures_from({"liver_hu": [1, 2, 3], "tumor_hu": [], "lesion_mm": [4]}) == Measures((1, 2, 3), (), (4,))


@pytest.mark.parametrize(
    ("liver", "tumor", "window"),
    [
        ((20, 100, 180), (-10, 60, 120), (-160.0, 240.0)),
        ((20, 100, 241), (-10, 60, 120), (-160.0, 250.0)),
        ((20, 100, 180), (-161, 60, 500), (-170.0, 500.0)),
    ],
)
def test_a_window_is_widened_to_hold_what_it_must_show(liver, tumor, window):
    cases = [Measures(liver, tumor, ()), Measures(liver, (), ()), Measures((), (), ())]
    assert widened((-160.0, 240.0), cases) == window


def test_one_case_of_many_does_not_widen_it():
    usual, odd = Measures((20, 100, 180), (), ()), Measures((20, 100, 3000), (), ())
    assert widened((-160.0, 240.0), [usual, usual, odd]) == (-160.0, 240.0)
    assert widened((-160.0, 240.0), []) == (-160.0, 240.0)
