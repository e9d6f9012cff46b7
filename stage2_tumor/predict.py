"""From the cropped scan and a network to liver and tumour probabilities inside the region of interest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.geometry import Grid
from preprocess.preparation import Infer, Preparation
from preprocess.resample import FloatArray, resampled
from preprocess.volume import Volume


@dataclass(frozen=True, eq=False)
class RoiProbabilities:
    """`liver` and `tumor` probabilities, float32 (z, y, x) on `grid`, the region of interest at stage 2's spacing."""

    liver: FloatArray
    tumor: FloatArray
    grid: Grid


def find_tumor(
    roi: Volume, liver: NDArray[np.bool_], infer: Infer, preparation: Preparation, reach_mm: float
) -> RoiProbabilities:
    """Probabilities for the scan cropped to the region of interest.

    `liver` is the mask of stage 1 on the grid of `roi`; the network only looks where it or a voxel within `reach_mm`
    of it is: windows without such a voxel are not computed, and both probabilities are 0 there.
    """
    grid = preparation.working_grid(roi.grid)
    coarse = resampled(liver, roi.grid, grid) > 0
    steps = np.ceil(reach_mm / np.array(grid.spacing_mm)).astype(int)
    where = ndimage.maximum_filter(coarse, size=tuple(2 * steps + 1))
    liver_probability, tumor_probability = infer(preparation.prepared(roi), where)
    return RoiProbabilities(liver_probability, tumor_probability, grid)
