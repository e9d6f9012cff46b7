"""An image as its file stores it, and the steps that every format shares: geometry checks, values to HU or classes.

Knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.ct_check import UNSCALED, Census, ct_warnings
from preprocess.errors import InputError
from preprocess.geometry import CANONICAL_AXES, Grid, Index, Triple, reoriented, triple
from preprocess.volume import TUMOR

#: HU below air is padding (-2000, -3024, ...); HU above is metal. Both fit int16 after clamping.
HU_RANGE = (-1024, 30000)

#: Slices of one value up to this are air, which programs fill with -1000, -1024, or the lower end of a window.
_AIR_HU = -150

#: Spacings outside are no scan of a person: the unit of the file is wrong.
SPACING_RANGE_MM = (0.05, 30.0)

#: Axes are perpendicular within this; what is more is sheared, and no rectilinear grid describes it.
SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Decoded:
    """Stored values of one file or series, (z, y, x) in file order on `grid`; value = stored * slope + intercept."""

    path: Path
    array: NDArray[Any]
    grid: Grid
    slope: float = 1.0
    intercept: float = 0.0
    warnings: tuple[str, ...] = ()

    def planes(self) -> Iterator[NDArray[Any]]:
        """The values (y, x) of each z in canonical orientation, one after the other, so that memory is one slice."""
        for plane in reoriented(self.array, self.grid, self.grid.canonical()):
            yield self._scaled(plane)

    def _scaled(self, plane: NDArray[Any]) -> NDArray[Any]:
        if self.slope == 1.0 and self.intercept == 0.0:
            return plane
        narrow = plane.dtype.kind in "iu" and plane.dtype.itemsize <= 2
        if self.slope == 1.0 and narrow and self.intercept.is_integer() and abs(self.intercept) < 2**20:
            return plane.astype(np.int32) + np.int32(self.intercept)
        return plane.astype(np.float64) * self.slope + self.intercept


def lattice(path: Path, shape: Index, steps_mm: NDArray[np.float64], origin_mm: NDArray[np.float64]) -> Grid:
    """The checked grid of a file. `steps_mm[i]` is the world vector (x, y, z; LPS) of one step along array axis i.

    Spacings are rounded to 1e-6 mm, so that float noise does not differ between the orientations of one scan. Axes
    that are perpendicular only within `SHEAR_TOLERANCE` are made so. Raises InputError for what is no lattice in mm.
    """
    # A kilometre away is as good as infinite, and its square is still a number.
    if not (np.abs([*steps_mm, origin_mm]) < 1e6).all():
        raise InputError(f"{path}: spacing or position is not finite; mend the header or convert the scan again")
    spacing = np.linalg.norm(steps_mm, axis=1)
    if spacing.min() == 0:
        raise InputError(f"{path}: a spacing is zero; mend the header or convert the scan again")
    low, high = SPACING_RANGE_MM
    if spacing.min() < low or spacing.max() > high:
        found = " x ".join(f"{s:.4g}" for s in spacing)
        raise InputError(
            f"{path}: spacing {found} mm is outside {low:g} to {high:g} mm; is the unit of the header right?"
        )
    axes = steps_mm / spacing[:, None]
    shear = float(np.abs(axes @ axes.T - np.eye(3)).max())
    if shear > SHEAR_TOLERANCE:
        raise InputError(f"{path}: its axes are not perpendicular (off by {shear:.2g}); resample it to a straight grid")
    if shear > 1e-6:
        u, _, vt = np.linalg.svd(axes)
        axes = u @ vt
    straight = np.rint(axes)
    # A quaternion in float32 tilts a straight scan by 1e-8, which must not tell two orientations of it apart.
    if np.abs(axes - straight).max() < 1e-6:
        axes = straight
    # + 0.0 turns -0.0 into 0.0.
    z, y, x = (triple(axis) for axis in axes + 0.0)
    return Grid(shape, triple(np.round(spacing, 6)), triple(origin_mm + 0.0), (z, y, x))


def assumed_steps(spacing_mm: Triple) -> NDArray[np.float64]:
    """Steps (see `lattice`) of a file that states no orientation: head, back and left, as CT slices are stored."""
    steps: NDArray[np.float64] = np.array(CANONICAL_AXES) * np.array(spacing_mm)[:, None]
    return steps


def hu_array(image: Decoded) -> tuple[NDArray[Any], tuple[str, ...]]:
    """HU in canonical orientation, C-contiguous, clamped to `HU_RANGE`, and what is odd about the values.

    int16 when all values are whole, else float32. Values that are not finite become air (-1024), and so do slices of
    one value among others, whatever it is: they show nothing, but networks see something in them. Stored values whose
    rescale was lost become HU. Uses up the image: its array may be the one that comes back. Raises InputError for a
    label map (see `preprocess.ct_check`).
    """
    out = _room(image)
    holes, census = 0, Census()
    for z, plane in enumerate(image.planes()):
        if plane.dtype.kind == "f":
            finite = np.isfinite(plane)
            if not finite.all():
                holes += int(plane.size - np.count_nonzero(finite))
                plane = np.where(finite, plane, plane.dtype.type(HU_RANGE[0]))
        census.add(plane)
        plane = np.clip(plane, *_limits(plane.dtype))
        if out.dtype != np.float32 and plane.dtype.kind == "f" and (np.rint(plane) != plane).any():
            out = out.astype(np.float32)
        out[z] = plane
    warnings = [f"{holes} voxels are not finite (NaN or infinite); filled with {HU_RANGE[0]} HU"] if holes else []
    warnings += ct_warnings(image.path, census)
    shift = UNSCALED if census.is_unscaled() else 0
    if shift:
        out -= out.dtype.type(shift)
    if len(census.blank) < census.planes:
        out[list(census.blank)] = HU_RANGE[0]
        warnings += _blank_told({z: value - shift for z, value in census.blank.items()}, census.planes)
    return out, tuple(warnings)


def _blank_told(blank: Mapping[int, float], planes: int) -> Iterator[str]:
    """About slices of one value, by number from below; air beyond the ends of what was scanned is nothing odd."""
    first, last = (next(z for z in order if z not in blank) for order in (range(planes), range(planes)[::-1]))
    inside = [z for z in sorted(blank) if first < z < last]
    if inside:
        yield (
            f"{len(inside)} slices between others show nothing (one value; the first is {inside[0] + 1} of {planes} "
            "from below): parts of the scan are missing, so results may be wrong; get it again"
        )
    ends = [value for z, value in blank.items() if not first < z < last and value > _AIR_HU]
    if ends:
        yield f"{len(ends)} slices at its ends show nothing (one value, {ends[0]:g}); taken as air"


def _room(image: Decoded) -> NDArray[Any]:
    """int16 of the canonical shape: the image's own memory where slice lies on slice, since new memory costs time."""
    stored, turned = image.array, reoriented(image.array, image.grid, image.grid.canonical())
    slice_on_slice = turned.strides[0] == stored.strides[0] and turned.shape == stored.shape
    fits = stored.dtype.kind in "iu" and stored.dtype.itemsize == 2
    flags = stored.flags
    if fits and slice_on_slice and flags.c_contiguous and flags.aligned and flags.writeable:
        return stored.view(np.int16)
    return np.empty(turned.shape, np.int16)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """`HU_RANGE` within what `dtype` holds: numpy refuses to clip unsigned integers at a negative number."""
    low, high = HU_RANGE
    if dtype.kind == "f":
        return low, high
    info = np.iinfo(dtype)
    return max(low, int(info.min)), min(high, int(info.max))


def class_array(image: Decoded) -> NDArray[np.uint8]:
    """Classes 0, 1, 2 in canonical orientation, C-contiguous. Raises InputError listing the values if others occur."""
    out = np.empty(image.grid.canonical().shape, np.uint8)
    for z, plane in enumerate(image.planes()):
        known = plane == 0
        for value in range(1, TUMOR + 1):
            known |= plane == value
        if not known.all():
            raise InputError(
                f"{image.path}: label values {_listed_values(image)}; only 0 (background), 1 (liver) and 2 (tumour) "
                "are known; map the others to these"
            )
        out[z] = plane
    return out


def _listed_values(image: Decoded, most: int = 10) -> str:
    found: set[float] = set()
    for plane in image.planes():
        found.update(np.unique(plane).tolist())
        if len(found) > 10 * most:
            break
    values = sorted(found, key=lambda value: (value != value, value))
    return ", ".join(f"{value:g}" for value in values[:most]) + (", ..." if len(values) > most else "")
