import numpy as np
import pytest

from preprocess.geometry import Grid
from preprocess.lesions import lesion_table
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
