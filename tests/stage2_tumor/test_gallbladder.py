import numpy as np
import pytest

from stage2_tumor.gallbladder import gallbladder

SPACING_MM = (5.0, 2.0, 1.0)  # 10 mm3 a voxel
#: In the liver's front face, 4 x 3 x 8 voxels, of whose 136 neighbours 32 are no liver; and as many within the liver.
ON_THE_SURFACE, INSIDE = np.s_[2:6, 4:7, 8:16], np.s_[2:6, 16:19, 8:16]


def found(*parts, liver_hu=100, most_hu=20.0, spacing_mm=SPACING_MM, cut=None):
    """The number of voxels taken for the gallbladder where `parts`, each a place and its HU, are called tumour."""
    liver, called = np.zeros((8, 30, 24), bool), np.zeros((8, 30, 24), bool)
    liver[1:7, 4:28, 2:22] = True
    hu = np.where(liver, liver_hu, -100).astype(np.int16)
    for where, value in parts:
        called[where], hu[where] = True, value
    whole = np.s_[:] if cut is None else cut
    out = gallbladder(called[whole], liver[whole], hu[whole], spacing_mm, most_hu)
    assert not (out & ~(called & liver)[whole]).any()
    return int(out.sum())


def test_what_is_as_dark_as_water_and_on_the_surface_is_none():
    assert found((ON_THE_SURFACE, 20)) == 96
    assert found((ON_THE_SURFACE, 21)) == 0
    assert found((ON_THE_SURFACE, 21), most_hu=25.0) == 96
    assert found((ON_THE_SURFACE, 5), most_hu=-1024.0) == 0
    assert found((INSIDE, 5)) == 0
    assert found((ON_THE_SURFACE, 5), (INSIDE, 5)) == 96
    assert found() == 0


@pytest.mark.parametrize(("liver_hu", "is_one"), [(39, False), (40, True)])
def test_in_a_fatty_liver_tissue_is_as_dark(liver_hu, is_one):
    assert found((ON_THE_SURFACE, 20), liver_hu=liver_hu) == 96 * is_one


@pytest.mark.parametrize(("size", "is_one"), [(0.25, True), (0.249, False)])
def test_what_is_small_is_left_to_the_rules_for_tumours(size, is_one):
    """25 voxels on the surface, of 10 mm3 and a little less."""
    where = np.s_[2:7, 4, 8:13]
    assert found((where, 5), spacing_mm=(5.0, 2.0, size * 4)) == 25 * is_one


@pytest.mark.parametrize(("depth", "is_one"), [(1, True), (2, False)])
def test_a_fifth_of_what_touches_it_is_no_liver(depth, is_one):
    """2 x 2 voxels on the surface: of 16 neighbours 4 are outside, of 24 where it is twice as deep."""
    assert found((np.s_[3:5, 4 : 4 + depth, 8:10], 5), spacing_mm=(10.0, 10.0, 10.0)) == 4 * is_one


def test_where_the_scan_ends_nothing_is_known():
    """A part that reaches out of the liver, which the array ends in front of."""
    assert found((ON_THE_SURFACE, 5), cut=np.s_[:, 3:]) == 96
    assert found((ON_THE_SURFACE, 5), cut=np.s_[:, 4:]) == 0


def test_what_hangs_out_of_the_scans_lower_end_counts_as_outside():
    """In the liver: of 2 x 6 x 8 voxels 48 of 152 neighbours lie below the scan, of 4 x 3 x 8 24 of 136, too few."""
    flat = np.s_[2:4, 16:22, 8:16]
    assert found((flat, 5), cut=np.s_[2:]) == 96
    assert found((flat, 5), cut=np.s_[1:]) == 0
    assert found((flat, 5), cut=np.s_[:4]) == 0
    assert found((INSIDE, 5), cut=np.s_[2:]) == 0


def test_where_all_is_called_tumour_there_is_no_liver_to_compare_with():
    assert found((np.s_[1:7, 4:28, 2:22], 5)) == 0
