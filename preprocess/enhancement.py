"""How much contrast medium is in the veins of the liver.

In the portal venous phase, of which scans to train on are, vessels are brighter than the liver around them. Without
contrast medium blood is as grey as the liver or darker, and in the early arterial phase the veins hold none yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.volume import LIVER, LabelMap, Volume

#: HU are averaged over cubes of so many mm, which leaves veins and takes most of the noise.
_CUBE_MM = 3.0
#: The surface, whose cubes hold fat and lung too, and the rim of tumours count as little as what lies beyond them.
_DEEP_MM = 8.0
#: Fewer cubes say nothing (27 mL of liver, more where voxels are larger).
_LEAST = 1000
#: The share of the liver that is darker than its vessels.
_DARKER = 98.0
#: In float32, since HU are either whole, of 16 bits, which sums may exceed, or not whole.
_sum = partial(np.add, dtype=np.float32)


def vessel_hu(labels: LabelMap, volume: Volume) -> float | None:
    """By how many HU the vessels in the liver of `labels` are brighter than it; both on one grid.

    The 98th percentile of the liver's inside less its median: at least twice the noise that is left in the cubes, so in
    a noisy scan more than vessels have. None where too little of a liver is shown.
    """
    spacing = volume.grid.spacing_mm
    size = [max(1, round(_CUBE_MM / mm)) for mm in spacing]
    liver = _joined(labels.array == LIVER, size, np.logical_and)
    # An edge of nothing around: a liver that the scan cuts ends there.
    away = ndimage.distance_transform_edt(np.pad(liver, 1), [n * mm for n, mm in zip(size, spacing, strict=True)])
    inside = away[1:-1, 1:-1, 1:-1] > _DEEP_MM
    if inside.sum() < _LEAST:
        return None
    hu = _joined(volume.array, size, _sum)[inside] / math.prod(size)
    return float(np.percentile(hu, _DARKER) - np.median(hu))


def _joined(array: NDArray[Any], size: Sequence[int], join: Callable[..., Any]) -> NDArray[Any]:
    """Blocks of `size` voxels of `array`, each joined to one, without what is left over at the end of an axis.

    As `skimage.measure.block_reduce`, which takes ten times as long, and as long again to import.
    """
    for axis, step in enumerate(size):
        array = np.moveaxis(array, axis, 0)
        whole = len(array) // step * step
        parts = [array[k:whole:step] for k in range(step)]
        array = np.moveaxis(reduce(join, parts), 0, axis)
    return array
