"""Reads NIfTI files and pairs, plain or gzipped, by content and not by name, and writes single files.

Written out instead of calling SimpleITK because that reads a truncated file as if it were whole, turns NaN into 0 HU
and dies on 5-D files: here the whole gzip stream is checked, and reading never goes beyond what the header declares.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.archive import DEFLATE_RATIO, GZIP_MAGIC, GzipPieces, gzipped, made_ahead, reading_error
from preprocess.decoded import Decoded
from preprocess.errors import InputError, ResourceError
from preprocess.fast import InflateError
from preprocess.nifti_header import GEOMETRY_FIELDS, HEADER_BYTES, NiftiHeader

_PIECE_BYTES = 1 << 20
_COMPRESSION = 4
_HALF = re.compile(r"\.(hdr|img)(\.gz)?$", re.IGNORECASE)
#: NIfTI's codes of the types that are written.
_WRITTEN = {"uint8": 2, "int16": 4}


def read_nifti(path: Path) -> tuple[Decoded, NiftiHeader]:
    """The stored values (z, y, x) of a NIfTI-1 or NIfTI-2 file with their grid, and its header.

    Raises InputError for a file that is damaged, truncated, or no 3-D scalar image; ResourceError for lack of memory.
    """
    with _opened(path) as stream:
        head = _head(stream)
        header = NiftiHeader.parse(head, path)
        return _image(header, _Stream(path, chain([head], stream.pieces), stream.room, stream.gzip)), header


def read_pair(path: Path) -> tuple[Decoded, NiftiHeader]:
    """As `read_nifti`, for a two-file image (.hdr and .img, each plain or gzipped) of which `path` is either half.

    Raises InputError that names the half that is missing.
    """
    halves = pair_halves(path)
    with _opened(halves[".hdr"]) as stream:
        head = _head(stream)
        if sum(map(len, islice(stream.pieces, 2))) > _PIECE_BYTES:
            raise InputError(f"{halves['.hdr']} is no NIfTI header: larger than 1 MiB; give the half with the header")
    header = NiftiHeader.parse(head, halves[".hdr"], pair=True)
    with _opened(halves[".img"]) as stream:
        return _image(header, stream), header


def is_half_of_pair(path: Path) -> bool:
    """Whether a name is one of a two-file image."""
    return _HALF.search(path.name) is not None


def pair_halves(path: Path) -> dict[str, Path]:
    """Both files, `.hdr` and `.img`, of the image that `path` is a half of.

    Raises InputError that names a missing one.
    """
    return {half: _half(path, half) for half in (".hdr", ".img")}


def _half(path: Path, ending: str) -> Path:
    stem = _HALF.sub("", path.name)
    found = [p for p in (path.with_name(stem + ending), path.with_name(stem + ending + ".gz")) if p.is_file()]
    if not found:
        kind = "voxels" if ending == ".img" else "header fields"
        raise InputError(
            f"{path}: its {kind}, {stem}{ending}[.gz], are missing beside it; give both halves or one .nii"
        )
    return found[0]


@dataclass(frozen=True)
class _Stream:
    """The content of a file in pieces; `room` is the most bytes it can have, `gzip` the engine of a compressed one."""

    path: Path
    pieces: Iterator[bytes]
    room: int
    gzip: GzipPieces | None


@contextmanager
def _opened(path: Path) -> Iterator[_Stream]:
    """A file, decompressed if need be; what goes wrong while reading becomes one line."""
    try:
        with path.open("rb") as file:
            room = os.fstat(file.fileno()).st_size
            compressed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if compressed:
                engine = GzipPieces(file)
                with closing(made_ahead(iter(engine))) as pieces:
                    yield _Stream(path, pieces, room * DEFLATE_RATIO, engine)
            else:
                yield _Stream(path, iter(lambda: file.read(_PIECE_BYTES), b""), room, None)
    except EOFError:
        raise InputError(f"{path} is truncated: its gzip stream ends early; copy the file again") from None
    except InflateError as error:
        raise InputError(f"{path}: damaged gzip stream ({error}); copy the file again") from None
    except OSError as error:
        raise reading_error(path, error) from error


def _head(stream: _Stream) -> bytes:
    head = b""
    while len(head) < HEADER_BYTES and (piece := next(stream.pieces, b"")):
        head += piece
    if not head:
        raise InputError(f"{stream.path} is empty; copy the file again")
    if stream.gzip and head[:2] == GZIP_MAGIC:
        raise InputError(f"{stream.path} is compressed twice; run gunzip on it once")
    return head


def _image(header: NiftiHeader, stream: _Stream) -> Decoded:
    """The voxels that `header` declares, out of `stream`, which must hold just these."""
    path = stream.path
    grid, warnings = header.grid()
    total = header.offset + int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
    # Before any memory is asked for.
    if total > stream.room:
        raise InputError(
            f"{path} is truncated: {'at most ' if stream.gzip else ''}{stream.room} of {total} bytes; "
            "copy the file again"
        )
    content = _filled(path, total, stream.pieces)
    array = np.frombuffer(content, header.dtype, offset=header.offset).reshape(header.shape)
    if stream.gzip is not None and stream.gzip.trailing:
        warnings = (*warnings, "something follows the gzip stream of the file; ignored")
    return Decoded(path, array, grid, *header.scaling, warnings=warnings)


def _filled(path: Path, total: int, pieces: Iterable[bytes | bytearray]) -> NDArray[np.uint8]:
    """The first and only `total` bytes of `pieces`."""
    try:
        content = np.empty(total, np.uint8)
    except MemoryError as error:
        raise ResourceError(f"{path} needs {total >> 20} MiB of memory; use a machine with more") from error
    view, filled = content.data, 0
    try:
        for piece in pieces:
            end = filled + len(piece)
            if end > total:
                raise InputError(f"{path} holds more than the {total} bytes its header declares; the header is damaged")
            view[filled:end] = piece
            filled = end
    except EOFError:
        if filled == total:
            raise InputError(f"{path} is truncated: it ends without its checksum; copy the file again") from None
    if filled < total:
        raise InputError(f"{path} is truncated: {filled} of {total} bytes; copy the file again")
    return content


def write_nifti(path: Path, array: NDArray[Any], header: NiftiHeader) -> None:
    """Writes `array` (z, y, x; uint8 or int16) as .nii.gz.

    Its `GEOMETRY_FIELDS` are those of `header`, in its version and byte order.
    Nothing else is copied: free text of a header may name the patient. The same input gives the same bytes.
    """
    fields = np.zeros((), header.fields.dtype)
    for name in GEOMETRY_FIELDS:
        fields[name] = header.fields[name]
    fields["sizeof_hdr"] = fields.dtype.itemsize
    fields["magic"] = b"n+1" if fields.dtype["magic"].itemsize == 4 else b"n+2\0\r\n\x1a\n"
    fields["dim"] = (3, *array.shape[::-1], 1, 1, 1, 1)
    stored = array.dtype.newbyteorder(header.byte_order)
    fields["datatype"], fields["bitpix"] = _WRITTEN[array.dtype.name], 8 * stored.itemsize
    fields["vox_offset"] = fields.dtype.itemsize + 4
    fields["scl_slope"] = 1
    # The four bytes after the header say that no extension follows.
    head = np.frombuffer(fields.tobytes() + bytes(4), np.uint8)
    count = max(1, _PIECE_BYTES // (array[0].size * stored.itemsize))
    blocks = (np.ascontiguousarray(array[k : k + count], stored) for k in range(0, len(array), count))
    with path.open("wb") as file:
        file.writelines(gzipped(chain([head], blocks), _COMPRESSION))


def verify_nifti(path: Path, array: NDArray[Any], header: NiftiHeader) -> None:
    """Reads a file of `write_nifti` back, keeping nothing. Raises ResourceError when it is not what was written."""
    try:
        with _opened(path) as stream:
            head = _head(stream)
            stored = NiftiHeader.parse(head, path)
            same = all(_bytes(stored.fields[name]) == _bytes(header.fields[name]) for name in GEOMETRY_FIELDS)
            same = same and stored.shape == array.shape
            same = same and _hold(chain([head[stored.offset :]], stream.pieces), array, stored.dtype)
    except InputError as error:
        raise ResourceError(f"a written mask cannot be read back ({error}); check the disk") from error
    if not same:
        raise ResourceError("a written mask reads back differently; check the disk and the memory")


def _hold(pieces: Iterable[bytes], array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether `pieces` are the slices of `array`, stored as `dtype`, and no more."""
    size, left, planes = array[0].size * dtype.itemsize, bytearray(), iter(array)
    for piece in pieces:
        left += piece
        for start in range(0, len(left) - size + 1, size):
            plane = next(planes, None)
            if plane is None or not np.array_equal(np.frombuffer(left, dtype, plane.size, start), plane.ravel()):
                return False
        del left[: len(left) // size * size]
    return not left and next(planes, None) is None


def _bytes(value: Any) -> bytes:
    return np.asarray(value).tobytes()
