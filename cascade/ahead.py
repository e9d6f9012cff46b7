"""The inputs of `cascade run`: what tells one from another, and scans that are read before their turn.

Imports no torch, so that the first scan is read while that is imported.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from preprocess.folders import entries
from preprocess.io import Scan, read_scan
from preprocess.nifti import is_half_of_pair, pair_halves


def source_id(path: Path) -> str:
    """Identifies an input by the sizes and times of its files, not by its name or content: quick, for re-runs.

    Raises InputError for a half of a pair without the other.
    """
    files = [path]
    if path.is_dir():  # what lies deeper is not read, and may be the result itself
        files = sorted(entry for entry in entries(path) if entry.is_file())
    elif is_half_of_pair(path):
        files = [*pair_halves(path).values()]
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Ahead:
    """A scan that was read ahead of its turn: of which state of the file (see `source_id`), and in how many seconds."""

    source: str
    scan: Scan
    seconds: float


def read_ahead(path: Path) -> Ahead:
    """Read the scan at `path`. Raises as `source_id` and `read_scan` do."""
    source, start = source_id(path), time.monotonic()
    return Ahead(source, read_scan(path), time.monotonic() - start)


class Early:
    """The scan at `path`, which a thread reads from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading: Future[Ahead] | None = ThreadPoolExecutor(1).submit(read_ahead, path)

    def take(self, path: Path) -> Ahead | None:
        """What was read, if it is of `path`; None when it is not, and whenever it is asked again.

        Raises what went wrong while it was read.
        """
        reading, self._reading = self._reading, None  # it must not keep the memory of a scan
        return reading.result() if reading is not None and path == self._path else None
