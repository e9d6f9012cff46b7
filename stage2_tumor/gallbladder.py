"""What stage 2 takes for a tumour though it is the gallbladder: as dark as water, and on the liver's surface.

A network that has seen few of them takes one for a tumour, which it resembles: dark, smooth, sharply bounded. Two
things tell them apart. Bile has 0 to 20 HU, as what is in simple cysts; tumours are solid, and seldom as dark where
they reach the surface. And the gallbladder hangs from the liver's lower face, so much of its outside is no liver, but
where the scan ends.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import Mask, components
from preprocess.geometry import Box, Triple
from preprocess.lesions import cores_hu, grown

#: From this geometric mean of stage 1's liver and stage 2's tumour on, something counts as called tumour here.
CALLED = 0.4
#: So much of what touches it is no liver, at least.
OUTSIDE_SHARE = 0.2
#: Smaller ones are left to the rules for tumours: what lies beside them is in their HU too.
LEAST_ML = 0.25
#: In a fatty liver tissue is as dark as water: it must be darker than the liver by so much.
DARKER_HU = 20.0
_VOXELS = 2_000_000


def gallbladder(called: Mask, liver: Mask, hu: NDArray[Any], spacing_mm: Triple, most_hu: float) -> Mask:
    """What of `liver` is no liver and no tumour: parts of what is `called` tumour, each array (z, y, x).

    A part counts that has `LEAST_ML` or more, in its deeper half a median of `most_hu` or less, `DARKER_HU` below the
    liver's, and `OUTSIDE_SHARE` or more of whose 6-neighbours are no liver, what lies below the first slice among them.
    Beyond the array's other ends nothing is known.
    """
    out = np.zeros_like(liver)
    box = Box.around(called & liver)
    if box is None:
        return out
    near = grown(box.slices, max(spacing_mm), spacing_mm)
    numbered, sizes = components((called & liver)[near])
    dark = cores_hu(numbered, hu[near], spacing_mm) <= min(most_hu, _liver_hu(liver & ~called, hu) - DARKER_HU)
    large = sizes * float(np.prod(spacing_mm)) / 1000 >= LEAST_ML
    boxes = ndimage.find_objects(numbered)
    for number in np.flatnonzero(dark & large):  # not 0, whose HU are NaN
        around = grown(boxes[number - 1], max(spacing_mm), spacing_mm)
        part = numbered[around] == number
        below = int(np.count_nonzero(part[0])) if near[0].start + around[0].start == 0 else 0
        if _outside(part, liver[near][around], below) >= OUTSIDE_SHARE:
            out[near][around] |= part
    return out


def _outside(part: Mask, liver: Mask, below: int) -> float:
    """The share of the 6-neighbours of `part` that are not in `liver`; `below` are the scan's end, and are none."""
    beside = ndimage.binary_dilation(part) & ~part
    return float(np.count_nonzero(beside & ~liver) + below) / max(1, int(np.count_nonzero(beside)) + below)


def _liver_hu(liver: Mask, hu: NDArray[Any]) -> float:
    """The median HU of `liver`, of a large one from some slices; -inf, below which nothing is, where there is none."""
    slices = np.flatnonzero(liver.any(axis=(1, 2)))
    some = slices[:: max(1, math.ceil(slices.size * liver[0].size / _VOXELS))]
    return float(np.median(hu[some][liver[some]])) if slices.size else -math.inf
