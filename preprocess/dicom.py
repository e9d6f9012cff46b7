"""Reads one CT series out of a folder of DICOM files, placing slices by their positions and never by their names.

The reader of SimpleITK builds wrong volumes from gapped, doubled or tilted series without a word; here each of these is
refused or, where slices are only unevenly spaced, resampled with a word. Messages name no patient and no UID.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.decoded import Decoded, lattice
from preprocess.dicom_files import DicomFile, dicom_file, dicom_files
from preprocess.dicom_pixels import LOSSY, slice_hu
from preprocess.dicom_series import LEAST_SLICES, check_slice, chosen_series
from preprocess.dicom_steps import even_step, evened
from preprocess.errors import InputError
from preprocess.itk_child import ItkChild

#: Most that slices may drift sideways, in mm and in parts of the stack's height (0.002 is 0.1 degrees of tilt).
DRIFT_TOLERANCE_MM, DRIFT_TOLERANCE = 0.1, 0.002

#: Slices closer than this are at one position.
SAME_POSITION_MM = 0.01

#: Degrees of a stated tilt that are worth a word.
_NOTABLE_TILT = 0.5

#: Stands in for the missing SliceThickness of a single slice.
_THICKNESS_MM = 1.0


def read_series(folder: Path, *, ct_only: bool = True) -> Decoded:
    """The only series of at least three slices in `folder`, rescaled, (z, y, x), sorted by position.

    Files that are no DICOM are ignored; localizers and other objects are skipped with a warning. With `ct_only` (an
    image) the modality must be CT; without (a label) it may be any. Slices that are unevenly spaced, without one
    missing, are interpolated to even steps (of a label the nearest is taken) with a warning. Raises InputError for
    several series, slices that differ in size or direction, lie at one position, have gaps, or drift sideways (gantry
    tilt).
    """
    files, warnings = dicom_files(folder)
    files, skipped = chosen_series(folder, files, ct_only=ct_only)
    _check_alike(folder, files)
    with ItkChild() as decoder:
        files, doubled = _ordered(folder, files, decoder)
        heights, directions = _stacked(folder, files)
        step = even_step(folder, heights)
        array = _pixels(files, decoder)
    uneven: tuple[str, ...] = ()
    if step is None:
        array, step, uneven = evened(folder, array, heights, classes=not ct_only)
    grid = lattice(folder, array.shape, directions * _spacing(files[0], step), _positions(files)[0])
    odd = (*uneven, *_tilt_warning(files, directions[0]), *_odd_pixels(files, ct_only))
    return Decoded(folder, array, grid, warnings=(*warnings, *skipped, *doubled, *odd))


def read_slice(path: Path) -> Decoded:
    """The CT slice in one DICOM file as a volume (1, y, x), as thick as its header says.

    Raises InputError when the file is no CT slice.
    """
    file = dicom_file(path)
    if file is None:
        raise InputError(f"{path} holds no DICOM picture (a DICOMDIR only lists files); give the folder of the slices")
    check_slice(file)
    directions = _directions(file)
    thickness, odd = _THICKNESS_MM, ("the slice does not say how thick it is; 1 mm assumed",)
    if file.text("SliceThickness"):
        thickness, odd = float(file.numbers("SliceThickness", 1)[0]), ()  # type: ignore[assignment]
    with ItkChild() as decoder:
        array = slice_hu(file, decoder)[None]
    grid = lattice(path, (1, *file.size), directions * _spacing(file, thickness), _positions([file])[0])
    return Decoded(path, array, grid, warnings=(*odd, *_odd_pixels([file], ct_only=True)))


def _odd_pixels(files: Sequence[DicomFile], ct_only: bool) -> tuple[str, ...]:
    odd = []
    if ct_only and not all(file.text("RescaleSlope") or file.text("RescaleIntercept") for file in files):
        odd.append("the series has no rescale: what its values are is guessed from them")
    kinds = sorted({file.text("RescaleType").upper() for file in files} - {"", "HU", "US"})  # US: unspecified
    if ct_only and kinds:
        odd.append(f"the header says that its values are {', '.join(kinds)}, not HU: a map made of CT, and no CT?")
    if any(file.syntax in LOSSY for file in files):
        odd.append("the slices are compressed with loss (JPEG); HU are not exact")
    return tuple(odd)


def _tilt_warning(files: Sequence[DicomFile], normal: NDArray[np.float64]) -> tuple[str, ...]:
    """A tilted gantry that straight slices stacked straight do not show: untilted before, or headers that lie."""
    with contextlib.suppress(ValueError):
        degrees = max(abs(float(file.text("GantryDetectorTilt") or 0)) for file in files)
        if degrees > _NOTABLE_TILT and np.abs(normal).max() > np.cos(np.radians(_NOTABLE_TILT)):
            return (
                f"the header states a gantry tilt of {degrees:.3g} degrees, its positions show none; taken as straight",
            )
    return ()


def _check_alike(folder: Path, files: Sequence[DicomFile]) -> None:
    """Raises InputError when slices differ in size, pixel spacing or direction."""
    sizes = sorted({file.size for file in files})
    if len(sizes) > 1:
        raise InputError(f"{folder}: slices of several sizes {sizes} in one series; keep those of one size")
    for keyword, count in (("PixelSpacing", 2), ("ImageOrientationPatient", 6)):
        values = np.array([file.numbers(keyword, count) for file in files])
        if np.ptp(values, axis=0).max() > 1e-3:
            raise InputError(f"{folder}: slices differ in {keyword}; keep those of one stack")


def _directions(file: DicomFile) -> NDArray[np.float64]:
    """Unit world vectors (3, 3): the normal, down a column, along a row."""
    row, column = file.numbers("ImageOrientationPatient", 6).clip(-2, 2).reshape(2, 3)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.5:
        raise InputError(f"{file.path}: ImageOrientationPatient is no direction; export the series again")
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    return np.array([normal / max(float(np.linalg.norm(normal)), 1e-9), column, row])


def _positions(files: Sequence[DicomFile]) -> NDArray[np.float64]:
    return np.array([file.numbers("ImagePositionPatient", 3) for file in files])


def _spacing(file: DicomFile, step_mm: float) -> NDArray[np.float64]:
    """Millimetres (3, 1) along the normal, down a column, along a row."""
    return np.array([[step_mm], *file.numbers("PixelSpacing", 2)[:, None].tolist()])


def _ordered(folder: Path, files: list[DicomFile], decoder: ItkChild) -> tuple[list[DicomFile], tuple[str, ...]]:
    """Slices from low to high along the normal, without repetitions of one slice."""
    heights = _positions(files) @ _directions(files[0])[0]
    order = np.argsort(heights, kind="stable")
    kept: list[DicomFile] = []
    last = -np.inf
    for i in order:
        if heights[i] - last > SAME_POSITION_MM:
            kept.append(files[i])
            last = heights[i]
        elif not np.array_equal(slice_hu(files[i], decoder), slice_hu(kept[-1], decoder)):
            raise InputError(
                f"{folder}: several different slices share one position, so this is not a volume (several phases?); "
                "keep one phase"
            )
    if len(kept) < LEAST_SLICES:
        raise InputError(f"{folder} has {len(kept)} different slices; a volume needs at least {LEAST_SLICES}")
    dropped = len(files) - len(kept)
    return kept, ((f"{dropped} repeated slices dropped",) if dropped else ())


def _stacked(folder: Path, files: Sequence[DicomFile]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heights (mm from the first) of sorted slices, and `_directions`. Raises InputError when they drift sideways."""
    directions, positions = _directions(files[0]), _positions(files)
    offsets = positions - positions[0]
    heights = offsets @ directions[0]
    drift = np.linalg.norm(offsets - heights[:, None] * directions[0], axis=1)
    if (drift > DRIFT_TOLERANCE_MM + DRIFT_TOLERANCE * heights).any():
        degrees = np.degrees(np.arctan2(drift[-1], heights[-1]))
        raise InputError(f"{folder}: slices are shifted sideways by {degrees:.1f} degrees (gantry tilt); untilt the CT")
    return heights, directions


def _pixels(files: Sequence[DicomFile], decoder: ItkChild) -> NDArray[Any]:
    """All slices (z, y, x), in the narrowest of int16 and what a slice needs: a rescale may differ between slices."""
    out: NDArray[Any] | None = None
    for z, file in enumerate(files):
        plane = slice_hu(file, decoder)
        # Not before the first slice is there: a small file may claim any size.
        out = np.empty((len(files), *file.size), np.int16) if out is None else out
        out = out.astype(np.promote_types(out.dtype, plane.dtype), copy=False)
        out[z] = plane
    assert out is not None
    return out
