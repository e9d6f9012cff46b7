"""DICOM files one by one: the few tags that building a volume needs, and the pixels of one slice.

Only the tags listed here are read: names of patients and free text never leave the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from SimpleITK import GetArrayFromImage, ImageFileReader, ProcessObject

from preprocess.errors import InputError
from preprocess.folders import entries

MODALITY, IMAGE_TYPE, SERIES = "0008|0060", "0008|0008", "0020|000e"
POSITION, ORIENTATION, PIXEL_SPACING, SLOPE = "0020|0032", "0020|0037", "0028|0030", "0028|1053"

_TAGS = (MODALITY, IMAGE_TYPE, SERIES, POSITION, ORIENTATION, PIXEL_SPACING, SLOPE)
_CT_STORAGE = b"1.2.840.10008.5.1.4.1.1.2"

# GDCM's remarks on odd headers go to stderr, which belongs to the program.
ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class DicomFile:
    """The header of one readable DICOM image. `size` is (columns, rows, frames); `components` values a pixel."""

    path: Path
    tags: dict[str, str]
    size: tuple[int, ...]
    components: int

    def tag(self, key: str) -> str:
        """The text of a tag; empty when it is absent."""
        return self.tags.get(key, "").strip(" \0")

    def numbers(self, key: str, count: int, name: str) -> NDArray[np.float64]:
        """`count` numbers of a tag called `name`. Raises InputError when they are missing or no numbers."""
        try:
            values = np.array([float(value) for value in self.tag(key).split("\\")])
        except ValueError:
            values = np.array([])
        if len(values) != count or not np.isfinite(values).all():
            raise InputError(f"{self.path}: {name} is missing or broken; export the series again")
        return values

    @property
    def is_localizer(self) -> bool:
        """Whether this is a scout view for planning, which often shares a folder with the scan."""
        return "LOCALIZER" in self.tag(IMAGE_TYPE).upper()

    def pixels(self) -> NDArray[np.int16] | NDArray[np.int32] | NDArray[np.float64]:
        """The values (y, x) with rescale applied; int16 when they fit. Raises InputError when undecodable."""
        if self.tag(SLOPE) and self.numbers(SLOPE, 1, "RescaleSlope")[0] == 0:
            raise InputError(f"{self.path}: RescaleSlope is 0; export the series again")
        try:
            array = GetArrayFromImage(_reader(self.path).Execute())[0]
        except RuntimeError:
            raise InputError(f"{self.path}: its pixels cannot be decoded; copy or export the series again") from None
        limits = np.iinfo(np.int16)
        if array.dtype.kind in "iu" and array.min() >= limits.min and array.max() <= limits.max:
            array = array.astype(np.int16)
        return np.asarray(array)


def dicom_files(folder: Path) -> tuple[list[DicomFile], tuple[str, ...]]:
    """The readable DICOM images in `folder`, and a warning about DICOM files that hold no image.

    Files that are no DICOM are ignored. Raises InputError when no image is left, or a CT slice is damaged.
    """
    files, others = [], 0
    for path in entries(folder):
        if not path.is_file():
            continue
        reader = _reader(path)
        try:
            reader.ReadImageInformation()
        except (RuntimeError, UnicodeError):
            others += _is_other_dicom(path)
            continue
        tags = {key: reader.GetMetaData(key) for key in _TAGS if reader.HasMetaDataKey(key)}
        files.append(DicomFile(path, tags, tuple(reader.GetSize()), int(reader.GetNumberOfComponents())))
    if not files:
        raise InputError(f"{folder} holds no DICOM image; name the folder that holds the slices themselves")
    return files, ((f"{others} DICOM files without an image skipped",) if others else ())


def _reader(path: Path) -> ImageFileReader:
    reader = ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    try:
        reader.SetFileName(str(path))
    except (TypeError, UnicodeError):
        raise InputError(f"{path!r} is no name in UTF-8; rename it") from None
    return reader


def _is_other_dicom(path: Path) -> bool:
    """Whether an unreadable file is a DICOM object other than CT. Raises InputError when it is a CT image: a slice that
    is cut off must not pass as one that never was."""
    with path.open("rb") as file:
        head = file.read(1024)
    if head[128:132] != b"DICM":
        return False
    # Media storage SOP class; group 2 is explicit little endian in every file.
    found = re.search(rb"\x02\x00\x02\x00UI..([0-9.]+)", head, re.DOTALL)
    if found and found[1] in (_CT_STORAGE, _CT_STORAGE + b".1"):
        raise InputError(f"{path}: damaged or truncated DICOM file, or unknown compression; export the series again")
    return True
