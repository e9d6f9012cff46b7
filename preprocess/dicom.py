"""Reads one CT series out of a folder of DICOM files, placing slices by their positions and never by their names.

The reader of SimpleITK builds wrong volumes from gapped, doubled or tilted series without a word; here each of these is
refused. Messages name no patient and no UID. One file is one slice: multi-frame objects are refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.decoded import Decoded, lattice
from preprocess.dicom_files import MODALITY, ORIENTATION, PIXEL_SPACING, POSITION, SERIES, SLOPE, DicomFile, dicom_files
from preprocess.errors import InputError
from preprocess.geometry import Grid

#: A series of fewer slices is no volume.
LEAST_SLICES = 3

#: Most that a slice may lie off the even lattice along the normal, in parts of a step: positions are often rounded to
#: 0.1 mm, and a missing slice is off by a whole step.
STEP_TOLERANCE = 0.1

#: Most that slices may drift sideways, in mm and in parts of the stack's height (0.002 is 0.1 degrees of tilt).
DRIFT_TOLERANCE_MM, DRIFT_TOLERANCE = 0.1, 0.002

#: Slices closer than this are at one position.
SAME_POSITION_MM = 0.01


def read_series(folder: Path, *, ct_only: bool = True) -> Decoded:
    """The only series of at least `LEAST_SLICES` slices in `folder`, rescaled, (z, y, x), sorted by position.

    Files that are no DICOM are ignored; localizers and other objects are skipped with a warning. With `ct_only` (an
    image) the modality must be CT; without (a label) it may be any. Raises InputError for several series, slices
    that differ in size or direction, lie at one position, unevenly, or drift sideways (gantry tilt).
    """
    files, warnings = dicom_files(folder)
    files, more = _chosen(folder, files, ct_only)
    _check_alike(folder, files)
    files, doubled = _ordered(folder, files)
    grid = _stack_grid(folder, files)
    array = _pixels(files)
    unscaled = ct_only and any(not file.tag(SLOPE) for file in files)
    odd = ("the series has no rescale; stored values are taken as HU",) if unscaled else ()
    return Decoded(folder, array, grid, warnings=(*warnings, *more, *doubled, *odd))


def _chosen(folder: Path, files: list[DicomFile], ct_only: bool) -> tuple[list[DicomFile], tuple[str, ...]]:
    """The files of the one usable series, and a warning about the rest."""
    series: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        if file.tag(MODALITY) not in ("SEG", "RTDOSE", "RTSTRUCT") and not file.is_localizer:
            series[file.tag(SERIES)].append(file)
    usable = [s for s in series.values() if not ct_only or s[0].tag(MODALITY) == "CT"]
    if not usable:
        found = ", ".join(sorted({file.tag(MODALITY) or "unknown" for file in files}))
        raise InputError(f"{folder} holds no CT slices (modality {found}); give an axial CT series")
    multi = next((file for s in usable for file in s if file.size[2:] != (1,)), None)
    if multi is not None:
        raise InputError(f"{multi.path} is a multi-frame DICOM object; export the CT with one file a slice")
    # Colour pictures in a CT series are screen saves, dose charts or renderings.
    usable = [grey for s in usable if (grey := [file for file in s if file.components == 1])]
    if not usable:
        raise InputError(f"{folder} holds colour pictures, not CT in HU; give the original series")
    large = [s for s in usable if len(s) >= LEAST_SLICES]
    counts = ", ".join(str(len(s)) for s in sorted(usable, key=len, reverse=True))
    if not large:
        raise InputError(f"{folder} has too few slices for a volume ({counts}; at least {LEAST_SLICES} are needed)")
    if len(large) > 1:
        raise InputError(f"{folder} holds {len(usable)} series ({counts} slices); put the one to use in its own folder")
    rest = len(files) - len(large[0])
    return large[0], ((f"{rest} DICOM files skipped (localizers, other series or objects)",) if rest else ())


def _check_alike(folder: Path, files: Sequence[DicomFile]) -> None:
    """Raises InputError when slices differ in size, pixel spacing or direction."""
    sizes = sorted({file.size[:2] for file in files})
    if len(sizes) > 1:
        raise InputError(f"{folder}: slices of several sizes {sizes} in one series; keep those of one size")
    for name, key, count in (("PixelSpacing", PIXEL_SPACING, 2), ("ImageOrientationPatient", ORIENTATION, 6)):
        values = np.array([file.numbers(key, count, name) for file in files])
        if np.ptp(values, axis=0).max() > 1e-3:
            raise InputError(f"{folder}: slices differ in {name}; keep those of one stack")


def _directions(file: DicomFile) -> NDArray[np.float64]:
    """Unit world vectors (3, 3): the normal, down a column, along a row."""
    row, column = file.numbers(ORIENTATION, 6, "ImageOrientationPatient").reshape(2, 3)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.5:
        raise InputError(f"{file.path}: ImageOrientationPatient is no direction; export the series again")
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    return np.array([normal / max(float(np.linalg.norm(normal)), 1e-9), column, row])


def _positions(files: Sequence[DicomFile]) -> NDArray[np.float64]:
    return np.array([file.numbers(POSITION, 3, "ImagePositionPatient") for file in files])


def _ordered(folder: Path, files: list[DicomFile]) -> tuple[list[DicomFile], tuple[str, ...]]:
    """Slices from low to high along the normal, without repetitions of one slice."""
    heights = _positions(files) @ _directions(files[0])[0]
    order = np.argsort(heights, kind="stable")
    kept: list[DicomFile] = []
    last = -np.inf
    for i in order:
        if heights[i] - last > SAME_POSITION_MM:
            kept.append(files[i])
            last = heights[i]
        elif not np.array_equal(files[i].pixels(), kept[-1].pixels()):
            raise InputError(
                f"{folder}: several different slices share one position, so this is not a volume (several phases?); "
                "keep one phase"
            )
    dropped = len(files) - len(kept)
    return kept, ((f"{dropped} repeated slices dropped",) if dropped else ())


def _stack_grid(folder: Path, files: Sequence[DicomFile]) -> Grid:
    """The grid of sorted slices. Raises InputError when they are not evenly stacked along their normal."""
    if len(files) < LEAST_SLICES:
        raise InputError(f"{folder} has {len(files)} different slices; a volume needs at least {LEAST_SLICES}")
    directions, positions = _directions(files[0]), _positions(files)
    offsets = positions - positions[0]
    heights = offsets @ directions[0]
    drift = np.linalg.norm(offsets - heights[:, None] * directions[0], axis=1)
    if (drift > DRIFT_TOLERANCE_MM + DRIFT_TOLERANCE * heights).any():
        degrees = np.degrees(np.arctan2(drift[-1], heights[-1]))
        raise InputError(f"{folder}: slices are shifted sideways by {degrees:.1f} degrees (gantry tilt); untilt the CT")
    step = heights[-1] / (len(files) - 1)
    off = np.abs(heights - step * np.arange(len(files)))
    if off.max() > max(STEP_TOLERANCE * step, SAME_POSITION_MM):
        steps = np.diff(heights)
        raise InputError(
            f"{folder}: slices are {steps.min():.4g} to {steps.max():.4g} mm apart (missing slices or uneven spacing); "
            "restore the missing ones or resample evenly"
        )
    down_mm, along_mm = files[0].numbers(PIXEL_SPACING, 2, "PixelSpacing")
    columns, rows = files[0].size[:2]
    return lattice(
        folder, (len(files), rows, columns), directions * np.array([[step], [down_mm], [along_mm]]), positions[0]
    )


def _pixels(files: Sequence[DicomFile]) -> NDArray[Any]:
    """All slices (z, y, x), in the narrowest of int16 and what a slice needs: a rescale may differ between slices."""
    columns, rows = files[0].size[:2]
    out: NDArray[Any] = np.empty((len(files), rows, columns), np.int16)
    for z, file in enumerate(files):
        plane = file.pixels()
        out = out.astype(np.promote_types(out.dtype, plane.dtype), copy=False)
        out[z] = plane
    return out
