"""From a scan and a network to the coarse liver, and from the coarse liver to the region of interest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import fill_holes, largest
from preprocess.geometry import Box, Grid
from preprocess.preparation import Infer, Preparation
from preprocess.resample import FloatArray
from preprocess.volume import Volume
from stage1_liver.recipe import LiverPolicy


@dataclass(frozen=True, eq=False)
class CoarseLiver:
    """The liver on stage 1's grid: `probability` float32 and `part` bool, both (z, y, x) on `grid`.

    `part` is the largest part of what looks like liver; `found`: it is large enough to be one. In the holes of the
    network's liver, which are filled in the mask, the probability is 1: what lies amid liver is in the liver, a tumour
    most likely, and whoever reads the probability alone must not lose it. Further than a voxel from all that looks like
    liver it is 0: an edge may lie elsewhere than this grid can say, but what is liver is not for stage 2 to say, which
    sees so little of a scan.
    """

    probability: FloatArray
    part: NDArray[np.bool_]
    grid: Grid
    found: bool

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The liver (z, y, x); empty where none was found."""
        return self.part if self.found else np.zeros_like(self.part)

    def roi(self, full: Grid, margin_mm: float) -> Box:
        """The liver's bounding box on the scan's own grid `full`, grown by `margin_mm` and clipped to the scan.

        Raises ValueError when no liver was found: there is no whole-image guess.
        """
        box = Box.around(self.mask) if self.found else None
        if box is None:
            raise ValueError("no liver, no region of interest")
        return box.onto(self.grid, full).grown(margin_mm, full)


def find_liver(volume: Volume, infer: Infer, preparation: Preparation, policy: LiverPolicy) -> CoarseLiver:
    """The liver of a whole scan: threshold, largest 6-connected component, holes filled.

    Smaller than `policy.minimum_ml`, it counts as not found.
    """
    grid = preparation.working_grid(volume.grid)
    probability = infer(preparation.prepared(volume), None)[0]
    likely = probability >= policy.threshold
    part = largest(likely)
    mask = fill_holes(part)
    probability = np.where(mask & ~part, np.float32(1), probability) * ndimage.binary_dilation(likely | mask)
    found = bool(np.count_nonzero(mask) >= max(1.0, policy.minimum_ml / grid.voxel_ml - 1e-6))
    return CoarseLiver(probability, mask, grid, found)
