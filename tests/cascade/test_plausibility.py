import numpy as np
import pytest

from cascade.plausibility import doubts, overlooked
from preprocess.geometry import Grid
from preprocess.volume import LabelMap, Volume

GRID = Grid((12, 14, 16), (10.0, 10.0, 10.0))  # a voxel is 1 mL


def scene(start=(1, 1, 1), stop=(11, 13, 15), hu=60, vessels=30):
    """A liver of `hu` HU in that box, 1680 mL in the default one, a plane of vessels in it, and air around."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[tuple(map(slice, start, stop))] = 1
    volume = np.where(labels > 0, hu, -1000).astype(np.int16)
    volume[:, :, 7] += vessels
    return LabelMap(labels, GRID), Volume(volume, GRID)


def test_a_liver_like_others_is_not_doubted():
    assert doubts(*scene(), agreement=0.95) == ()
    assert doubts(*scene(), agreement=None) == ()


def test_an_empty_mask_is_not_doubted():
    _, volume = scene()
    assert doubts(LabelMap(np.zeros(GRID.shape, np.uint8), GRID), volume, 0.0) == ()


def test_a_liver_that_leaves_the_scan_is_said_with_the_sides():
    assert doubts(*scene(start=(0, 1, 1), stop=(11, 13, 16))) == (
        "the liver is cut by the lower end and left side of the scan",
    )


def test_a_small_whole_liver_is_doubted_a_cut_one_may_be_small():
    (said,) = doubts(*scene(start=(2, 2, 2), stop=(7, 8, 9)))
    assert said.startswith("the liver of 210 mL is smaller")
    assert [w for w in doubts(*scene(start=(0, 2, 2), stop=(5, 8, 9))) if "smaller" in w] == []


def test_a_liver_larger_than_livers_are_is_doubted():
    labels = LabelMap(np.ones((20, 16, 16), np.uint8), Grid((20, 16, 16), (10.0, 10.0, 10.0)))
    volume = Volume(np.full((20, 16, 16), 60, np.int16), labels.grid)
    assert any("5120 mL is larger" in warning for warning in doubts(labels, volume))


@pytest.mark.parametrize(("hu", "doubted"), [(-25, True), (-15, False), (195, False), (300, True)])
def test_what_is_not_of_liver_tissue_is_doubted(hu, doubted):
    assert bool([w for w in doubts(*scene(hu=hu)) if "HU in the median" in w]) == doubted


@pytest.mark.parametrize(("vessels", "doubted"), [(-10, True), (14, True), (15, False)])
def test_a_liver_without_contrast_medium_is_said(vessels, doubted):
    assert bool([w for w in doubts(*scene(vessels=vessels)) if "contrast medium" in w]) == doubted


def with_tumors(*tumors, grid=GRID):
    """The liver of `scene` with tumours: the box's start and stop, and its HU."""
    labels, volume = (np.array(part.array) for part in scene())
    for start, stop, hu in tumors:
        where = tuple(map(slice, start, stop))
        labels[where], volume[where] = 2, hu
    return LabelMap(labels, grid), Volume(volume, grid)


def test_tumours_as_dark_as_water_are_said_the_largest_with_its_size():
    small, large, tumor = ((2, 2, 2), (3, 4, 5), 5), ((5, 2, 2), (7, 4, 6), 20), ((5, 7, 9), (9, 11, 14), 21)
    assert doubts(*with_tumors(tumor)) == ()
    assert doubts(*with_tumors(small, tumor)) == (
        "a tumour of 6.0 mL is as dark as water (5 HU inside): it may be the gallbladder or a cyst",
    )
    (said,) = doubts(*with_tumors(small, large, tumor))
    assert said.startswith("a tumour of 16.0 mL is as dark as water (20 HU inside), and 1 more:")


def test_it_is_the_inside_of_a_tumour_that_is_as_dark():
    """A tumour that is as dark as water in less than half of its voxels, but in most of the deeper half."""
    labels, volume = np.ones((24, 24, 24), np.uint8), np.full((24, 24, 24), 90.0, np.float32)
    labels[4:20, 4:20, 4:20], volume[4:20, 4:20, 4:20] = 2, 60.4  # 4096 voxels
    volume[5:19, 5:19, 5:19] = 55.0  # 2744
    volume[6:18, 6:18, 6:18] = 20.4  # 1728, less than half, but most of the deeper one
    grid = Grid((24, 24, 24), (4.0, 4.0, 4.0))
    assert [w for w in doubts(LabelMap(labels, grid), Volume(volume, grid)) if "water" in w] == []
    volume[6:18, 6:18, 6:18] = -0.4
    (said,) = (w for w in doubts(LabelMap(labels, grid), Volume(volume, grid)) if "water" in w)
    assert "262.1 mL is as dark as water (0 HU inside)" in said


@pytest.mark.parametrize(
    ("layers", "dark"), [((60, 50, 40, 30, 10, 10, 10, 10), True), ((0, 10, 15, 20, 40, 50, 50, 50), False)]
)
def test_a_tumour_on_the_face_of_the_livers_box_has_an_outside_there(layers, dark):
    """Layers from the liver's front inwards."""
    labels, volume = np.zeros((16, 26, 16), np.uint8), np.full((16, 26, 16), -100, np.int16)
    labels[1:15, 4:24, 1:15], volume[1:15, 4:24, 1:15] = 1, 100
    labels[3:13, 4:12, 3:13] = 2
    volume[3:13, 4:12, 3:13] = np.array(layers)[None, :, None]
    grid = Grid(labels.shape, (10.0, 10.0, 10.0))
    assert bool([w for w in doubts(LabelMap(labels, grid), Volume(volume, grid)) if "water" in w]) == dark


@pytest.mark.parametrize(("ml", "said"), [(0.24, False), (0.25, True)])
def test_what_is_tiny_may_be_as_dark_as_water(ml, said):
    grid = Grid(GRID.shape, (10.0, 5.0, 20.0 * ml))  # a voxel is of so many mL
    found = doubts(*with_tumors(((4, 4, 4), (5, 5, 5), 0), grid=grid))
    assert bool([warning for warning in found if "water" in warning]) == said


def test_stages_that_disagree_are_said():
    (said,) = doubts(*scene(), agreement=0.6)
    assert "disagree about the liver (Dice 0.60)" in said


def test_a_liver_that_was_seen_and_does_not_count_is_said_with_the_reason():
    assert overlooked(*scene(stop=(2, 3, 3))) == ()  # 4 mL may be anything
    (little,) = overlooked(*scene(stop=(3, 3, 3)))
    assert little.startswith("stage 1 saw 8 mL of liver, but too little of it counts")
    (denied,) = overlooked(*scene(), agreement=0.31)
    assert denied.startswith("stage 1 saw 1680 mL of liver, but the two stages disagree (Dice 0.31)")


def test_a_turned_patient_is_said_of_a_result_and_of_what_was_overlooked():
    """A body of 100 HU whose spine lies in front of its middle."""
    hu = np.full((12, 60, 70), -1000, np.int16)
    hu[:, 5:55, 5:65] = 100
    hu[:, 8:14, 32:38] = 700
    labels = np.zeros(hu.shape, np.uint8)
    labels[1:11, 20:50, 10:30] = 1
    grid = Grid(hu.shape, (10.0, 4.0, 4.0))
    for said in (
        doubts(LabelMap(labels, grid), Volume(hu, grid)),
        overlooked(LabelMap(labels, grid), Volume(hu, grid)),
    ):
        assert any("mm before it, where the belly should be: a flipped direction" in text for text in said)
    turned = Volume(hu[:, ::-1].copy(), grid)
    assert not any("flipped direction" in text for text in doubts(LabelMap(labels, grid), turned))
