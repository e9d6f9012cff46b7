"""A worker's side of `cascade.worker`: sets up once, begins tasks in a thread, finishes them one after another."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Generic, NoReturn, TypeVar

from cascade.machine import as_cascade_error
from preprocess.errors import CascadeError

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ready(Generic[T, R]):
    """What a worker's setup returns: how it does a task, and what identifies the means it does it with.

    `begin` does of a task what can be done ahead, in a thread beside the task before it, and returns the rest of it.
    A worker that replaces a dead one must have the same `identity`, or one run would be done by two models.
    """

    begin: Callable[[T], Callable[[], R]]
    identity: str


@dataclass(frozen=True)
class Identity:
    """What a worker says first: the `identity` of what its setup returned."""

    value: str


def serve(setup: Callable[[], Ready[T, R]], line: Connection, log_level: int, parent: int) -> None:
    """A worker's life. It ends with the parent, even one that was killed: the kernel sees to it, or the closed pipe."""
    with suppress(OSError):
        os.setpgid(0, 0)  # Ctrl-C is the parent's business, who then ends this whole group
    _die_with(parent)
    logging.basicConfig(level=log_level, format="%(relativeCreated)7d ms  %(message)s")
    try:
        ready = setup()
    except Exception as error:
        line.send(as_cascade_error(error))
        return
    line.send(Identity(ready.identity))
    begun: SimpleQueue[tuple[T, Callable[[], R]] | None] = SimpleQueue()
    Thread(target=_begin, args=(ready.begin, line, begun), daemon=True).start()
    while (item := begun.get()) is not None:
        line.send(_finished(*item))
        del item  # and with it the memory of a scan that is done


def _finished(task: T, finish: Callable[[], R]) -> R | CascadeError:
    try:
        return finish()
    except Exception as error:
        _LOG.info("%s", task, exc_info=error)
        told = as_cascade_error(error)
        return told if told is error else type(told)(f"{task}: {told}")


def _begin(
    begin: Callable[[T], Callable[[], R]], line: Connection, begun: SimpleQueue[tuple[T, Callable[[], R]] | None]
) -> None:
    """Begins every task that comes. How far ahead is the parent's business: it sends two at most."""
    while True:
        try:
            task = line.recv()
        except (EOFError, OSError):
            begun.put(None)
            return
        try:
            begun.put((task, begin(task)))
        except Exception as error:
            begun.put((task, partial(_fail, error)))


def _fail(error: Exception) -> NoReturn:
    raise error


def _die_with(parent: int) -> None:
    """Linux kills this process when the parent ends; elsewhere it ends when it next looks at the closed pipe."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
