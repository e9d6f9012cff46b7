"""What stage 2 takes for a tumour though it is the gallbladder: as dark as water, and on the liver's surface.

A network that has seen few of them takes one for a tumour, which it resembles: dark, smooth, sharply bounded. Two
things tell them apart. Bile has 0 to 20 HU, as what is in simple cysts; the darkest of the true tumours of 0.25 mL and
more in six scans has 27, the darkest on the surface 36 (docs/training.md). And the gallbladder hangs from the liver's
lower face, so much of its outside is no liver, but where the scan ends. Bowel full of water, and other fluid
there, is taken for it too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import Mask, components, fill_holes
from preprocess.edges import organ_hu
from preprocess.geometry import Box, Triple
from preprocess.lesions import cores_hu, grown

#: From this geometric mean of stage 1's liver and stage 2's tumour on, something is called tumour here. It is not
#: `policy.tumor_threshold`, so that each liver of `cascade tune` is one for all of those.
CALLED = 0.4
#: So much of its surface is on what is no liver, at least: as of a ball that stands out by a quarter of its diameter.
OUTSIDE_SHARE = 0.15
#: Smaller ones are left to the rules for tumours: what lies beside them is in their HU too. No gallbladder is larger,
#: but a tumour that has died inside may be.
LEAST_ML, MOST_ML = 0.25, 150.0
#: In a fatty liver tissue is as dark as water: it must be darker than the liver by so much.
DARKER_HU = 20.0
#: What the scan's lower end cuts may go on below it, if so much of the liver is shown that it is no slab of one.
TALL_MM = 60.0
#: As `policy.gallbladder_hu`: there is no such rule.
OFF_HU = -1024.0


def gallbladder(called: Mask, liver: Mask, hu: NDArray[Any], spacing_mm: Triple, most_hu: float) -> Mask:
    """What of `liver` is no liver and no tumour: parts of what is `called` tumour, each array (z, y, x).

    A part counts that has `LEAST_ML` to `MOST_ML`, in its deeper half a median of `most_hu` or less, `DARKER_HU` below
    the liver's, and `OUTSIDE_SHARE` or more of whose surface borders on what lies outside the liver. So does what lies
    below the first slice, where the liver is cut by the scan's end, unless it is lower than `TALL_MM`; beyond the
    array's other ends nothing is known.
    """
    out = np.zeros_like(liver)
    box = None if most_hu <= OFF_HU else Box.around(called & liver)
    if box is None:
        return out
    near = grown(box.slices, min(spacing_mm), spacing_mm)
    numbered, sizes = components(called[near] & liver[near])
    ml = sizes * float(np.prod(spacing_mm)) / 1000
    fit = (ml >= LEAST_ML) & (ml <= MOST_ML)
    numbered[~fit[numbered]] = 0
    dark = cores_hu(numbered, hu[near], spacing_mm) <= min(most_hu, organ_hu(liver, called, hu) - DARKER_HU)
    if not dark.any():
        return out
    whole = fill_holes(liver)[near]  # a hole is not outside: it would be filled again
    tall = int(np.count_nonzero(liver.any(axis=(1, 2)))) * spacing_mm[0] >= TALL_MM
    boxes = ndimage.find_objects(numbered)
    for number in np.flatnonzero(dark):  # not 0, whose HU are NaN
        around = grown(boxes[number - 1], min(spacing_mm), spacing_mm)
        part = numbered[around] == number
        if _outside_share(part, whole[around], spacing_mm, tall) >= OUTSIDE_SHARE:
            out[near][around] |= part
    return out


def _outside_share(part: Mask, liver: Mask, spacing_mm: Triple, below: bool) -> float:
    """The share of the surface of `part`, by the faces of its voxels, that borders on what is not `liver`; `below`: or
    on what lies below the array: its box was grown by a slice, so it has voxels in the first only where that ends."""
    surface = outside = 0.0
    for axis in range(3):
        area = float(np.prod(spacing_mm)) / spacing_mm[axis]
        inside, tissue = np.moveaxis(part, axis, 0), np.moveaxis(liver, axis, 0)
        for here, there, around in (
            (inside[1:], inside[:-1], tissue[:-1]),
            (inside[:-1], inside[1:], tissue[1:]),
        ):
            surface += area * float(np.count_nonzero(here & ~there))
            outside += area * float(np.count_nonzero(here & ~there & ~around))
    if below:
        area = spacing_mm[1] * spacing_mm[2] * float(np.count_nonzero(part[0]))
        surface, outside = surface + area, outside + area
    return outside / surface if surface else 0.0
