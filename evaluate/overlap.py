"""How much two masks overlap: counts of voxels that can be pooled, and the Dice coefficient from them.

Knows nothing of space: whoever calls has checked that both masks lie on one grid (see `evaluate.scores.score_labels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.volume import LIVER, TUMOR

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a predicted mask, a true mask and their common part; a sum of overlaps pools them."""

    both: int = 0
    prediction: int = 0
    truth: int = 0

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.both + other.both, self.prediction + other.prediction, self.truth + other.truth)

    def dice(self, *, empty: float = 1.0) -> float:
        """2 |P n T| / (|P| + |T|), from 0 to 1; `empty` when both masks are empty, 0 when one is.

        `empty` is 1.0 in LiTS (Bilic et al., Medical Image Analysis 84, 102680, 2023) and NaN in nnU-Net.
        """
        size = self.prediction + self.truth
        return 2 * self.both / size if size else empty

    @property
    def union(self) -> int:
        """Voxels of either mask."""
        return self.prediction + self.truth - self.both

    @property
    def is_empty(self) -> bool:
        """Whether both masks are empty."""
        return not (self.prediction or self.truth)

    @property
    def iou(self) -> float:
        """|P n T| / |P u T|, from 0 to 1. Raises ZeroDivisionError when both masks are empty."""
        return self.both / self.union


def overlap(prediction: Mask, truth: Mask) -> Overlap:
    """Voxel counts of two boolean masks of one shape, such as (z, y, x).

    Raises ValueError for another data type (`&` of labels 1 and 2 is 0) or two shapes (they would broadcast).
    """
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ValueError(f"masks must be bool, not {prediction.dtype} and {truth.dtype}")
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of shapes {prediction.shape} and {truth.shape} cannot be compared")
    counts = (np.count_nonzero(mask) for mask in (prediction & truth, prediction, truth))
    return Overlap(*(int(count) for count in counts))


def dice(prediction: Mask, truth: Mask, *, empty: float = 1.0) -> float:
    """Dice coefficient of two boolean masks of one shape, 0 to 1; see `Overlap.dice` for empty masks.

    Raises ValueError as `overlap` does.
    """
    return overlap(prediction, truth).dice(empty=empty)


def class_overlaps(prediction: NDArray[Any], truth: NDArray[Any]) -> tuple[Overlap, Overlap]:
    """Overlap of the liver (label >= 1, tumours are liver) and of the tumours (label == 2) of two label arrays.

    Both arrays are (z, y, x) with classes 0, 1 and 2, the definition of LiTS. Works slice by slice, so that a scan of
    600 slices needs masks of one. Raises ValueError for two shapes.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"labels of shapes {prediction.shape} and {truth.shape} cannot be compared")
    liver = tumor = Overlap()
    for p, t in zip(prediction, truth, strict=True):
        liver += overlap(p >= LIVER, t >= LIVER)
        tumor += overlap(p == TUMOR, t == TUMOR)
    return liver, tumor
