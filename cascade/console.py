"""The three standard streams made safe: none is missing, none can fail for want of a reader or of a character."""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import Any, TextIO


class _NoReaderNeeded(io.FileIO):
    """Writes until the reader at the other end of the pipe goes away; from then on what is written is dropped.

    The work goes on: what it writes to the disk is what it is for, its lines on the screen are a comfort.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def make_streams_safe() -> None:
    """To be called once, before anything is written or opened.

    A closed stdin, stdout or stderr is opened as /dev/null, so that no file of ours gets its number; a closed pipe
    (`| head -1`) drops what it is sent; what the terminal cannot show is written as an escape. A thread that dies does
    so without a traceback on the screen: whoever waits for it reports it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (stays open)
    sys.stdout, sys.stderr = _safe(sys.stdout, 1), _safe(sys.stderr, 2)
    threading.excepthook = lambda _: None


def _safe(stream: TextIO | None, number: int) -> TextIO:
    encoding = stream.encoding if stream else "utf-8"
    raw = _NoReaderNeeded(number, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True)
