"""How much contrast medium is in the veins of the liver.

In the portal venous phase, of which scans to train on are, vessels are brighter than the liver around them. Without
contrast medium blood is as grey as the liver or darker, and in the early arterial phase the veins hold none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.geometry import Box
from preprocess.volume import LIVER, LabelMap, Volume

#: HU are averaged over cubes of so many mm, which leaves veins and takes most of the noise.
_CUBE_MM = 3.0
#: The surface, whose cubes hold fat and lung too, and the rim of tumours count as little as what lies beyond them.
_DEEP_MM = 8.0
#: Fewer cubes say nothing (27 mL of liver).
_LEAST = 1000
#: The share of the liver that is darker than its vessels.
_DARKER = 98.0


def vessel_hu(labels: LabelMap, volume: Volume) -> float | None:
    """By how many HU the vessels in the liver of `labels` are brighter than it; both on one grid.

    The 98th percentile of the liver's inside less its median. None where too little of a liver is shown.
    """
    box = Box.around(labels.array == LIVER)
    if box is None:
        return None
    spacing = volume.grid.spacing_mm
    size = [max(1, round(_CUBE_MM / mm)) for mm in spacing]
    liver = _cubes(labels.array[box.slices] == LIVER, size).all((1, 3, 5))
    # An edge of nothing: where the scan ends the liver is cut, which is no surface, but its cubes are not missed.
    away = ndimage.distance_transform_edt(np.pad(liver, 1), [n * mm for n, mm in zip(size, spacing, strict=True)])
    inside = away[1:-1, 1:-1, 1:-1] > _DEEP_MM
    if inside.sum() < _LEAST:
        return None
    hu = _cubes(volume.array[box.slices], size).mean((1, 3, 5), dtype=np.float32)[inside]
    return float(np.percentile(hu, _DARKER) - np.median(hu))


def _cubes(array: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """`array` (z, y, x) as (z, size, y, size, x, size), without what is left over at the end of an axis."""
    whole = [n // step for n, step in zip(array.shape, size, strict=True)]
    cut = array[tuple(slice(n * step) for n, step in zip(whole, size, strict=True))]
    return cut.reshape([length for pair in zip(whole, size, strict=True) for length in pair])
