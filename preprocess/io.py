"""One image in, one mask out: `read_scan`, `read_labels` and `write_labels`, whatever the format.

Everything that leaves here is (z, y, x) in canonical orientation; a mask goes back to the voxels of the file it is of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from preprocess.archive import GZIP_MAGIC, ZIP_MAGIC, reading_error, unpacked
from preprocess.decoded import Decoded, class_array, hu_array
from preprocess.dicom import read_series, read_slice
from preprocess.dicom_files import is_dicom
from preprocess.errors import InputError
from preprocess.files import write_atomic
from preprocess.geometry import Grid, reoriented
from preprocess.itk_files import ITK_FORMATS, read_itk
from preprocess.nifti import is_half_of_pair, read_nifti, read_pair, verify_nifti, write_nifti
from preprocess.nifti_header import NiftiHeader
from preprocess.volume import LabelMap, Volume

#: Most that the corners of a label may be off those of its image: headers are float32 of different programs.
LIKE_TOLERANCE_MM = 0.1

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".dcm", ".hdr.gz", ".hdr", ".img.gz", ".img")
_FORMATS = "give .nii, .nii.gz, .nrrd, .mha, a folder of DICOM slices or a ZIP of one"

_Read = TypeVar("_Read")


@dataclass(frozen=True, eq=False)
class Scan:
    """One image as read.

    `volume` is HU (z, y, x) in canonical orientation, C-contiguous, int16 when all values are whole, else float32.
    `native` is the file's own grid; `header` the NIfTI geometry fields of the input, None for other formats.
    """

    volume: Volume
    native: Grid
    warnings: tuple[str, ...] = ()
    header: NiftiHeader | None = None


def case_name(path: Path) -> str:
    """The name of a file without the ending of its format (.nii.gz, .nii, .nrrd, ...), or of a folder."""
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    # `.` and `..` have no name of their own.
    return path.name if path.name not in ("", "..") else path.resolve().name


def read_scan(path: Path) -> Scan:
    """The CT in a .nii, .nii.gz, .nrrd or .mha file, a folder of DICOM slices, or a ZIP of one of these.

    Raises InputError when it is none, is damaged, or is no 3-D scalar CT; ResourceError when it may not be read.
    """
    return _opened(path, lambda inner: _scan(*_decoded(inner, ct_only=True)))


def _scan(image: Decoded, header: NiftiHeader | None) -> Scan:
    array, odd = hu_array(image)
    return Scan(Volume(array, image.grid.canonical()), image.grid, (*image.warnings, *odd), header)


def read_labels(path: Path, *, like: Grid | None = None) -> LabelMap:
    """The classes 0, 1, 2 of a label file (formats: see `read_scan`), (z, y, x) in canonical orientation.

    With `like`, the canonical grid of its image, the label must lie there and takes over that grid exactly.
    Raises InputError that lists the values when there are others, and when the label does not fit `like`.
    """
    image, labels = _opened(path, lambda inner: _labels(*_decoded(inner, ct_only=False)))
    if like is None:
        return labels
    if image.grid.canonical().shape != like.shape:
        found = image.grid.canonical().shape
        raise InputError(f"{path}: label of shape {found} for an image of {like.shape} (z, y, x); give its own label")
    off_mm = labels.grid.mismatch_mm(like)
    if off_mm > LIKE_TOLERANCE_MM:
        raise InputError(f"{path}: label lies {off_mm:.3g} mm off its image; use image and label of one source")
    return LabelMap(labels.array, like)


def _labels(image: Decoded, _: NiftiHeader | None) -> tuple[Decoded, LabelMap]:
    return image, LabelMap(class_array(image), image.grid.canonical())


def write_labels(path: Path, labels: LabelMap, scan: Scan) -> None:
    """Writes `labels`, on the grid of `scan.volume`, as uint8 .nii.gz on the voxels of the file it was read from.

    The geometry fields of a NIfTI input are kept byte by byte. The file is read back and compared before it takes its
    name. Raises ValueError for labels on another grid, and ResourceError when writing fails.
    """
    if labels.grid != scan.volume.grid:
        raise ValueError(f"labels on {labels.grid}, scan on {scan.volume.grid}")
    _write(path, reoriented(labels.array, labels.grid, scan.native), scan.header or NiftiHeader.of(scan.native))


def write_image(path: Path, image: Volume | LabelMap) -> None:
    """Writes an int16 volume or a label map as .nii.gz on its own grid, verified and atomic as `write_labels`."""
    _write(path, image.array, NiftiHeader.of(image.grid))


def _write(path: Path, array: NDArray[Any], header: NiftiHeader) -> None:
    def write(temporary: Path) -> None:
        write_nifti(temporary, array, header)
        verify_nifti(temporary, array, header)

    write_atomic(path, write)


def _opened(path: Path, read: Callable[[Path], _Read]) -> _Read:
    """`read` of `path`, or of what it holds if it is a ZIP."""
    if path.is_dir():
        return read(path)
    if _magic(path)[:4] == ZIP_MAGIC:
        if path.suffix.lower() != ".zip":
            raise InputError(f"{path} is a ZIP archive; rename it to .zip if it holds a scan")
        with unpacked(path) as inner:
            return read(inner)
    return read(path)


def _magic(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no regular file; {_FORMATS}")
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise reading_error(path, error) from error


def _decoded(path: Path, *, ct_only: bool) -> tuple[Decoded, NiftiHeader | None]:
    """Stored values by format: NIfTI and gzip by content, the rest by name."""
    if path.is_dir():
        return read_series(path, ct_only=ct_only), None
    magic, suffix = _magic(path), path.suffix.lower()
    if suffix in ITK_FORMATS and magic[:2] != GZIP_MAGIC:
        return read_itk(path), None
    if suffix in (".nhdr", ".mhd"):
        raise InputError(f"{path} keeps its voxels in another file; convert it to one .nrrd, .mha or .nii.gz")
    if suffix == ".dcm" or is_dicom(path):
        return read_slice(path), None
    return read_pair(path) if is_half_of_pair(path) else read_nifti(path)
