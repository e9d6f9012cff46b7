"""One process at a time in one folder, without leaving lock files behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocess.errors import ResourceError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it (flock(2) on the folder itself, so a killed process holds nothing).

    A folder that is still empty after a failure is removed again.
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
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResourceError(f"{folder}: another cascade is working in it; wait or choose another -o") from error
        try:
            yield
        except BaseException:
            with suppress(OSError):
                folder.rmdir()
            raise
    finally:
        os.close(handle)
