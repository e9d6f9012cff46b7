"""DICOM files one by one: the few tags that building a volume needs, as raw text, read by pydicom in Python.

Only the tags listed here are read, and never converted: an odd value of a tag that is not needed stops no scan, and
names of patients and free text never leave the file. Pixels are `preprocess.dicom_pixels`.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preprocess.archive import reading_error
from preprocess.errors import InputError
from preprocess.folders import entries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_NUMBERS = ("SamplesPerPixel", "Rows", "Columns")
_TEXTS = (
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "NumberOfFrames", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("RescaleType", "GantryDetectorTilt"),
)
_TAGS = [*_NUMBERS, *_TEXTS]

#: Endings of names that say: this is a DICOM file.
DICOM_ENDINGS = (".dcm", ".ima")

_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_DICOMDIR = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"

#: A slice of more pixels than this is no CT; the largest detectors give 4096 x 4096.
MOST_PIXELS = 4096 * 4096


@dataclass(frozen=True)
class DicomFile:
    """The header of one DICOM image: `texts` and `numbers` by keyword, what is absent or empty left out."""

    path: Path
    syntax: str
    texts: dict[str, str]
    integers: dict[str, int]

    def text(self, keyword: str) -> str:
        """The text of a tag; empty when it is absent."""
        return self.texts.get(keyword, "")

    def numbers(self, keyword: str, count: int) -> NDArray[np.float64]:
        """`count` numbers of a tag. Raises InputError when they are missing or no numbers."""
        try:
            values = np.array([float(value) for value in self.text(keyword).split("\\")])
        except ValueError:
            values = np.array([])
        # What is larger is no length in mm, no HU and no direction.
        if len(values) != count or not (np.abs(values) < 1e6).all():
            raise InputError(f"{self.path}: {keyword} is missing or broken; export the series again")
        return values

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.integers["Rows"], self.integers["Columns"]

    @property
    def frames(self) -> int:
        """Number of pictures in the file."""
        text = self.text("NumberOfFrames")
        return int(text) if text.isdecimal() and len(text) < 9 else 1

    @property
    def is_grey(self) -> bool:
        """Whether a pixel is one value; colour pictures in a CT series are screen saves or dose charts."""
        return self.integers.get("SamplesPerPixel", 1) == 1

    @property
    def is_localizer(self) -> bool:
        """Whether this is a scout view for planning, which often shares a folder with the scan."""
        return "LOCALIZER" in self.text("ImageType").upper()


def dicom_files(folder: Path) -> tuple[list[DicomFile], tuple[str, ...]]:
    """The DICOM images in `folder`, and warnings about files that hold no image.

    Files that are no DICOM are ignored, with a warning when they are named like the slices. Raises InputError when no
    image is left, a CT slice is damaged, or a file with an ending of DICOM is none: an empty slice must not pass as
    one that never was.
    """
    files, others, strangers = [], 0, []
    for path in entries(folder):
        if not path.is_file():
            continue
        if is_dicom(path):
            file = dicom_file(path)
            others += file is None
            files += [file] if file else []
        elif path.suffix.lower() in DICOM_ENDINGS:
            raise InputError(f"{path} is empty or no DICOM file; export it again, or move it out if it is no slice")
        else:
            strangers.append(path)
    if not files:
        raise InputError(f"{folder} holds no DICOM image; name the folder that holds the slices themselves")
    alike = {_ending(file.path) for file in files}
    ignored = sum(_ending(path) in alike for path in strangers)
    counts = {
        "DICOM files without an image skipped": others,
        "files named like the slices are no DICOM and were ignored; is a slice empty or damaged?": ignored,
    }
    return files, tuple(f"{count} {what}" for what, count in counts.items() if count)


def _ending(path: Path) -> str:
    """The ending of a name; empty for a number, which counts slices (`IM.0001`) or ends a UID."""
    return "" if path.suffix[1:].isdecimal() else path.suffix.lower()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes: the magic, or, without preamble, a tag of group 2 or 8."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise reading_error(path, error) from error
    bare = head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0" and (head[4:6].isalpha() or head[6:8] == b"\0\0")
    return head[128:] == b"DICM" or bare


def dicom_file(path: Path) -> DicomFile | None:
    """The header of a file, None when it is a DICOM object without a picture.

    Raises InputError when it is a CT image without its pixels' description: a slice that is cut off must not pass as
    one that never was.
    """
    data = dataset(path, _TAGS)
    syntax, kind = (_text(data.file_meta, key) for key in ("TransferSyntaxUID", "MediaStorageSOPClassUID"))
    order = "little" if data.original_encoding[1] in (True, None) else "big"
    integers = {key: int.from_bytes(raw[:2], order) for key in _NUMBERS if (raw := _raw(data, key))}  # type: ignore[arg-type]
    texts = {key: text for key in _TEXTS if (text := _text(data, key))}
    if kind == _DICOMDIR:
        return None
    if not {"Rows", "Columns"} <= integers.keys():
        if kind in (_CT_STORAGE, _CT_STORAGE + ".1"):
            raise InputError(f"{path}: damaged or truncated DICOM file; export the series again")
        return None
    if not 0 < integers["Rows"] * integers["Columns"] <= MOST_PIXELS:
        raise InputError(f"{path}: {integers['Rows']} x {integers['Columns']} pixels; no CT; export the series again")
    return DicomFile(path, syntax, texts, integers)


def _pydicom() -> Any:
    """The library, imported with the first DICOM file: that takes a quarter of a second, which others need not."""
    import pydicom

    # Remarks on odd headers would stand on the user's terminal beside our one line, and may quote the value.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


def dataset(path: Path, tags: list[str] | None = None) -> FileDataset:
    """What pydicom makes of a file: only `tags` without pixels, or everything. Raises InputError where it stumbles."""
    pydicom = _pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_deflated(path)
            read: FileDataset = pydicom.dcmread(
                path, force=True, stop_before_pixels=tags is not None, specific_tags=tags
            )
            return read
    except OSError as error:
        raise reading_error(path, error) from error
    # pydicom raises whatever a broken file makes it stumble on.
    except Exception:
        raise InputError(f"{path}: damaged or truncated DICOM file; export the series again") from None


def _check_deflated(path: Path) -> None:
    """Raises ValueError for a deflated file that grows to more than any slice has; zlib.error for a damaged one."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
        start = 132 if head[128:132] == b"DICM" else 0
        # pydicom, not the length of the group, which may lie, says whether it would inflate the rest.
        is_deflated = (
            _text(_pydicom().filereader.read_file_meta_info(path), "TransferSyntaxUID") == _DEFLATED
            if start
            else (_DEFLATED.encode() in head)
        )
        if not is_deflated:
            return
        # The first element of the file's own description gives its length.
        file.seek(start + 12 + int.from_bytes(head[start + 8 : start + 12], "little"))
        engine = zlib.decompressobj(-15)
        engine.decompress(file.read(), 4 * MOST_PIXELS)
        if engine.unconsumed_tail:
            raise ValueError("deflated data without an end")


def _text(data: Dataset, keyword: str) -> str:
    return _raw(data, keyword).decode("latin-1").strip(" \0")


def _raw(data: Dataset, keyword: str) -> bytes:
    """The bytes of a value as stored; empty when it is absent."""
    if keyword not in data:
        return b""
    # Without keep_deferred pydicom would convert an empty value, and may stumble on it.
    value = data.get_item(keyword, keep_deferred=True).value
    return value if isinstance(value, bytes) else str(value or "").encode("latin-1", "replace")
