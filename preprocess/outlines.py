"""Where a lesion ends: at the HU between its own and those of the tissue around.

A network that has learned from few scans is sure of a lesion's middle, and draws its edge now too narrow and now too
wide, a faint one's most of all. Radiologists draw to where it can be seen. So what the network says decides whether
there is a lesion and what may belong to it, and the HU how far it goes: to a threshold between lesion and background
that is relative to both, as lesions are outlined in PET (Boellaard et al., EANM guidelines 2.0, European Journal of
Nuclear Medicine and Molecular Imaging 2015; 41 or 50 % there).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import Mask, components, fill_holes
from preprocess.geometry import Triple
from preprocess.lesions import AROUND_MM, grown

Parts = NDArray[np.int32]

#: The edge moves by so much at most, outwards or inwards: to where the tissue that the lesion is compared with begins.
REACH_MM = AROUND_MM[0]
#: HU are smoothed by a Gaussian of this width: the noise of a thin slice is as large as the contrast of a faint lesion.
SMOOTH_MM = 1.0
#: A lesion that differs by less from the tissue around has no edge to find, nor one with less tissue around.
LEAST_HU, LEAST_VOXELS = 10.0, 30
#: Of larger surroundings every second, third, ... voxel of each axis is compared.
COMPARED = 200_000
#: Voxels among which an edge is sought at a time, so that a large lesion needs no more memory than a small one.
AT_A_TIME = 2_000_000


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

    A part then holds what of it lay deeper than `REACH_MM`, and the possible voxels within `REACH_MM` of it, nearer to
    it than to others, whose HU have gone `share` of the way from the median of the tissue around (at `AROUND_MM`) to
    that of the part; of several pieces that hang together with it the largest, its holes filled. One without contrast
    stays as it is. Parts stay apart, and what one becomes does not depend on which others are wanted: so each can be
    counted by itself.
    """
    out = parts.copy()
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        if box is None or not wanted[number]:
            continue
        around, near = (grown(box, mm, seen.spacing_mm) for mm in (AROUND_MM[1], 2 * REACH_MM))
        levels = _levels(parts[around], number, seen.within(around))
        if levels is not None:
            drawn = _drawn(parts[near], number, seen.within(near), levels, share)
            out[near][parts[near] == number] = 0
            out[near][drawn] = number
    return out


def _drawn(parts: Parts, number: int, seen: Seen, levels: tuple[float, float], share: float) -> Mask:
    """The new mask of one part, of which `parts` shows what lies within twice `REACH_MM`: all that it depends on."""
    part: Mask = parts == number
    background, contrast = levels
    belongs = np.zeros_like(part)
    for slab, wide in _slabs(part.shape, seen.spacing_mm):
        some = seen.within((wide,))
        sigma = [SMOOTH_MM / s for s in seen.spacing_mm]
        smooth = ndimage.gaussian_filter(some.hu.astype(np.float32), sigma, truncate=REACH_MM / SMOOTH_MM)
        away, own = _distances(parts[wide], number, seen.spacing_mm)
        inner = own & (away <= REACH_MM) & some.possible & ((smooth - background) / contrast >= share)
        inner |= ndimage.distance_transform_edt(parts[wide] == number, seen.spacing_mm) > REACH_MM
        belongs[slab] = inner[slab.start - wide.start :][: slab.stop - slab.start]
    pieces, sizes = components(belongs)
    touching = np.bincount(pieces[part], minlength=len(sizes)) > 0
    touching[0] = False
    if not touching.any():
        return part
    drawn = pieces == int(np.argmax(sizes * touching))
    filled = fill_holes(drawn)
    return drawn if (parts[filled & ~drawn & ~part] > 0).any() else filled  # another one lies in the hole


def _levels(parts: Parts, number: int, seen: Seen) -> tuple[float, float] | None:
    """The median HU around a part, and by how much its own differs; None where that says nothing."""
    every = math.ceil((parts.size / COMPARED) ** (1 / 3))
    thin = (slice(None, None, every),) * 3
    few = seen.within(thin)
    away, own = _distances(parts[thin], number, (every * s for s in seen.spacing_mm))
    part, around = parts[thin] == number, few.tissue & own & (away > AROUND_MM[0]) & (away <= AROUND_MM[1])
    if not part.any() or np.count_nonzero(around) < LEAST_VOXELS:
        return None
    background = float(np.median(few.hu[around]))
    contrast = float(np.median(few.hu[part])) - background
    return None if abs(contrast) < LEAST_HU else (background, contrast)


def _slabs(shape: tuple[int, ...], spacing_mm: Triple) -> Iterator[tuple[slice, slice]]:
    """Slabs of slices that fit into little memory, each with the one around it that what is in it depends on."""
    depth = max(1, AT_A_TIME // math.prod(shape[1:]))
    around = math.ceil(2 * REACH_MM / spacing_mm[0]) + 1
    for start in range(0, shape[0], depth):
        stop = min(start + depth, shape[0])
        yield slice(start, stop), slice(max(0, start - around), min(stop + around, shape[0]))


def _distances(parts: Parts, number: int, spacing_mm: Iterable[float]) -> tuple[NDArray[Any], Mask]:
    """How far each voxel is from the nearest part, in mm, and whether that is this one, for those beside it too."""
    part: Mask = parts == number
    if not part.any():
        return np.full(part.shape, np.inf), part
    if (parts[~part] == 0).all():
        return np.asarray(ndimage.distance_transform_edt(~part, tuple(spacing_mm))), np.ones_like(part)
    away, nearest = ndimage.distance_transform_edt(parts == 0, tuple(spacing_mm), return_indices=True)
    near: Mask = parts[tuple(nearest)] == number
    own = near.copy()
    for axis in range(3):
        here, there = np.moveaxis(own, axis, 0), np.moveaxis(near, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
    return away, own | part
