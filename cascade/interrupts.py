"""SIGINT and SIGTERM during long work: note the first, save, stop; a second SIGINT stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The user or the system asked to stop; `exit_code` is 128 + signal, as shells expect."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopNow(BaseException):
    """Leaves a block of `StopSignals.at_once`; not an Exception, so that nothing on the way takes it for a fault."""


class StopSignals:
    """A context in which SIGINT and SIGTERM only set `signal`, and a second one raises KeyboardInterrupt.

    Outside the main thread it does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._at_once = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        if self._at_once:
            raise StopNow

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises StopNow in the block when a signal comes: for what takes long and leaves nothing half done."""
        if self.signal is not None:
            raise StopNow
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def raise_if_set(self, message: str) -> None:
        """Raise Interrupted with `message` when a signal came."""
        if self.signal is not None:
            raise Interrupted(message, self.signal)


@contextmanager
def terminable() -> Iterator[None]:
    """A context in which SIGTERM is an exception, Interrupted, so that nothing is left half done or running."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped; what is finished stays, and the same command goes on from there", number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
