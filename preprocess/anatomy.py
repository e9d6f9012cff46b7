"""Does the anatomy lie as the header says? The liver is on the right, the spine at the back, the lungs above.

A flipped direction in a header mirrors or turns the patient without any other trace: LiTS holds such scans. Needs the
liver's label; works on a coarse copy, in a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import largest
from preprocess.geometry import Box
from preprocess.volume import LabelMap, Volume

_COARSE_MM = 4.0
#: HU that part air from tissue even in a scan clipped to -160..240, and bone from the rest.
_AIR_HU, _BONE_HU = -150, 200
#: The spine is looked for so near to the body's middle; ribs lie further out.
_SPINE_MM = 35.0
#: How far on the wrong side something must lie: ten scans have the liver 50 to 85 mm to the right of the body's median
#: and bone near its middle 8 to 82 mm behind it.
_LIVER_OFF_MM, _SPINE_OFF_MM = 20.0, 10.0
#: Air inside the body in the top quarter of the liver's slices (lungs) is 1.5 to 33 times that in the bottom quarter
#: (bowel) in ten scans; so many times more at the bottom, and so much of it (mm2 a slice), means head down. Lungs have
#: 64 to 329 cm2 there, bowel 5 to 50. In 340 slabs of these scans, cut through the liver, at the bottom is at most
#: 2.2 times what is at the top (counted by scripts that are not here), in one of another scan 5 times: 22 cm2.
_AIR_RATIO, _AIR_MM2 = 3.0, 5000.0


def misplaced(volume: Volume, labels: LabelMap) -> Iterator[str]:
    """What lies on the wrong side, one warning each. Nothing for a label without liver or an image without a body."""
    for text in _misplaced(volume, labels):
        yield f"{text}: a flipped direction in the header, or situs inversus? Compare with the original series"


def _misplaced(volume: Volume, labels: LabelMap) -> Iterator[str]:
    step = [max(1, round(_COARSE_MM / spacing)) for spacing in volume.grid.spacing_mm]
    coarse = tuple(slice(None, None, s) for s in step)
    _, y_mm, x_mm = np.array(step) * volume.grid.spacing_mm
    liver, hu = labels.array[coarse] > 0, volume.array[coarse]
    box = Box.around(liver)
    if box is None:
        return
    # Only the liver's slices: the pelvis has bone in front.
    part = box.slices[0]
    liver, hu = liver[part], hu[part]
    body = _body(hu)
    if not body.any():
        return
    y, x = (float(np.median(np.nonzero(body)[axis])) for axis in (1, 2))
    liver_off = (np.nonzero(liver)[2].mean() - x) * x_mm
    if liver_off > _LIVER_OFF_MM:
        yield f"the liver lies {liver_off:.0f} mm to the left of the body's middle"
    middle = np.abs(np.arange(hu.shape[2]) - x) * x_mm < _SPINE_MM
    spine = np.nonzero(body & (hu >= _BONE_HU) & middle)[1]
    if spine.size and (spine_off := (spine.mean() - y) * y_mm) < -_SPINE_OFF_MM:
        yield f"the bone in the body's middle lies {-spine_off:.0f} mm before it, where the belly should be"
    air = (body & (hu <= _AIR_HU)).sum((1, 2)) * y_mm * x_mm
    quarter = max(1, len(air) // 4)
    below, above = air[:quarter].mean(), air[-quarter:].mean()
    if len(air) > 1 and below > max(_AIR_MM2, _AIR_RATIO * above):
        yield f"the lungs' air is below the liver ({below / 100:.0f} cm2 a slice) and not above ({above / 100:.0f} cm2)"


def _body(hu: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest body of tissue with the air inside it, filled slice by slice; without table and clothes."""
    body = largest(np.asarray(ndimage.binary_opening(hu > _AIR_HU)))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in body])
