"""An axial, a coronal and a sagittal slice with the contours of truth and prediction.

Where there is a tumour, true or predicted, the slices run through the middle of the largest; else through the liver's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.segmentation import find_boundaries

from preprocess.components import largest
from preprocess.geometry import Index, index3
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume

Picture = NDArray[np.uint8]

#: HU from black to white.
WINDOW_HU = (-110.0, 190.0)
PIXEL_MM = 0.8
_GAP_PIXELS = 6
#: Colours that also differ for the colour-blind (Okabe and Ito): truth blue, prediction orange; tumours are lighter.
COLOURS = {
    ("truth", LIVER): (0, 114, 178),
    ("truth", TUMOR): (86, 180, 233),
    ("prediction", LIVER): (213, 94, 0),
    ("prediction", TUMOR): (240, 228, 66),
}
#: Where both contours are the same.
AGREED = (255, 255, 255)


def three_planes(volume: Volume, truth: LabelMap, prediction: LabelMap) -> Picture:
    """Axial, coronal and sagittal slice side by side, uint8 (rows, columns, 3), `PIXEL_MM` a pixel, head up.

    All three arguments are on one canonical grid, (z, y, x). Contours: see `COLOURS`.
    """
    centre = interesting(truth, prediction)
    return beside([plane(axis, centre[axis], volume, truth, prediction) for axis in range(3)])


def beside(pictures: Sequence[Picture]) -> Picture:
    """`pictures` side by side, tops in line, on black."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, _GAP_PIXELS), (0, 0))) for p in pictures]
    return np.concatenate(padded, axis=1)[:, :-_GAP_PIXELS]


def png(picture: Picture) -> bytes:
    """The bytes of a PNG file of an RGB picture."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def interesting(truth: LabelMap, prediction: LabelMap) -> Index:
    """A voxel (z, y, x) in the middle of the largest tumour or else of the liver; the volume's middle without any."""
    for labels, least in ((truth, TUMOR), (prediction, TUMOR), (truth, LIVER), (prediction, LIVER)):
        mask = labels.array >= least
        if mask.any():
            # The middle by rank along each axis lies in a slice that holds the part, whatever its shape.
            return index3([int(np.median(axis)) for axis in np.nonzero(largest(mask))])
    return index3([n // 2 for n in truth.array.shape])


def plane(
    axis: int, at: int, volume: Volume, truth: LabelMap, prediction: LabelMap, pixel_mm: float = PIXEL_MM
) -> Picture:
    """Slice `at` across `axis` with contours, uint8 (rows, columns, 3), `pixel_mm` a pixel."""
    spacing = [s for i, s in enumerate(volume.grid.spacing_mm) if i != axis]
    low, high = WINDOW_HU
    grey = (_cut(volume.array, axis, at).astype(np.float32).clip(low, high) - low) * (255 / (high - low))
    zoom = [s / pixel_mm for s in spacing]
    picture = np.repeat(_scaled(grey, zoom, order=1)[..., None], 3, axis=2).astype(np.uint8)
    true, predicted = (_scaled(_cut(labels.array, axis, at), zoom, order=0) for labels in (truth, prediction))
    for least in (LIVER, TUMOR):
        one, other = (find_boundaries(classes >= least, mode="inner") for classes in (true, predicted))
        picture[one], picture[other] = COLOURS["truth", least], COLOURS["prediction", least]
        picture[one & other] = AGREED
    return picture


def _cut(array: NDArray[Any], axis: int, at: int) -> NDArray[Any]:
    """One slice; in the coronal and the sagittal one the head is up, while z grows to the head."""
    plane: NDArray[Any] = array.take(at, axis=axis)
    return plane if axis == 0 else plane[::-1]


def _scaled(plane: NDArray[Any], zoom: list[float], *, order: int) -> NDArray[Any]:
    zoomed: NDArray[Any] = ndimage.zoom(plane, zoom, order=order, grid_mode=True, mode="nearest")
    return zoomed
