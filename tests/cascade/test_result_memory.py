"""A mask of all of a long scan is hundreds of MB: what looks at a result makes no second one."""

import tracemalloc

import numpy as np
import pytest

from cascade.plausibility import doubts
from preprocess.geometry import Grid
from preprocess.lesions import lesion_table
from preprocess.nifti import verify_nifti, write_nifti
from preprocess.nifti_header import NiftiHeader
from preprocess.volume import LabelMap, Volume

GRID = Grid((240, 260, 220), (1.0, 0.8, 0.8))
LABELS = np.zeros(GRID.shape, np.uint8)
LABELS[100:130, 40:70, 30:60] = 1
LABELS[110:115, 50:55, 40:45] = 2
MAP, HU = LabelMap(LABELS, GRID), Volume(LABELS.astype(np.int16), GRID)


def peak_share(work):
    """The most memory that `work` takes, as a share of one mask."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / LABELS.nbytes
    finally:
        tracemalloc.stop()


LOOKS = {"ml": lambda: MAP.ml(1), "doubts": lambda: doubts(MAP, HU, 0.9), "lesions": lambda: lesion_table(MAP, HU)}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_looking_at_a_mask_takes_a_fraction_of_it(look):
    assert peak_share(look) < 0.25


def test_a_mask_that_is_read_back_is_not_kept(tmp_path):
    path, header = tmp_path / "a.nii.gz", NiftiHeader.of(GRID)
    write_nifti(path, LABELS, header)
    assert peak_share(lambda: verify_nifti(path, LABELS, header)) < 0.5
