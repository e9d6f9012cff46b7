"""SIGINT and SIGTERM during long work: note the first, save, stop; a second SIGINT stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

_T = TypeVar("_T")


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The user or the system asked to stop; `exit_code` is 128 + signal, as shells expect."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopNow(BaseException):
    """Leaves a block of `StopSignals.at_once`; not an Exception, so that nothing on the way takes it for a fault."""


class StopSignals:
    """A context in which SIGINT and SIGTERM only set `signal`; SIGINT as a second one raises KeyboardInterrupt.

    A second SIGTERM is no impatience: a scheduler and torchrun may each send one. Outside the main thread nothing is
    done. `agree` gives the largest of the numbers that several processes call it with (see `Ranks.largest`): of those
    that work together all stop when one is told to.
    """

    def __init__(self, agree: Callable[[float], float] = float) -> None:
        self.signal: int | None = None
        self._agree, self._agreed = agree, 0
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
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
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

    def together(self, work: Callable[[], _T]) -> _T:
        """`work()`, cut off by a signal as in `at_once`. StopNow when one came, to this process or to another."""
        with suppress(StopNow), self.at_once():
            result = work()
        # Not kept in `signal`: the same one may be on its way to this process too, and is not to be taken for a second.
        self._agreed = int(self._agree(self.signal or 0))
        if self._agreed:
            raise StopNow
        return result

    def raise_if_agreed(self, message: str) -> None:
        """Raise Interrupted with `message` when a signal ended `together`."""
        if self._agreed:
            raise Interrupted(message, self._agreed)


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
