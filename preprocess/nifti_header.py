"""The header of a NIfTI-1 or NIfTI-2 file: its fields, what they say of the voxels, and where the voxels are in space.

World coordinates in NIfTI are RAS; the grids that leave here are LPS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from preprocess.decoded import assumed_steps, lattice
from preprocess.errors import InputError
from preprocess.geometry import Grid, Index, index3, triple

_NIFTI1 = np.dtype(
    "i4, V35, u1, (8,)i2, (3,)f4, i2, i2, i2, i2, (8,)f4, f4, f4, f4, i2, u1, u1, V24, S80, S24, i2, i2, "
    "(3,)f4, (3,)f4, (3,4)f4, S16, S4"
)
_NIFTI1.names = (
    *("sizeof_hdr", "unused", "dim_info", "dim", "intent_p", "intent_code", "datatype", "bitpix", "slice_start"),
    *("pixdim", "vox_offset", "scl_slope", "scl_inter", "slice_end", "slice_code", "xyzt_units", "cal", "descrip"),
    *("aux_file", "qform_code", "sform_code", "quatern", "qoffset", "srow", "intent_name", "magic"),
)
_NIFTI2 = np.dtype(
    "i4, S8, i2, i2, (8,)i8, (3,)f8, (8,)f8, i8, f8, f8, V32, i8, i8, S80, S24, i4, i4, (3,)f8, (3,)f8, "
    "(3,4)f8, i4, i4, i4, S16, u1, V15"
)
_NIFTI2.names = (
    *("sizeof_hdr", "magic", "datatype", "bitpix", "dim", "intent_p", "pixdim", "vox_offset", "scl_slope", "scl_inter"),
    *("cal", "slice_start", "slice_end", "descrip", "aux_file", "qform_code", "sform_code", "quatern", "qoffset"),
    *("srow", "slice_code", "xyzt_units", "intent_code", "intent_name", "dim_info", "unused"),
)

#: Length of the longer header; one of them needs no more to be recognised.
HEADER_BYTES = _NIFTI2.itemsize

#: The fields that place voxels in space; an output copies them byte by byte from its input.
GEOMETRY_FIELDS = ("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow")

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_UNUSABLE = {1: "1-bit", 32: "complex", 128: "colour (RGB)", 1536: "128-bit", 1792: "complex", 2048: "complex"} | {
    2304: "colour (RGBA)"
}
_ORDERS: tuple[Literal["<"], Literal[">"]] = ("<", ">")
_UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """The fields of a header as stored, in the byte order and version of its file; `path` is for messages."""

    path: Path
    fields: Any  # a 0-d structured array; numpy's stubs cannot describe it

    @staticmethod
    def parse(head: bytes, path: Path, *, pair: bool = False) -> NiftiHeader:
        """The header in the first bytes of a file, `pair`: of a .hdr. Raises InputError when it is none of the kind."""
        for version, singles, pairs in ((_NIFTI1, b"n+1", b"ni1"), (_NIFTI2, b"n+2", b"ni2")):
            for order in _ORDERS:
                if head[:4] != np.array(version.itemsize, f"{order}i4").tobytes():
                    continue
                if len(head) < version.itemsize:
                    raise InputError(
                        f"{path} is truncated: {len(head)} of {version.itemsize} bytes of its header; copy it again"
                    )
                fields = np.frombuffer(head[: version.itemsize], version.newbyteorder(order))[0]
                magic = bytes(fields["magic"])[:3]
                if magic not in (singles, pairs):
                    raise InputError(f"{path} is an Analyze file or its NIfTI header is damaged; convert it to .nii")
                if (magic == pairs) != pair:
                    name = ".nii, which it is" if pair else "as halves of a pair, .hdr and .img"
                    raise InputError(f"{path}: its NIfTI header is of the other kind; name it {name}")
                return NiftiHeader(path, fields)
        raise InputError(f"{path} is not a NIfTI file; give a CT as .nii, .nii.gz, .nrrd, .mha or a DICOM folder")

    @staticmethod
    def of(grid: Grid) -> NiftiHeader:
        """A little-endian NIfTI-1 header that states `grid` as qform and sform alike."""
        fields = np.zeros((), _NIFTI1.newbyteorder("<"))
        affine = _ras_affine(grid)
        axes = affine[:, :3] / np.linalg.norm(affine[:, :3], axis=0)
        # A quaternion cannot mirror; NIfTI keeps that in the sign of pixdim[0].
        mirrored = np.linalg.det(axes) < 0
        from scipy.spatial.transform import Rotation  # here, for it takes long to import

        rotation = Rotation.from_matrix(axes * ((1, 1, -1) if mirrored else (1, 1, 1)))
        fields["pixdim"] = (-1 if mirrored else 1, *grid.spacing_mm[::-1], 0, 0, 0, 0)
        fields["xyzt_units"] = 2
        fields["qform_code"] = fields["sform_code"] = 1
        fields["quatern"] = rotation.as_quat(canonical=True)[:3]
        fields["qoffset"] = affine[:, 3]
        fields["srow"] = affine
        return NiftiHeader(Path(), fields[()])

    @property
    def shape(self) -> Index:
        """Voxels (z, y, x). Raises InputError for an image that is not 3-D; trailing axes of length 1 do not count."""
        dim = [int(n) for n in self.fields["dim"]]
        count = dim[0]
        if not 1 <= count <= 7 or min(dim[1 : count + 1]) < 1:
            raise InputError(f"{self.path}: corrupt NIfTI header (dimensions {dim}); convert the scan again")
        if count < 3 or max([1, *dim[4 : count + 1]]) > 1:
            sizes = "x".join(map(str, dim[1 : count + 1]))
            raise InputError(f"{self.path}: not a 3-D scalar CT volume ({count}-D, {sizes}); give one 3-D volume")
        return index3(dim[3:0:-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values, with byte order. Raises InputError for types that are no scalar number."""
        code = int(self.fields["datatype"])
        if code in _UNUSABLE:
            raise InputError(f"{self.path}: {_UNUSABLE[code]} voxels, not a scalar CT volume; convert it to int16 HU")
        if code not in _TYPES:
            raise InputError(f"{self.path}: corrupt NIfTI header (data type {code}); convert the scan again")
        return np.dtype(_TYPES[code]).newbyteorder(self.byte_order)

    @property
    def byte_order(self) -> Any:
        """`<` or `>`, as numpy writes it (`=` where it is the machine's own)."""
        return self.fields.dtype["dim"].base.byteorder

    @property
    def offset(self) -> int:
        """Where the voxels start in the file, in bytes."""
        value = float(self.fields["vox_offset"])
        # The voxels of a pair are in a file of their own.
        least = 0 if bytes(self.fields["magic"])[:2] == b"ni" else self.fields.dtype.itemsize + 4
        # 0 is written by programs that rely on the default.
        if value != 0 and not (math.isfinite(value) and value >= least and value.is_integer()):
            raise InputError(f"{self.path}: corrupt NIfTI header (vox_offset {value:g}); convert the scan again")
        return int(value) or least

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept; (1, 0) where the slope is 0 or not finite, as the standard asks."""
        slope, intercept = float(self.fields["scl_slope"]), float(self.fields["scl_inter"])
        if slope == 0 or not math.isfinite(slope):
            return 1.0, 0.0
        return slope, intercept if math.isfinite(intercept) else 0.0

    @np.errstate(all="ignore")  # numpy's warnings about absurd numbers; the checks refuse them
    def grid(self) -> tuple[Grid, tuple[str, ...]]:
        """Where the voxels are, and warnings. The sform if its code is above 0, else the qform, else pixdim alone.

        Raises InputError for spacings of zero, not finite or outside a body's, and for sheared axes.
        """
        pixdim = np.abs(np.asarray(self.fields["pixdim"], np.float64)[1:4]) * self._unit_mm
        if not (np.isfinite(pixdim).all() and pixdim.all()):
            raise InputError(f"{self.path}: spacing {pixdim.tolist()} mm; mend the header or convert the scan again")
        has_q, has_s = int(self.fields["qform_code"]) > 0, int(self.fields["sform_code"]) > 0
        if has_s:
            grid = self._grid(np.asarray(self.fields["srow"], np.float64) * self._unit_mm)
            return grid, (*self._spacing_warnings(grid, pixdim), *(self._qform_warnings(grid, pixdim) if has_q else ()))
        if has_q:
            return self._grid(self._qform(pixdim)), ()
        # As ITK does, and as CT slices are stored in DICOM, which such files were mostly made from.
        warning = "orientation not stated in the header; assumed left, back, head (LPS)"
        return lattice(self.path, self.shape, assumed_steps(triple(pixdim[::-1])), np.zeros(3)), (warning,)

    @property
    def _unit_mm(self) -> float:
        return _UNIT_MM.get(int(self.fields["xyzt_units"]) & 7, 1.0)

    def _grid(self, ras: NDArray[np.float64]) -> Grid:
        lps = ras * [[-1], [-1], [1]]
        return lattice(self.path, self.shape, lps[:, 2::-1].T, lps[:, 3])

    def _qform(self, pixdim_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """The affine (3, 4) in RAS mm of the quaternion, as in nifti1.h."""
        from scipy.spatial.transform import Rotation

        quatern = np.asarray(self.fields["quatern"], np.float64)
        rest = 1.0 - float(quatern @ quatern)
        if not rest >= -1e-3:
            raise InputError(f"{self.path}: its qform is no rotation; mend the header or convert the scan again")
        # Near half a turn the root of float32 noise would tilt the axes by 3e-4; nifti1_io.c rounds likewise.
        real = math.sqrt(rest) if rest > 1e-7 else 0.0
        rotation = Rotation.from_quat([*quatern, real]).as_matrix()
        mirror = -1.0 if float(self.fields["pixdim"][0]) < 0 else 1.0
        steps = rotation * (pixdim_mm * (1.0, 1.0, mirror))
        return np.column_stack([steps, np.asarray(self.fields["qoffset"], np.float64) * self._unit_mm])

    def _qform_warnings(self, grid: Grid, pixdim_mm: NDArray[np.float64]) -> tuple[str, ...]:
        try:
            other = self._grid(self._qform(pixdim_mm))
        except InputError:
            return ("the qform of the header is unusable; its sform is used",)
        turned = float(np.abs(np.array(other.axes) - np.array(grid.axes)).max())
        moved = math.dist(other.origin_mm, grid.origin_mm)
        if turned <= 1e-3 and moved <= 1e-2:
            return ()
        return (f"qform and sform of the header disagree (axes by {turned:.2g}, origin by {moved:.3g} mm); sform used",)

    def _spacing_warnings(self, grid: Grid, pixdim_mm: NDArray[np.float64]) -> tuple[str, ...]:
        if np.allclose(grid.spacing_mm[::-1], pixdim_mm, rtol=1e-3):
            return ()
        stated = [" x ".join(f"{s:.4g}" for s in values) for values in (pixdim_mm[::-1], grid.spacing_mm)]
        return (f"pixdim says {stated[0]} mm and the sform {stated[1]} mm; sform used",)


def _ras_affine(grid: Grid) -> NDArray[np.float64]:
    """The affine (3, 4) from voxel (i, j, k) = (x, y, z) to RAS mm."""
    steps = np.array(grid.axes) * np.array(grid.spacing_mm)[:, None]
    return np.column_stack([steps[::-1].T, grid.origin_mm]) * [[-1], [-1], [1]] + 0.0
