"""Labels that come as one mask a structure (3D-IRCADb-01) or one picture a slice (CHAOS), not as one label file.

Every reader places its slices by the positions in DICOM headers and returns a `LabelMap` in canonical orientation;
none trusts the order in which a folder lists its files, but where the format has nothing else (`read_png_masks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preprocess.cases import DicomMasks, PngMasks
from preprocess.errors import InputError
from preprocess.folders import entries
from preprocess.geometry import Grid, triple
from preprocess.volume import LIVER, TUMOR, LabelMap

if TYPE_CHECKING:
    from SimpleITK import ImageFileReader

#: Most that the corners of two grids of one scan may differ. Headers are float32 and written by different programs: the
#: noise of a direction grows over the length of a body. Still far below a voxel, so a shift by one cannot pass.
GRID_TOLERANCE_MM = 0.1

_IMAGE_POSITION = "0020|0032"


def read_dicom_masks(label: DicomMasks) -> LabelMap:
    """Liver and tumour masks (z, y, x) merged to 0/1/2, in canonical orientation; a tumour lies over the liver.

    Raises InputError for a folder that is no stack of DICOM slices, or a tumour mask on another grid than the liver's.
    """
    liver, grid = _dicom_mask(label.liver)
    labels = np.where(liver, LIVER, 0).astype(np.uint8)
    for folder in label.tumors:
        tumor, tumor_grid = _dicom_mask(folder)
        off_mm = tumor_grid.mismatch_mm(grid)
        if off_mm > GRID_TOLERANCE_MM:
            raise InputError(f"{folder} is {off_mm:.3g} mm off {label.liver}; the masks must cover the same slices")
        labels[tumor] = TUMOR
    return LabelMap(labels, grid).reoriented(grid.canonical())


def read_png_masks(label: PngMasks, image: Path) -> LabelMap:
    """One PNG a slice as liver (1) or background (0), (z, y, x), in canonical orientation.

    A PNG has no position. CHAOS numbers its PNGs as it numbers its DICOM files (scan 3: from the head downwards), so
    PNG k belongs to the k-th file of `image` by name, and lies where the header of that file says.
    Raises InputError when the counts or sizes differ, or when the PNGs hold more than one class (CHAOS's MR scans do).
    """
    pictures = [path for path in entries(label.folder) if path.suffix.lower() == ".png"]
    slices = [_Slice.read(path) for path in entries(image)]
    if not pictures or len(pictures) != len(slices):
        raise InputError(
            f"{label.folder} has {len(pictures)} PNGs for {len(slices)} slices in {image}; it needs one each"
        )
    grid, order = _stacked(slices, image)
    pixels = [_pixels(_reader(path, "PNGImageIO"), path) for path in pictures]
    classes = {int(value) for picture in pixels for value in np.unique(picture)} - {0}
    if len(classes) > 1:
        raise InputError(f"{label.folder} holds the values {sorted(classes)}; expected one value for the liver and 0")
    for path, picture in zip(pictures, pixels, strict=True):
        if picture.shape != grid.shape[1:]:
            raise InputError(f"{path} has shape {picture.shape}; the slices in {image} have {grid.shape[1:]}")
    array = np.stack([pixels[i] != 0 for i in order]).astype(np.uint8)
    return LabelMap(array, grid).reoriented(grid.canonical())


@dataclass(frozen=True)
class _Slice:
    """Header of one DICOM slice; directions are unit vectors (x, y, z)."""

    path: Path
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]  # rows: along a pixel row, along a pixel column, the normal
    spacing_mm: tuple[float, float]  # (y, x)
    shape: tuple[int, int]  # (y, x)

    @staticmethod
    def read(path: Path) -> _Slice:
        reader = _dicom_reader(path)
        if not reader.HasMetaDataKey(_IMAGE_POSITION):
            raise InputError(f"{path} has no ImagePositionPatient; export the series again with positions")
        try:
            position = triple([float(v) for v in reader.GetMetaData(_IMAGE_POSITION).split("\\")])
        except ValueError:
            raise InputError(f"{path} has a broken ImagePositionPatient; export the series again") from None
        x_mm, y_mm = reader.GetSpacing()[:2]
        width, height = reader.GetSize()[:2]
        directions = np.array(reader.GetDirection()).reshape(3, 3).T
        return _Slice(path, np.array(position), directions, (y_mm, x_mm), (height, width))

    def like(self, other: _Slice) -> bool:
        """Whether both slices have the same pixel grid, up to their position."""
        same = self.shape == other.shape and np.allclose(self.spacing_mm, other.spacing_mm, rtol=1e-4)
        return bool(same and np.allclose(self.directions, other.directions, atol=1e-4))


def _stacked(slices: Sequence[_Slice], folder: Path) -> tuple[Grid, list[int]]:
    """The grid (z, y, x) of slices sorted along their normal, and where in `slices` each layer of it is."""
    if len(slices) < 2:
        raise InputError(f"{folder} has {len(slices)} DICOM slices; a volume needs at least 2")
    first = slices[0]
    for other in slices:
        if not other.like(first):
            raise InputError(f"{other.path} differs from {first.path} in size, spacing or direction; keep one series")
    height = [float(s.position_mm @ first.directions[2]) for s in slices]
    order = sorted(range(len(slices)), key=height.__getitem__)
    steps = np.diff([height[i] for i in order])
    # A tenth of a slice is rounding of positions; a missing or doubled slice changes a step by a whole one.
    if np.ptp(steps) > 0.1 * steps.mean():
        raise InputError(
            f"{folder} has slices {steps.min():.3g} to {steps.max():.3g} mm apart; one is missing or doubled"
        )
    bottom = slices[order[0]].position_mm
    rise = slices[order[-1]].position_mm - bottom
    length = float(np.linalg.norm(rise))
    y_axis, x_axis = triple(first.directions[1]), triple(first.directions[0])
    try:
        grid = Grid(
            shape=(len(slices), *first.shape),
            spacing_mm=(length / (len(slices) - 1), *first.spacing_mm),
            origin_mm=triple(bottom),
            # Not the normal: slices that are sheared (a tilted gantry) must not pass as a box.
            axes=(triple(rise / max(length, 1e-9)), y_axis, x_axis),
        )
    except ValueError as error:
        raise InputError(f"{folder} is no regular stack of slices: {error}") from error
    return grid, order


def _dicom_mask(folder: Path) -> tuple[NDArray[np.bool_], Grid]:
    """Where the pixels of a DICOM folder are not 0, (z, y, x), and the grid of its files."""
    slices = [_Slice.read(path) for path in entries(folder)]
    grid, order = _stacked(slices, folder)
    paths = [slices[i].path for i in order]
    return np.stack([_pixels(_dicom_reader(path), path) != 0 for path in paths]), grid


def _reader(path: Path, kind: str) -> ImageFileReader:
    from SimpleITK import ImageFileReader  # here, because few runs have a mask of this kind, and it takes its time

    reader = ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(path))
    return reader


def _dicom_reader(path: Path) -> ImageFileReader:
    reader = _reader(path, "GDCMImageIO")  # named, because the files of 3D-IRCADb have no ending to guess from
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as a DICOM slice; remove it or copy it again") from error
    return reader


def _pixels(reader: ImageFileReader, path: Path) -> NDArray[Any]:
    """The pixels (y, x) of a grey picture."""
    from SimpleITK import GetArrayFromImage

    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read; it is damaged, copy it again") from error
    width, height = image.GetSize()[:2]
    array: NDArray[Any] = GetArrayFromImage(image)
    if array.size != width * height:
        raise InputError(f"{path} has shape {array.shape}; expected one grey picture")
    return array.reshape(height, width)
