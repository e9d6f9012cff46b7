"""How an image is prepared for a network, as one value that is stored in the model file.

Training and prediction both go through `Preparation`, so they cannot drift apart (a fault of the project that this one
grew out of: train and test were resampled differently).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import UsageError
from preprocess.geometry import Grid, Triple, triple
from preprocess.resample import FloatArray, slabs
from preprocess.volume import Volume

#: A network as the stages see it: prepared image (z, y, x) and where to look at all (None: everywhere) to
#: probabilities (c, z, y, x), one channel a region.
Infer = Callable[[FloatArray, NDArray[np.bool_] | None], FloatArray]


#: An image lower than this is continued, by so much at each end at most.
LOW_MM, CONTINUED_MM = 100.0, 30.0


def continued(infer: Infer, step_mm: float) -> Infer:
    """`infer`, but low images, whose slices lie `step_mm` apart, are continued: their end slices are repeated.

    Networks look some centimetres up and down, and where there is nothing they find nothing: of 1 to 4 slices of 4 mm
    through the middle of a liver none, of the same slices continued most of it.
    """

    def infer_continued(image: FloatArray, where: NDArray[np.bool_] | None) -> FloatArray:
        count = image.shape[0]
        more = math.ceil(_missing_mm(count * step_mm) / step_mm)
        if not more:
            return infer(image, where)
        ends = ((more, more), (0, 0), (0, 0))
        longer = None if where is None else np.pad(where, ends, mode="edge")
        return infer(np.pad(image, ends, mode="edge"), longer)[:, more : more + count]

    return infer_continued


def share_shown(grid: Grid) -> float:
    """The height of an image on `grid`, as a share of what it is `continued` to."""
    height = grid.shape[0] * grid.spacing_mm[0]
    return height / (height + 2 * _missing_mm(height))


def _missing_mm(height: float) -> float:
    return max(0.0, min(CONTINUED_MM, (LOW_MM - height) / 2))


def _check_window(window_hu: tuple[float, float]) -> None:
    low, high = window_hu
    if not -np.inf < low < high < np.inf:
        raise UsageError(f"preparation.window_hu = {window_hu} must be [low, high] with low < high")


@dataclass(frozen=True)
class Preparation:
    """Working spacing (z, y, x) in mm and the HU window that is mapped to -1..1; HU outside are clipped.

    Every scan is clipped alike, in training and in prediction: public scans come clipped to different ranges, and a
    network must not tell them apart by that. Raises UsageError for values that cannot work.
    """

    spacing_mm: Triple
    window_hu: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(0 < spacing < np.inf for spacing in self.spacing_mm):
            raise UsageError(f"preparation.spacing_mm = {self.spacing_mm} must be positive")
        _check_window(self.window_hu)

    def working_grid(self, grid: Grid) -> Grid:
        """The grid that the network sees for an image on `grid`."""
        return grid.respaced(self.spacing_mm)

    def normalised(self, hu: NDArray[Any]) -> FloatArray:
        """HU of any shape to float32 in -1..1."""
        low, high = self.window_hu
        return np.asarray((np.clip(hu, low, high).astype(np.float32) - low) * np.float32(2 / (high - low)) - 1)

    def prepared(self, volume: Volume) -> FloatArray:
        """The image as the network sees it: clipped, then resampled to the working grid, in -1..1 (z, y, x).

        Clipping comes first: a bright rib or the air of the lung must not leak into the voxel beside it differently
        in a clipped and in an unclipped copy of one scan.
        """
        target = self.working_grid(volume.grid)
        out = np.empty(target.shape, np.float32)
        for index, slab in enumerate(slabs(volume.array, volume.grid, target, clip=self.window_hu)):
            out[index] = self.normalised(slab)
        return out


@dataclass(frozen=True)
class SpacingPlan:
    """How a stage's `Preparation` follows from a dataset.

    The working spacing is the median of the scans' spacings, per axis (z, y, x), held between `finest_mm` and
    `coarsest_mm`; equal limits fix it. `window_hu` is the range of HU that the network sees.
    """

    finest_mm: Triple
    coarsest_mm: Triple
    window_hu: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(0 < a <= b < np.inf for a, b in zip(self.finest_mm, self.coarsest_mm, strict=True)):
            raise UsageError(f"preparation.finest_mm = {self.finest_mm} must be positive and at most coarsest_mm")
        _check_window(self.window_hu)

    def allows(self, fixed: SpacingPlan) -> bool:
        """Whether the one spacing and window of `fixed` are within what this allows."""
        spacings = zip(self.finest_mm, fixed.finest_mm, self.coarsest_mm, strict=True)
        return self.window_hu == fixed.window_hu and all(a <= mm <= b for a, mm, b in spacings)

    def resolved(self, spacings_mm: Sequence[Triple]) -> Preparation:
        """The preparation for a dataset of scans with these spacings (z, y, x) in mm."""
        median = np.median(np.array(spacings_mm), axis=0)
        return Preparation(triple(np.clip(median, self.finest_mm, self.coarsest_mm).round(3)), self.window_hu)
