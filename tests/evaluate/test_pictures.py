import io

import numpy as np
from PIL import Image

from evaluate.pictures import AGREED, COLOURS, png, three_planes
from preprocess.geometry import Grid
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume

GRID = Grid((10, 20, 30), (4.0, 1.6, 0.8))  # 40 x 32 x 24 mm: 50, 40 and 30 pixels


def labels_of(*boxes):
    array = np.zeros(GRID.shape, np.uint8)
    for value, box in boxes:
        array[box] = value
    return LabelMap(array, GRID)


def scene():
    liver, tumor = np.s_[2:8, 4:16, 5:25], np.s_[3:5, 6:9, 8:12]
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[liver], hu[tumor] = 100, 40
    return Volume(hu, GRID), labels_of((1, liver), (2, tumor))


def test_three_planes_stand_side_by_side_in_millimetres():
    volume, truth = scene()
    picture = three_planes(volume, truth, labels_of())
    assert picture.shape == (50, 30 + 6 + 30 + 6 + 40, 3)
    assert picture.dtype == np.uint8


def test_the_head_is_up():
    volume, _ = scene()
    hu = volume.array.copy()
    hu[9] = 190  # the uppermost slice is white
    coronal = three_planes(Volume(hu, GRID), labels_of(), labels_of())[:, 36:66]
    assert coronal[0].min() == 255
    assert coronal[-1].max() == 0


def test_the_slices_run_through_the_tumour_and_contours_have_their_colours():
    volume, truth = scene()
    picture = three_planes(volume, truth, labels_of((1, np.s_[2:8, 5:17, 6:26])))
    axial = picture[:40, :30].reshape(-1, 3).tolist()
    for who, least in (("truth", LIVER), ("truth", TUMOR), ("prediction", LIVER)):
        assert list(COLOURS[who, least]) in axial
    assert list(COLOURS["prediction", TUMOR]) not in axial


def test_where_both_contours_are_alike_they_are_white():
    volume, truth = scene()
    axial = three_planes(volume, truth, truth)[:40, :30].reshape(-1, 3).tolist()
    assert list(AGREED) in axial
    assert not any(list(colour) in axial for colour in COLOURS.values())


def test_without_any_label_the_middle_is_shown():
    volume, _ = scene()
    assert three_planes(volume, labels_of(), labels_of()).shape == (50, 112, 3)


def test_png_is_read_back_equal():
    picture = three_planes(*scene(), labels_of())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
