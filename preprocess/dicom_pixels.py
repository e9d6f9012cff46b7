"""The pixels of one DICOM slice as HU: uncompressed and RLE decoded here, in Python, JPEG in a child process.

Transfer syntaxes are listed, not guessed: the retired progressive 12-bit JPEG, for one, decodes with an error of up to
36 HU and no word of it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.dicom_files import DicomFile, dataset
from preprocess.errors import InputError
from preprocess.itk_child import ItkChild

_UID = "1.2.840.10008.1.2"
#: Implicit, explicit, deflated and big endian; RLE.
_PLAIN = ("", _UID, f"{_UID}.1", f"{_UID}.1.99", f"{_UID}.2", f"{_UID}.5")
#: JPEG baseline, 12 bit, lossless (two); JPEG-LS (two); JPEG 2000 (two).
_JPEG = tuple(f"{_UID}.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91))
#: JPEG baseline and 12 bit lose so much that it is worth a word; JPEG 2000 and JPEG-LS stay within a few HU.
LOSSY = tuple(f"{_UID}.4.{n}" for n in (50, 51))


def slice_hu(file: DicomFile, decoder: ItkChild) -> NDArray[Any]:
    """The values (y, x) with rescale applied; int16 when they fit. Raises InputError when undecodable."""
    slope = file.numbers("RescaleSlope", 1)[0] if file.text("RescaleSlope") else 1.0
    intercept = file.numbers("RescaleIntercept", 1)[0] if file.text("RescaleIntercept") else 0.0
    if slope == 0:
        raise InputError(f"{file.path}: RescaleSlope is 0; export the series again")
    if file.syntax in _PLAIN:
        stored = _plain(file)
        whole = slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**15
        hu = stored.astype(np.int64) * int(slope) + int(intercept) if whole else stored * slope + intercept
    elif file.syntax in _JPEG:
        hu = _jpeg(file, decoder)
    else:
        raise InputError(f"{file.path}: transfer syntax {file.syntax} is not supported; export the series uncompressed")
    limits = np.iinfo(np.int16)
    if hu.dtype.kind in "iu" and hu.min() >= limits.min and hu.max() <= limits.max:
        return hu.astype(np.int16)
    return hu


def _jpeg(file: DicomFile, decoder: ItkChild) -> NDArray[Any]:
    """HU (y, x): SimpleITK's GDCM rescales by itself."""
    rows, columns = file.size
    array = decoder.read(file.path, "GDCMImageIO", rows * columns).array
    if array is None or array.shape != (1, rows, columns):
        raise InputError(f"{file.path}: its pixels are of another size than it says; copy or export the series again")
    return np.asarray(array[0])


def _plain(file: DicomFile) -> NDArray[Any]:
    """Stored values (y, x) of an uncompressed or RLE slice; pydicom leaves out what other bits of the words hold."""
    data = dataset(file.path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = data.pixel_array
    # pydicom raises whatever a broken file makes it stumble on.
    except Exception:
        array = np.empty(0)
    if array.shape != file.size or array.dtype.kind not in "iu":
        raise InputError(f"{file.path}: its pixels are truncated or damaged; copy or export the series again")
    return np.asarray(array)
