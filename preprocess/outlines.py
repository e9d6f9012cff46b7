"""Where a lesion ends: at the HU between its own and those of the tissue around.

A network that has learned from few scans is sure of a lesion's middle, and draws its edge now too narrow and now too
wide, a faint one's most of all. Radiologists draw to where it can be seen. So what the network says decides whether
there is a lesion and what may belong to it, and the HU how far it goes: to a threshold between lesion and background
that is relative to both, as lesions are outlined in PET (Boellaard et al., EANM guidelines 2.0, European Journal of
Nuclear Medicine and Molecular Imaging 2015; 41 or 50 % there).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import Mask, components
from preprocess.geometry import Triple
from preprocess.lesions import AROUND_MM

Parts = NDArray[np.int32]

#: A lesion reaches at most so far beyond what it was: to where the tissue that it is compared with begins.
REACH_MM = AROUND_MM[0]
#: HU are smoothed by a Gaussian of this width: the noise of a thin slice is as large as the contrast of a faint lesion.
SMOOTH_MM = 1.0
#: A lesion that differs by less from the tissue around has no edge to find, nor one with less tissue around.
LEAST_HU, LEAST_VOXELS = 10.0, 30


@dataclass(frozen=True, eq=False)
class Seen:
    """What there is to see, each (z, y, x): where a lesion is `possible`, the `tissue` that is none, and the HU."""

    possible: Mask
    tissue: Mask
    hu: NDArray[Any]
    spacing_mm: Triple

    def within(self, part: tuple[slice, ...]) -> Seen:
        """The same of a part of the scan."""
        return Seen(self.possible[part], self.tissue[part], self.hu[part], self.spacing_mm)


def outlined(parts: Parts, wanted: Mask, seen: Seen, share: float) -> Parts:
    """`parts` (z, y, x), numbered from 1, with those that are `wanted` (by number) drawn anew.

    A part then holds the possible voxels within `REACH_MM` of it, nearer to it than to others, whose HU have gone
    `share` of the way from the median of the tissue around (at `AROUND_MM`) to that of the part; of several pieces that
    hang together with it the largest. One without contrast stays as it is. Parts stay apart, and what one becomes does
    not depend on which others are wanted: so each can be counted by itself.
    """
    out = parts.copy()
    reach = [math.ceil(AROUND_MM[1] / s) for s in seen.spacing_mm]
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        if box is None or not wanted[number]:
            continue
        near = tuple(slice(max(0, axis.start - n), axis.stop + n) for axis, n in zip(box, reach, strict=True))
        drawn = _drawn(parts[near], number, seen.within(near), share)
        out[near][parts[near] == number] = 0
        out[near][drawn] = number
    return out


def _drawn(parts: Parts, number: int, seen: Seen, share: float) -> Mask:
    """The new mask of one part."""
    part: Mask = parts == number
    away, own = _distances(parts, part, number, seen.spacing_mm)
    around = seen.tissue & own & (away > AROUND_MM[0]) & (away <= AROUND_MM[1])
    smooth = ndimage.gaussian_filter(seen.hu.astype(np.float32), [SMOOTH_MM / s for s in seen.spacing_mm])
    if np.count_nonzero(around) < LEAST_VOXELS:
        return part
    background = float(np.median(smooth[around]))
    contrast = float(np.median(smooth[part])) - background
    if abs(contrast) < LEAST_HU:
        return part
    alike = (smooth - background) / contrast >= share
    pieces, sizes = components(seen.possible & own & (away <= REACH_MM) & alike)
    touching = np.bincount(pieces[part], minlength=len(sizes)) > 0
    touching[0] = False
    return pieces == int(np.argmax(sizes * touching)) if touching.any() else part


def _distances(parts: Parts, part: Mask, number: int, spacing_mm: Triple) -> tuple[NDArray[Any], Mask]:
    """How far each voxel is from the nearest part, in mm, and whether that is `part`, for all voxels beside it too."""
    if (parts[~part] == 0).all():
        return np.asarray(ndimage.distance_transform_edt(~part, spacing_mm)), np.ones_like(part)
    away, nearest = ndimage.distance_transform_edt(parts == 0, spacing_mm, return_indices=True)
    near: Mask = parts[tuple(nearest)] == number
    own = near.copy()
    for axis in range(3):
        here, there = np.moveaxis(own, axis, 0), np.moveaxis(near, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
    return away, own | part
