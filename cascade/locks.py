"""One process at a time in one folder, without leaving lock files behind."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocess.errors import ResourceError
from preprocess.files import remove_leftovers

#: Only where a folder cannot be locked itself (NFS): this file in it is, and stays.
LOCK_FILE = ".cascade.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it (flock(2), so a killed process holds nothing, and no clock is asked).

    What a killed process left half written in it is removed, and a folder that is still empty after a failure.
    Raises ResourceError when another process holds it or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made or opened ({error.strerror}); choose another -o") from error
    try:
        if not os.access(folder, os.W_OK):
            raise ResourceError(f"{folder}: not writable; choose another -o")
        _hold(handle, folder)
        remove_leftovers(folder)
        try:
            yield
        except BaseException:
            with suppress(OSError):
                folder.rmdir()
            raise
    finally:
        os.close(handle)


def _hold(handle: int, folder: Path) -> None:
    """Locks the open folder; where the file system does not lock folders, `handle` becomes that of a file in it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise ResourceError(f"{folder}: another cascade is working in it; wait or choose another -o") from error
        if os.path.samestat(os.fstat(handle), os.stat(folder)):
            file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
            os.dup2(file, handle, inheritable=False)
            os.close(file)
            return _hold(handle, folder)
        raise ResourceError(f"{folder}: its file system locks nothing ({error.strerror}); choose another -o") from error
