import numpy as np
import pytest

from stage2_tumor.gallbladder import gallbladder

SPACING_MM = (5.0, 2.0, 1.0)  # 10 mm3 a voxel
#: In the liver's front face, 4 x 3 x 8 voxels, a quarter of whose surface is outside; and as many within the liver.
ON_THE_SURFACE, INSIDE = np.s_[2:6, 4:7, 8:16], np.s_[2:6, 16:19, 8:16]


def found(*parts, liver_hu=100, most_hu=20.0, spacing_mm=SPACING_MM, cut=None, hole=None):
    """The number of voxels taken for the gallbladder where `parts`, each a place and its HU, are called tumour."""
    liver, called = np.zeros((8, 30, 24), bool), np.zeros((8, 30, 24), bool)
    liver[1:7, 4:28, 2:22] = True
    hu = np.where(liver, liver_hu, -100).astype(np.int16)
    for where, value in parts:
        called[where], hu[where] = True, value
    if hole is not None:
        liver[hole] = called[hole] = False
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


@pytest.mark.parametrize(("depth", "is_one"), [(2, True), (3, False)])
def test_so_much_of_its_surface_is_no_liver(depth, is_one):
    """2 x 2 voxels on the surface: of 24 faces 4 are outside, of 32 where it is three voxels deep."""
    assert found((np.s_[3:5, 4 : 4 + depth, 8:10], 5), spacing_mm=(10.0, 10.0, 10.0)) == 4 * depth * is_one


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7)])
def test_thick_slices_change_nothing_nor_which_face_it_is_on(spacing_mm, axis):
    """Balls of 24 mm that stand out of the liver by 8 and by 4 mm."""
    shape = [round(mm / s) for mm, s in zip((60, 60, 60), spacing_mm, strict=True)]
    mm = np.stack(
        np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing_mm, strict=True)), indexing="ij")
    )
    liver = mm[axis] >= 20
    for inside_mm, is_one in ((4, True), (8, False)):
        centre = np.full(3, 30.0)
        centre[axis] = 20 + inside_mm
        ball = ((mm - centre[:, None, None, None]) ** 2).sum(0) <= 12**2
        hu = np.where(ball, 5, np.where(liver, 100, -100))
        out = gallbladder(ball, liver, hu, spacing_mm, 20.0)
        assert (out == (ball & liver & is_one)).all()


def test_its_inside_is_asked_for_by_mm():
    """In two slices of 5 mm on the surface 72 of 200 voxels are as dark: those that lie deepest in each."""
    bright, dark = (np.s_[3:5, 4:14, 5:15], 60), (np.s_[3:5, 7:11, 8:12], 10)
    assert found(bright, dark, spacing_mm=(5.0, 1.0, 1.0)) == 0
    dark = (np.s_[3:5, 6:12, 7:13], 10)
    assert found(bright, dark, spacing_mm=(5.0, 1.0, 1.0)) == 200
    assert found(bright, dark, spacing_mm=(2.0, 2.0, 2.0)) == 0


def test_what_is_as_large_as_no_gallbladder_is_left():
    """96 voxels of 1.5 mL, and of a little more."""
    assert found((ON_THE_SURFACE, 5), spacing_mm=(15.0, 10.0, 10.0)) == 96
    assert found((ON_THE_SURFACE, 5), spacing_mm=(16.0, 10.0, 10.0)) == 0


def test_of_what_is_called_tumour_beyond_the_liver_the_inside_counts_alone():
    """The part outside is fat beside; with it the inside of all would be darker."""
    assert found((np.s_[2:6, 1:4, 8:16], -100), (ON_THE_SURFACE, 30)) == 0
    assert found((np.s_[2:6, 1:4, 8:16], 90), (ON_THE_SURFACE, 5)) == 96


def test_it_is_compared_with_liver_that_nobody_calls_tumour():
    """Most of the liver is called tumour, and as dark."""
    assert found((ON_THE_SURFACE, 20), (np.s_[1:7, 10:28, 2:22], 25)) == 96


def test_of_a_large_liver_some_slices_are_compared(monkeypatch):
    """Every second one of six, which are brighter than those between."""
    liver_hu = np.full((8, 1, 1), 100)
    liver_hu[2::2] = 5
    assert found((ON_THE_SURFACE, 40), liver_hu=liver_hu, most_hu=60.0) == 0
    monkeypatch.setattr("preprocess.edges._VOXELS", 3 * 30 * 24)
    assert found((ON_THE_SURFACE, 40), liver_hu=liver_hu, most_hu=60.0) == 96


def test_a_hole_in_the_liver_is_not_outside():
    """A ring of which the middle is no liver: it would be filled, and be tumour."""
    assert found((np.s_[2:6, 14:20, 8:16], 5), hole=np.s_[3:5, 15:19, 9:15]) == 0


def test_where_the_scan_ends_nothing_is_known():
    """A part that reaches out of the liver, which the array ends in front of."""
    assert found((ON_THE_SURFACE, 5), cut=np.s_[:, 3:]) == 96
    assert found((ON_THE_SURFACE, 5), cut=np.s_[:, 4:]) == 0


@pytest.mark.parametrize(("z_mm", "tall"), [(12.0, True), (11.9, False)])
def test_what_hangs_out_of_the_lower_end_of_a_tall_scan_is_outside_there(z_mm, tall):
    """In the liver, of which 5 slices are shown: 2 x 6 x 8 voxels, 48 of them in the first; 4 x 3 x 8, 24 of them."""
    flat = np.s_[2:4, 16:22, 8:16]
    spacing_mm = (z_mm, 5.0, 5.0)
    assert found((flat, 5), cut=np.s_[2:], spacing_mm=spacing_mm) == 96 * tall
    assert found((flat, 5), cut=np.s_[1:], spacing_mm=spacing_mm) == 0
    assert found((np.s_[4:6, 16:22, 8:16], 5), cut=np.s_[:6], spacing_mm=spacing_mm) == 0
    assert found((INSIDE, 5), cut=np.s_[2:], spacing_mm=spacing_mm) == 0


def test_where_all_is_called_tumour_there_is_no_liver_to_compare_with():
    assert found((np.s_[1:7, 4:28, 2:22], 5)) == 0
