"""Compressed containers: gzip streams, read with bounds and written; ZIP archives, read into a temporary folder.

What reads beside other work, and compresses on several cores, does so in threads: zlib and isal let go of Python.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from numpy.typing import NDArray

from preprocess.errors import InputError, ResourceError, missing
from preprocess.fast import inflater
from preprocess.workers import usable_cores

GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"

#: No deflate stream grows by more (zlib's technical notes): a header that declares more than this is a lie.
DEFLATE_RATIO = 1032

#: Most that a ZIP may unpack to: in bytes, and as a multiple of its own size (CT shrinks 2 to 10 times, masks 100).
ZIP_BYTES, ZIP_RATIO, ZIP_SMALL_BYTES = 8 << 30, 200, 64 << 20

#: The ending of a name, if it is like one.
_ENDING = re.compile(r"(?:\.[a-z]{1,8})?$")

_IN, _OUT = 1 << 16, 1 << 20
_IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha")


class GzipPieces:
    """Iterates over the content of a gzip file in pieces of at most 1 MiB, all members, each CRC and length checked.

    Stop iterating to stop reading. Raises InflateError for a damaged stream and EOFError for one that ends early.
    `trailing` is True afterwards when something that is no gzip member followed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.trailing = False

    def __iter__(self) -> Iterator[bytes]:
        data = self._file.read(_IN)
        while True:
            # 31: a gzip wrapper whose CRC and length zlib compares.
            engine = inflater(31)
            while not engine.eof:
                piece = engine.decompress(data, _OUT)
                data = engine.unconsumed_tail
                if piece:
                    yield piece
                elif not engine.eof and not data:
                    data = self._file.read(_IN)
                    if not data:
                        raise EOFError
            data = engine.unused_data
            if len(data) < len(GZIP_MAGIC):
                data += self._file.read(_IN)
            if data[:2] != GZIP_MAGIC:
                # Zeros are the padding of tapes and block devices, no damage.
                self.trailing = bool(data.strip(b"\0"))
                return


def made_ahead(pieces: Iterator[bytes]) -> Generator[bytes]:
    """`pieces`, none empty, each made in a thread while the one before it is used. Closing it waits for the thread."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, pieces, b"")
        while piece := coming.result():
            coming = thread.submit(next, pieces, b"")
            yield piece


def gzipped(blocks: Iterable[NDArray[Any]], level: int) -> Iterator[bytes]:
    """One gzip member (RFC 1952) of all `blocks` (C-contiguous), compressed by as many threads as there are cores.

    Each block is deflated without a look at those before it, as `pigz -i` does; of a megabyte each they take hardly
    more room. The result is the same whatever the number of threads.
    """
    yield GZIP_MAGIC + b"\x08" + bytes(6) + b"\xff"  # deflate; no name, time or system
    checksum = size = 0
    cores, waiting = usable_cores(), deque[Future[bytes]]()
    with ThreadPoolExecutor(cores) as threads:
        for block in blocks:
            waiting.append(threads.submit(_deflated, block, level))
            checksum, size = zlib.crc32(block.data, checksum), size + block.nbytes
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        for deflated in waiting:
            yield deflated.result()
    yield b"\x03\x00" + struct.pack("<II", checksum, size % 2**32)  # an empty block is the last


def _deflated(block: NDArray[Any], level: int) -> bytes:
    """`block` as deflate blocks of which none is the last, up to the end of a byte."""
    engine = zlib.compressobj(level, zlib.DEFLATED, -15)
    return engine.compress(block.data) + engine.flush(zlib.Z_SYNC_FLUSH)


def is_whole_zlib(file: BinaryIO) -> bool:
    """Whether a zlib stream starts here and reaches its end with the right checksum. Keeps nothing of its content."""
    engine = zlib.decompressobj()
    try:
        while not engine.eof:
            data = engine.unconsumed_tail or file.read(_IN)
            if not engine.decompress(data, _OUT) and not data:
                return False
    except zlib.error:
        return False
    return True


def reading_error(path: Path, error: OSError) -> InputError | ResourceError:
    """What to raise when opening or reading `path` failed."""
    if isinstance(error, PermissionError):
        return ResourceError(f"{path} may not be read; check its permissions")
    if isinstance(error, FileNotFoundError):
        return missing(path)
    return InputError(f"{path} cannot be read ({error.strerror or error}); check the disk or copy the file again")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """What a ZIP holds, in a temporary folder that is removed at the end: its only image file, or a folder of slices.

    Names in the archive are never used as paths. Raises InputError for a damaged, encrypted or exploding archive.
    """
    with tempfile.TemporaryDirectory(prefix="cascade-") as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if _counts(m)]
                _check_size(path, members)
                targets = [_unpack(archive, m, folder, i) for i, m in enumerate(members)]
        # RuntimeError: a password is needed. NotImplementedError: a compression Python does not know.
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
            raise InputError(f"{path}: the ZIP cannot be unpacked ({error}); pack or copy it again") from error
        except OSError as error:
            if error.errno is None:  # bz2's word for a damaged stream
                raise InputError(f"{path}: the ZIP cannot be unpacked ({error}); pack or copy it again") from error
            raise ResourceError(f"{path} cannot be unpacked to {folder.parent} ({error.strerror})") from error
        images = [target for target in targets if target.name.endswith(_IMAGES)]
        if len(images) > 1:
            raise InputError(f"{path} holds {len(images)} images; unpack it and name one")
        try:
            yield images[0] if images else folder
        except InputError as error:
            # The temporary folder means nothing to the user.
            raise InputError(str(error).replace(str(folder), str(path))) from error


def _counts(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    hidden = any(part.startswith(".") and part != ".." for part in parts) or "__MACOSX" in parts
    return not member.is_dir() and not hidden


def _check_size(path: Path, members: list[zipfile.ZipInfo]) -> None:
    total = sum(member.file_size for member in members)
    if total > min(ZIP_BYTES, max(ZIP_SMALL_BYTES, ZIP_RATIO * path.stat().st_size)):
        raise InputError(f"{path} would unpack to {total} bytes, more than a scan holds; unpack it by hand")


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, number: int) -> Path:
    name = member.filename.lower()
    # The ending tells the reader of slices what should be one, and says nothing else.
    suffix = max((s for s in _IMAGES if name.endswith(s)), key=len, default="") or _ENDING.findall(name)[0]
    target = folder / f"{number:06}{suffix}"
    # ZipFile stops at the size that the directory of the archive declares, and checks the CRC.
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _OUT)
    return target
