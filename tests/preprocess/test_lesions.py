import numpy as np
import pytest
from scipy import ndimage

from preprocess import lesions
from preprocess.components import components
from preprocess.geometry import Grid
from preprocess.lesions import contrasts, cores_hu, lesion_table
from preprocess.volume import LabelMap, Volume

# Array axes: z to the head, y to the front, x to the left.
GRID = Grid((3, 4, 5), (5.0, 2.0, 1.0), (10.0, -20.0, 30.0), ((0, 0, 1), (0, -1, 0), (1, 0, 0)))


def table(voxels, hu=None):
    array = np.zeros(GRID.shape, np.uint8)
    for index, value in voxels.items():
        array[index] = value
    hu = np.zeros(GRID.shape, np.int16) if hu is None else hu
    return lesion_table(LabelMap(array, GRID), Volume(hu, GRID))


def test_no_tumour_is_an_empty_table():
    assert table({(1, 1, 1): 1}) == []


def test_lesions_by_hand_largest_first():
    hu = np.zeros(GRID.shape, np.int16)
    hu[0, 3, 4] = 77
    hu[1, 1, 1], hu[1, 1, 2], hu[2, 1, 2] = 10, 20, 45
    hu[1, 1, 3] = 1000  # liver beside the lesion does not count
    rows = table({(0, 3, 4): 2, (1, 1, 1): 2, (1, 1, 2): 2, (2, 1, 2): 2, (1, 1, 3): 1}, hu)
    assert rows == [
        {
            "id": 1,
            "volume_ml": pytest.approx(0.03),
            # mean index z 4/3, y 1, x 5/3
            "centroid_mm": [11.67, -22.0, 36.67],
            "mean_hu": 25.0,
        },
        {"id": 2, "volume_ml": pytest.approx(0.01), "centroid_mm": [14.0, -26.0, 30.0], "mean_hu": 77.0},
    ]


def test_lesions_that_touch_at_an_edge_are_two():
    assert [row["volume_ml"] for row in table({(0, 0, 0): 2, (0, 1, 1): 2})] == [0.01, 0.01]


def test_equal_lesions_keep_the_order_of_the_image():
    rows = table({(2, 0, 0): 2, (0, 3, 0): 2})
    assert [(row["id"], row["centroid_mm"][2]) for row in rows] == [(1, 30.0), (2, 40.0)]


def test_values_are_plain_python_for_json():
    (row,) = table({(0, 0, 0): 2})
    assert [type(v) for v in row.values()] == [int, float, list, float]
    assert all(type(v) is float for v in row["centroid_mm"])


SPACING_MM = (5.0, 2.0, 1.0)


def liver_with(*parts):
    """Tumour and liver masks and HU (6, 24, 40): liver of 100 HU but for the last column, of 300, and `parts`."""
    tumor, hu = np.zeros((6, 24, 40), bool), np.full((6, 24, 40), 100.0)
    hu[:, :, -1] = 300
    for where, value in parts:
        tumor[where], hu[where] = True, value
    tissue = ~tumor
    tissue[:, :, -1] = False
    return tumor, tissue, hu


def of_parts(tumor, tissue, hu):
    """The contrasts of the parts of `tumor`, in the order of the image."""
    first, *others = contrasts(components(tumor)[0], tissue, hu, SPACING_MM)
    assert np.isnan(first)
    return others


def test_the_contrast_of_each_part_to_the_tissue_around():
    faint, dark, bright = np.s_[1:3, 2:5, 2:6], np.s_[3:5, 14:18, 8:14], np.s_[1:3, 10:13, 25:30]
    assert of_parts(*liver_with((faint, 86.0), (bright, 116.0), (dark, 64.0))) == [-14, 16, -36]
    assert of_parts(*liver_with()) == []


def test_compared_is_the_tissue_from_3_to_10_mm_and_no_other_tumour():
    lesion = np.s_[2:4, 10:14, 18:22]
    tumor, tissue, hu = liver_with((lesion, 100.0))
    away = ndimage.distance_transform_edt(~tumor, SPACING_MM)
    for near, contrast in (((0, 3), 0), ((3, 10), -100), ((10, 99), 0)):
        changed = hu.copy()
        changed[(away > near[0]) & (away <= near[1]) & tissue] = 200
        assert of_parts(tumor, tissue, changed) == [contrast]
    # The same ring, but called another lesion: nothing is left to compare with.
    assert np.isnan(of_parts(tumor, tissue & (away > 10), hu)).all()


def test_a_lesion_is_as_dark_as_its_deeper_half_and_the_tissue_as_its_middle():
    # Dark in the middle, drawn wide; and a vessel beside it.
    tumor, tissue, hu = liver_with((np.s_[1:4, 6:16, 10:24], 95.0))
    hu[1:4, 8:14, 12:22] = 60
    hu[2, 2:4, 10:24] = 250
    assert of_parts(tumor, tissue, hu) == [-40]


def test_a_large_lesion_is_judged_by_a_part_of_the_voxels(monkeypatch):
    monkeypatch.setattr(lesions, "_VOXELS", 300)
    tumor, tissue, hu = liver_with((np.s_[1:5, 8:16, 8:24], 80.0))
    away = ndimage.distance_transform_edt(~tumor, SPACING_MM)
    hu[(away > 10) & tissue] = 300  # by distances in voxels of the thinned image it would be compared with that
    (contrast,) = of_parts(tumor, tissue, hu)
    assert contrast == -20


def test_the_inside_of_parts_is_that_of_their_deeper_half():
    """A shell of 60 HU, a voxel of each axis wide, around 10; a single voxel at the end."""
    numbered, hu = np.zeros((16, 16, 18), np.int32), np.full((16, 16, 18), 100.0)
    numbered[1:13, 1:13, 1:13], hu[1:13, 1:13, 1:13] = 1, 60
    hu[2:12, 2:12, 2:12] = 10
    numbered[15, 15, 17], hu[15, 15, 17] = 2, 70
    assert cores_hu(numbered, hu, (1.0, 1.0, 1.0)) == pytest.approx([np.nan, 10, 70], nan_ok=True)
    assert np.isnan(cores_hu(np.zeros((2, 2, 2), np.int32), hu[:2, :2, :2], (1.0, 1.0, 1.0)))


def test_how_deep_the_inside_lies_is_measured_in_mm():
    """In slices of 5 mm nothing of two slices is deep by its slices."""
    numbered, hu = np.zeros((4, 12, 12), np.int32), np.full((4, 12, 12), 60.0)
    numbered[1:3, 1:11, 1:11] = 1
    hu[1:3, 3:9, 3:9] = 10  # 72 of 200 voxels: those that lie 3 mm and deeper
    assert cores_hu(numbered, hu, (5.0, 1.0, 1.0))[1] == 10
    assert cores_hu(numbered, hu, (1.0, 1.0, 1.0))[1] == 60


def test_of_a_large_part_the_inside_of_some_voxels_is_enough(monkeypatch):
    monkeypatch.setattr(lesions, "_VOXELS", 1000)
    numbered, hu = np.zeros((26, 26, 26), np.int32), np.full((26, 26, 26), 60.0)
    numbered[1:25, 1:25, 1:25] = 1
    hu[3:23, 3:23, 3:23] = 10
    hu[::3, ::3, ::3] = 9  # every third voxel of each axis
    assert cores_hu(numbered, hu, (1.0, 1.0, 1.0))[1] == 9
