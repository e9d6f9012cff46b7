"""NRRD and MetaImage files: a look at the header in Python, then SimpleITK in a child process, whose world is LPS."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.archive import DEFLATE_RATIO, GzipPieces, is_whole_zlib, reading_error
from preprocess.decoded import Decoded, assumed_steps, lattice
from preprocess.errors import InputError
from preprocess.fast import InflateError
from preprocess.geometry import index3, triple
from preprocess.itk_child import ItkChild, ItkImage

#: SimpleITK's reader by ending.
ITK_FORMATS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}

#: The spaces of an NRRD file that say where the patient lies and that SimpleITK knows; it takes any other for LPS.
_NRRD_SPACE = re.compile(
    rb"^space\s*:\s*(right-anterior-superior|left-anterior-superior|left-posterior-superior|RAS|LAS|LPS)\b",
    re.MULTILINE | re.IGNORECASE,
)


def read_itk(path: Path) -> Decoded:
    """The voxels (z, y, x) of an .nrrd or .mha file with their grid.

    Raises InputError for a file that is damaged, truncated, keeps its voxels elsewhere or is no 3-D scalar image.
    """
    text = _header_text(path)
    if re.search(rb"^CompressedData\s*=\s*True", text, re.MULTILINE):
        _check_compressed(path, len(text))
    if re.search(rb"^encoding\s*:\s*(gz|gzip)\s*$", text, re.MULTILINE | re.IGNORECASE):
        _check_gzip(path, text)
    room = path.stat().st_size * DEFLATE_RATIO
    with ItkChild() as child:
        image = child.read(path, ITK_FORMATS[path.suffix.lower()], room)
    _check_scalar(path, image, room)
    shape = index3(image.size[::-1])
    # Columns of the direction matrix are the world vectors of x, y, z.
    steps = (np.array(image.direction).reshape(3, 3) * np.array(image.spacing)).T[::-1]
    warnings: tuple[str, ...] = ()
    if not re.search(rb"^(space directions|TransformMatrix|Orientation|Rotation)\s*[:=]", text, re.MULTILINE):
        steps = assumed_steps(triple(image.spacing[::-1]))
        warnings = ("orientation not stated in the header; assumed left, back, head (LPS)",)
    elif text.startswith(b"NRRD") and not _NRRD_SPACE.search(text):
        warnings = ("the header does not say which way its axes point; assumed left, back, head (LPS)",)
    assert image.array is not None
    return Decoded(path, image.array, lattice(path, shape, steps, np.array(image.origin)), warnings=warnings)


def _header_text(path: Path) -> bytes:
    """The header of an NRRD or MetaImage file. Raises InputError for voxels in another file and for NaN in numbers."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise reading_error(path, error) from error
    text = re.split(rb"\r?\n\r?\n|ElementDataFile\s*=\s*LOCAL", head, maxsplit=1)[0]
    if re.search(rb"^(data ?file\s*:|ElementDataFile\s*=)", text, re.MULTILINE | re.IGNORECASE):
        raise InputError(f"{path} keeps its voxels in another file; convert it to one .nii.gz")
    # SimpleITK reads a spacing of nan as 1.
    if re.search(
        rb"^(spac|ElementSpacing|Offset|TransformMatrix)[^:=]*[:=].*\bnan", text, re.MULTILINE | re.IGNORECASE
    ):
        raise InputError(f"{path}: spacing or position is not finite; mend the header or convert the scan again")
    return text


def _check_compressed(path: Path, start: int) -> None:
    """Raises InputError for a damaged zlib stream behind a MetaImage header, which SimpleITK reads without a word."""
    with path.open("rb") as file:
        file.seek(start)
        # The line that ends the header is `ElementDataFile = LOCAL`.
        file.readline()
        if not is_whole_zlib(file):
            raise InputError(f"{path} is damaged or truncated; copy it again or convert it to .nii.gz")


def _check_gzip(path: Path, header: bytes) -> None:
    """Raises InputError for a gzip stream behind an NRRD header that is damaged or has no checksum.

    SimpleITK reads one that ends without it.
    """
    skipped = re.search(rb"^line skip\s*:\s*(\d{1,6})", header, re.MULTILINE | re.IGNORECASE)
    with path.open("rb") as file:
        file.seek(len(header))
        # The rest of the header's last line, and the empty line that ends it.
        for _ in range(2 + (int(skipped[1]) if skipped else 0)):
            file.readline()
        message = f"{path} is damaged or truncated; copy it again or convert it to .nii.gz"
        try:
            for _ in GzipPieces(file):
                pass
        except EOFError:
            raise InputError(message) from None
        except InflateError:
            raise InputError(message) from None


def _check_scalar(path: Path, image: ItkImage, room: int) -> None:
    sizes = "x".join(map(str, image.size))
    if len(image.size) != 3 or min(image.size) < 1 or image.components != 1 or image.is_complex:
        found = f"{len(image.size)}-D, {sizes}, {image.components} values a voxel"
        raise InputError(f"{path}: not a 3-D scalar CT volume ({found}); give one 3-D volume")
    if image.array is None:
        raise InputError(f"{path} is truncated: at most {room} bytes for {sizes} voxels; copy it again")
