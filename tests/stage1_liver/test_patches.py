import numpy as np

from preprocess.geometry import Box, Grid
from stage1_liver.patches import POOLS, training_box, validation_box

GRID = Grid((2, 3, 4), (5.0, 2.0, 1.0))
LABELS = np.zeros(GRID.shape, np.uint8)
LABELS[0, 1, 2] = 1
LABELS[1, 2, 3] = 2


def test_pools_by_hand():
    assert list(POOLS) == ["liver", "anywhere"]
    assert POOLS["liver"](LABELS).tolist() == [6, 23]
    assert POOLS["anywhere"](LABELS).tolist() == list(range(24))
    assert POOLS["liver"](np.zeros_like(LABELS)).tolist() == []


def test_training_and_validation_see_all_of_the_scan():
    assert training_box(LABELS, GRID) == validation_box(LABELS, GRID) == Box((0, 0, 0), (2, 3, 4))
