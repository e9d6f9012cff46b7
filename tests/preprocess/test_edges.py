import numpy as np
import pytest

from preprocess import edges
from preprocess.edges import without_fat

SPACING_MM = (5.0, 1.0, 0.5)


def scene():
    """An organ of 100 HU (3, 8, 36) with a rim of fat on its left and above, within its mask, and fat in its middle."""
    organ, hu = np.zeros((3, 8, 36), bool), np.full((3, 8, 36), -110, np.int16)
    organ[:, 2:7, 4:30] = True
    hu[:, 3:7, 7:30] = 100  # the mask has one row of fat above, three columns at the left
    hu[:, 5, 12] = -90
    return organ, hu


def peeled(share=0.5, **changes):
    organ, hu = scene()
    spared = np.zeros_like(organ)
    for name, (where, value) in changes.items():
        {"hu": hu, "spared": spared}[name][where] = value
    return organ, without_fat(organ, spared, hu, SPACING_MM, share)


def test_fat_at_the_edge_is_taken_away_and_fat_amid_the_organ_stays():
    organ, left = peeled()
    expected = organ.copy()
    expected[:, 2], expected[:, :, :7] = False, False
    np.testing.assert_array_equal(left, expected)
    assert left[1, 5, 12]


def test_no_further_than_2_mm_in_the_slice():
    # 2 mm are 4 columns of 0.5 mm, but 2 rows of 1 mm.
    organ, left = peeled(hu=(np.s_[:, 3:7, 4:10], -90))
    expected = organ.copy()
    expected[:, 2], expected[:, 4, 4:8] = False, False
    expected[:, [3, 5, 6], 4:10] = False
    np.testing.assert_array_equal(left, expected)


@pytest.mark.parametrize(("hu", "stays"), [(-1, False), (1, True)])
def test_half_way_from_fat_to_the_organ_is_the_border(hu, stays):
    _, left = peeled(hu=(np.s_[1, 5, 4:7], hu))
    assert left[1, 5, 4:7].all() == stays
    assert left[1, 5, 4:7].any() == stays


def test_what_is_spared_stays_however_dark():
    _, left = peeled(spared=(np.s_[1, 4, 4:7], True))
    assert left[1, 4, 4:7].all()
    assert not left[1, 5, 4:7].any()


def test_a_share_of_0_changes_nothing_and_neither_does_an_empty_organ():
    organ, left = peeled(share=0.0)
    np.testing.assert_array_equal(left, organ)
    empty = np.zeros((2, 3, 4), bool)
    assert not without_fat(empty, empty, np.zeros(empty.shape), SPACING_MM, 0.5).any()


def test_of_a_large_organ_some_of_its_own_slices_say_its_hu(monkeypatch):
    monkeypatch.setattr(edges, "_VOXELS", 600)
    organ, hu = scene()
    organ[[0, 2]] = False
    left = without_fat(organ, np.zeros_like(organ), hu, SPACING_MM, 0.5)
    np.testing.assert_array_equal(left[1], peeled()[1][1])
    organ, hu = scene()
    hu[1] = 1000  # of three slices of 288 voxels the first and the last are asked
    np.testing.assert_array_equal(without_fat(organ, np.zeros_like(organ), hu, SPACING_MM, 0.5)[0], left[1])


def test_the_argument_is_left_as_it_is_and_slices_are_looked_at_one_by_one():
    organ, hu = scene()
    before = organ.copy()
    hu[1] = 100
    left = without_fat(organ, np.zeros_like(organ), hu, SPACING_MM, 0.5)
    np.testing.assert_array_equal(organ, before)
    np.testing.assert_array_equal(left[1], organ[1])
