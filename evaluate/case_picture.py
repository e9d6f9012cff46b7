"""A case at one glance: the liver in three planes, below it other tumours close up, above it what the colours say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from evaluate.pictures import AGREED, COLOURS, Picture, beside, plane, three_planes
from preprocess.components import Mask, components
from preprocess.geometry import Box, index3
from preprocess.text import printable
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume

#: Around the livers so much of the scan is shown, and around the middle of a tumour.
MARGIN_MM, CLOSE_MM = 20.0, 30.0
#: How many tumours are shown close up, and how closely.
CLOSE_UPS, CLOSE_PIXEL_MM = 6, 0.4
_LINE_PIXELS, _WHITE = 16, (255, 255, 255)
_PLANES = "axial (left is the patient's right), coronal, sagittal (left is front); below other tumours, axial"
_LEGEND = (
    ("truth", COLOURS["truth", LIVER]),
    ("its tumours", COLOURS["truth", TUMOR]),
    ("prediction", COLOURS["prediction", LIVER]),
    ("its tumours", COLOURS["prediction", TUMOR]),
    ("both alike", AGREED),
)


def case_picture(case: str, volume: Volume, truth: LabelMap, prediction: LabelMap) -> Picture:
    """The picture of `case`, uint8 (rows, columns, 3), from scan and masks on one canonical grid, (z, y, x).

    The three planes of `three_planes`, cut to the livers and what is around; axial slices through the largest tumours,
    true or predicted, that those do not show, each `touched` or `missed` by the prediction, or `false`.
    """
    box = Box.around((truth.array >= LIVER) | (prediction.array >= LIVER))
    if box is not None:
        part = box.grown(MARGIN_MM, volume.grid)
        volume, truth, prediction = volume.cropped(part), truth.cropped(part), prediction.cropped(part)
    rows = [three_planes(volume, truth, prediction)]
    if close := list(_close_ups(volume, truth, prediction)):
        rows.append(beside(close))
    width = max(row.shape[1] for row in rows)
    head = [words([(f"{printable(case)}:", _WHITE), *_LEGEND], width), words([(_PLANES, _WHITE)], width)]
    return _below([*head, *rows])


def words(parts: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> Picture:
    """A line of words, each in its colour, `width` pixels wide or as wide as they are."""
    font = ImageFont.load_default()
    plain = [(text.encode("ascii", "replace").decode() + "  ", colour) for text, colour in parts]
    lengths = [int(font.getlength(text)) + 1 for text, _ in plain]
    line = Image.new("RGB", (max(width, sum(lengths)), _LINE_PIXELS))
    left = 0
    for (text, colour), length in zip(plain, lengths, strict=True):
        ImageDraw.Draw(line).text((left, 1), text, fill=colour, font=font)
        left += length
    return np.asarray(line)


def _close_ups(volume: Volume, truth: LabelMap, prediction: LabelMap) -> Iterator[Picture]:
    """Axial slices through tumours, largest first, without the one that the three planes run through."""
    for part, said in islice(_tumors(truth, prediction), 1, 1 + CLOSE_UPS):
        middle = [int(np.median(axis)) for axis in np.nonzero(part)]
        box = Box(index3(middle), index3([n + 1 for n in middle])).grown(CLOSE_MM, volume.grid)
        flat = Box(index3([middle[0], *box.start[1:]]), index3([middle[0] + 1, *box.stop[1:]]))
        scan, masks = volume.cropped(flat), (truth.cropped(flat), prediction.cropped(flat))
        cut = plane(0, 0, scan, *masks, pixel_mm=CLOSE_PIXEL_MM)
        yield _below([words([(said, _WHITE)], cut.shape[1]), cut])


def _tumors(truth: LabelMap, prediction: LabelMap) -> Iterator[tuple[Mask, str]]:
    """True tumours and those that touch none, with what is said of each: first that of `interesting`, then by size."""
    true, predicted = truth.array >= TUMOR, prediction.array >= TUMOR
    drawn = _parts(true, predicted, "touched", "missed")
    false = [part for part in _parts(predicted, true, "", "false") if part.said]
    every = [*drawn, *false]
    for part in every[:1] + sorted(every[1:], key=lambda part: -part.voxels):
        yield part.numbered == part.number, f"{part.said}, {part.voxels * truth.grid.voxel_ml:.1f} mL"


class _Part(NamedTuple):
    numbered: NDArray[np.int32]
    number: int
    voxels: int
    said: str


def _parts(mask: Mask, other: Mask, touched: str, alone: str) -> list[_Part]:
    """The parts of `mask`, largest first, with what is said of those that `other` touches and of the rest."""
    numbered, sizes = components(mask)
    met = np.bincount(numbered[other], minlength=len(sizes)) > 0
    order = np.argsort(-sizes[1:], kind="stable") + 1
    return [_Part(numbered, int(k), int(sizes[k]), touched if met[k] else alone) for k in order]


def _below(pictures: Sequence[Picture]) -> Picture:
    """`pictures` one below the other, left edges in line, on black."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))) for p in pictures])
