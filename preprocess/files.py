"""Writing files so that a name never shows half of one: a hidden temporary, synced, takes the name at the end."""

from __future__ import annotations

import json
import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import EIO
from pathlib import Path

from preprocess.errors import ResourceError, UsageError

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """`write` fills a temporary file in the folder of `path`, which then replaces `path`; on any failure it is removed.

    After a crash `path` holds the old or the new content in full, whichever moment the crash came.
    Raises ResourceError when the file cannot be written (disk full, read-only, no folder), and what `write` raises.
    """
    # Not named after the target: that name may be as long as the file system allows.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        # strerror alone, not the error: that would name the temporary, which means nothing to the user.
        reason = error.strerror or str(error)
        raise ResourceError(f"{path} cannot be written ({reason}); free space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes temporaries that a killed process left in `folder`; to be called by whoever holds the folder's lock."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    os.unlink(entry)


def check_writable(folder: Path) -> None:
    """Makes `folder` and writes into it once: who may not should hear so before the work, not after.

    Raises ResourceError. A folder that had to be made stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made ({error.strerror}); choose another -o") from error
    # Permissions alone do not tell: root has all of them, also on a read-only file system.
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written into ({error.strerror}); choose another -o") from error


def require_own(folder: Path, names: Iterable[str], mark: str, key: str, what: str) -> None:
    """Raises UsageError when `folder` holds one of `names` that is not `what`.

    That writes `mark` first, a JSON file with `key` in it.
    """
    there = [name for name in names if (folder / name).exists()]
    try:
        own = key in json.loads((folder / mark).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        own = False
    if there and not own:
        raise UsageError(f"-o {folder}: holds a {there[0]} that is not of {what}; choose another folder")


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Writes the parts one after another, atomically (see `write_atomic`), and reads them back before that."""

    def write(temporary: Path) -> None:
        checksum = 0
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for part in parts:
                checksum = zlib.crc32(part, checksum)
                write_all(descriptor, part)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if _checksum(temporary) != checksum:
            raise OSError(EIO, "it does not read back as it was written: the disk may be failing")

    write_atomic(path, write)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """All of `content` to an open file; the system may take less at a time. Raises OSError."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # from the disk, not from what the kernel remembers
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(2**20):
            value = zlib.crc32(block, value)
    return value


def _sync(path: Path) -> None:
    """Waits until the file or folder is on the disk. Full disks and quotas may speak up only now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically (see `write_atomic`)."""
    # A file name that is no valid UTF-8 may be part of the text; it must not stop the report.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, atomically. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
