"""Writing files so that a name never shows half of one: a hidden temporary, synced, takes the name at the end."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from preprocess.errors import ResourceError


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
    write_atomic(path, lambda temporary: _write_bytes(temporary, text.encode("utf-8", "backslashreplace")))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, atomically. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
