import numpy as np
import pytest

from evaluate.case_picture import case_picture, words
from evaluate.pictures import AGREED, COLOURS
from preprocess.geometry import Grid
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume

GRID = Grid((8, 100, 150), (5.0, 0.8, 0.8))  # 40 x 80 x 120 mm; a pixel of the planes a voxel
LIVER_BOX, LARGE, SMALL = np.s_[2:6, 40:60, 45:105], np.s_[3:5, 44:54, 50:60], np.s_[3:4, 45:50, 80:85]
HEAD = 2 * 16  # pixels


def scene(*predicted):
    """Scan, truth with a tumour of 0.64 and one of 0.08 mL, and a prediction of the same liver with `predicted`."""
    true, mask = (np.zeros(GRID.shape, np.uint8) for _ in range(2))
    true[LIVER_BOX] = mask[LIVER_BOX] = LIVER
    true[LARGE] = true[SMALL] = TUMOR
    for box in predicted:
        mask[box] = TUMOR
    return Volume(np.zeros(GRID.shape, np.int16), GRID), LabelMap(true, GRID), LabelMap(mask, GRID)


def said(monkeypatch, *predicted):
    lines = []
    monkeypatch.setattr("evaluate.case_picture.words", lambda parts, width: lines.append(parts) or words(parts, width))
    case_picture("c", *scene(*predicted))
    return [parts[0][0] for parts in lines if len(parts) == 1][:-1]


def test_the_planes_are_cut_to_the_liver_and_stand_below_two_lines():
    volume, truth, mask = scene(LARGE, SMALL)
    true_alone = LabelMap(np.where(truth.array == TUMOR, LIVER, truth.array), GRID)
    picture = case_picture("c", volume, true_alone, true_alone)
    # 20 mm around: all slices, 40 + 2 * 25 - 20 rows, 60 + 2 * 25 columns; the axial plane is the highest
    assert picture.shape[0] == HEAD + 70
    assert tuple(picture[HEAD + 25, 25]) == AGREED
    assert case_picture("c", volume, truth, mask).shape[0] > HEAD + 70


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([LARGE, SMALL], ["touched, 0.1 mL"]),
        ([LARGE], ["missed, 0.1 mL"]),
        ([LARGE, np.s_[3:4, 45:50, 90:100]], ["false, 0.2 mL", "missed, 0.1 mL"]),
        ([LARGE, np.s_[3:4, 45:50, 85:95]], ["false, 0.2 mL", "missed, 0.1 mL"]),  # beside it, not on it
        ([np.s_[3:5, 44:54, 62:79]], ["false, 1.1 mL", "missed, 0.1 mL"]),  # larger than the true one of the planes
    ],
)
def test_tumours_that_the_planes_do_not_show_are_close_up_and_said(monkeypatch, predicted, expected):
    assert said(monkeypatch, *predicted) == expected


def test_of_a_ring_that_the_planes_run_through_nothing_is_close_up(monkeypatch):
    volume, truth, mask = scene()
    array = np.where(truth.array == TUMOR, LIVER, truth.array)
    array[3:5, 42:58, 50:80] = TUMOR
    array[3:5, 46:54, 54:76] = LIVER  # its middle is liver
    lines = []
    monkeypatch.setattr("evaluate.case_picture.words", lambda parts, width: lines.append(parts) or words(parts, width))
    case_picture("c", volume, LabelMap(array, GRID), mask)
    assert len(lines) == 2


def test_no_more_than_six_are_close_up(monkeypatch):
    specks = [np.s_[2:3, 41 + 2 * i : 42 + 2 * i, 100:101] for i in range(9)]
    assert len(said(monkeypatch, LARGE, *specks)) == 6


def test_without_any_liver_the_whole_scan_is_shown():
    volume, _, _ = scene()
    nothing = LabelMap(np.zeros(GRID.shape, np.uint8), GRID)
    assert case_picture("c", volume, nothing, nothing).shape == (HEAD + 100, 150 + 6 + 150 + 6 + 100, 3)


def test_words_have_their_colours_and_any_name_can_be_written():
    line = words([("Patient \u5f20", (255, 255, 255)), ("truth", COLOURS["truth", LIVER])], 300)
    assert line.shape == (16, 300, 3)
    red, _, blue = line.reshape(-1, 3).T.astype(int)
    assert red.max() > 150  # of the name; edges of letters are blended with black
    assert (blue - red).max() > 150  # of the word in blue
