"""Work in processes of its own, which may crash, hang or be killed: every task gets an answer.

A worker sets up once (reads models) and then takes one task after another. The parent only waits, so it stays small and
lives on. One that dies or takes too long costs its task, which is answered by an error, and is replaced. None outlives
the parent, however that ends.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from cascade.machine import as_cascade_error
from preprocess.errors import CascadeError, InputError, ModelError, ResourceError

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
#: Seconds that a worker may take to get ready: to import and to read its models, perhaps over a slow network.
SETUP_LIMIT_S = 600.0


@dataclass(frozen=True)
class Ready(Generic[T, R]):
    """What a worker's setup returns: how it does a task, and what identifies the means it does it with.

    A worker that replaces a dead one must have the same `identity`, or one run would be done by two models.
    """

    work: Callable[[T], R]
    identity: str


def answers(
    tasks: Sequence[T], setup: Callable[[], Ready[T, R]], jobs: int, limit_s: float
) -> Generator[tuple[T, R | CascadeError], None, None]:
    """Each task with its result or error, as they come; with one job in their order.

    `setup` and tasks are pickled. Raises the CascadeError that `setup` failed with, and ResourceError when a worker
    died or took too long over it.
    """
    waiting = list(reversed(tasks))
    crew: list[_Worker[T, R]] = []
    identity: str | None = None
    try:
        while waiting or any(worker.busy for worker in crew):
            while len(crew) < jobs and len(waiting) > sum(not worker.busy for worker in crew):
                crew.append(_Worker(setup))
            for worker in crew:
                if worker.idle and waiting:
                    worker.give(waiting.pop())
            for worker in _awake(crew, limit_s):
                answer = worker.answer(limit_s)
                if worker.dead:
                    crew.remove(worker)
                if isinstance(answer, _Identity):
                    if identity not in (None, answer.value):
                        raise ModelError("a model file was replaced while it was in use; start again")
                    identity = answer.value
                elif answer:
                    yield answer
    finally:
        for worker in crew:
            worker.kill()


@dataclass(frozen=True)
class _Identity:
    value: str


@dataclass(eq=False)
class _Worker(Generic[T, R]):
    """The parent's side of one worker; `tasks` holds the one it is at."""

    setup: Callable[[], Ready[T, R]]
    tasks: list[T] = field(default_factory=list)
    ready: bool = False
    dead: bool = False
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.line, theirs = spawn.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        # Not a daemon in Python's sense: it may have children of its own.
        self.process = spawn.Process(target=_serve, args=(self.setup, theirs, level, os.getpid()))
        # Blocked from its first moment, see `_serve`; one that comes meanwhile reaches the parent after this.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()

    @property
    def busy(self) -> bool:
        return bool(self.tasks)

    @property
    def idle(self) -> bool:
        return self.ready and not self.tasks

    def seconds_left(self, limit_s: float) -> float:
        """Until it is given up; an idle worker never is."""
        limit_s = limit_s if self.ready else SETUP_LIMIT_S
        return float("inf") if self.idle else self.since + limit_s - time.monotonic()

    def give(self, task: T) -> None:
        self.tasks, self.since = [task], time.monotonic()
        with suppress(OSError):  # it died meanwhile: its end is noticed and answered
            self.line.send(task)

    def answer(self, limit_s: float) -> tuple[T, R | CascadeError] | _Identity | None:
        """What a worker that is awake has to say, or what has to be said of it; None of one that died idle."""
        try:
            said = self.line.recv() if self.line.poll() else None
        except (EOFError, OSError):
            said = None
        if said is None:
            said = self._obituary(limit_s)
        if isinstance(said, _Identity):
            self.ready = True
            return said
        if not self.ready:
            raise said
        return (self.tasks.pop(), said) if self.tasks else None

    def _obituary(self, limit_s: float) -> CascadeError:
        late = self.seconds_left(limit_s) <= 0 and self.process.exitcode is None
        if not late:
            self.process.join(5)
        code = self.process.exitcode
        self.kill()
        what = f"{self.tasks[0]}: " if self.tasks else ""
        if late and not self.ready:
            return ResourceError(f"the models were not read within {SETUP_LIMIT_S:g} s; is their disk still there?")
        if late:
            return ResourceError(f"{what}took longer than {limit_s / 60:g} minutes; give more --case-minutes")
        if code == -signal.SIGKILL:
            return ResourceError(
                f"{what}its process was killed, most likely for want of memory; free memory or use fewer --jobs"
            )
        name = signal.Signals(-code).name if code and code < 0 else f"exit {code}"
        if not self.ready:
            return ResourceError(
                f"the process that was to do the work died ({name}) before it began; check the installation"
            )
        return InputError(
            f"{what}its process died ({name}); the file is most likely damaged: leave it out or convert it anew"
        )

    def kill(self) -> None:
        """End it and its children at once."""
        self.dead = True
        self.line.close()
        with suppress(OSError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)  # its group, see `_serve`
        with suppress(OSError):
            self.process.kill()
        self.process.join()


def _awake(crew: Sequence[_Worker[T, R]], limit_s: float) -> list[_Worker[T, R]]:
    """Waits until workers have something to say, died or ran out of time, and returns them."""
    first = min(worker.seconds_left(limit_s) for worker in crew)
    lines = [thing for worker in crew for thing in (worker.line, worker.process.sentinel)]
    ready = wait(lines, max(0.0, first))
    return [
        worker
        for worker in crew
        if worker.line in ready or worker.process.sentinel in ready or worker.seconds_left(limit_s) <= 0
    ]


def _serve(setup: Callable[[], Ready[T, R]], line: Connection, log_level: int, parent: int) -> None:
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
    line.send(_Identity(ready.identity))
    while True:
        try:
            task = line.recv()
        except EOFError:
            return
        try:
            line.send(ready.work(task))
        except Exception as error:
            _LOG.info("%s", task, exc_info=error)
            told = as_cascade_error(error)
            line.send(told if told is error else type(told)(f"{task}: {told}"))


def _die_with(parent: int) -> None:
    """Linux kills this process when the parent ends; elsewhere it ends when it next looks at the closed pipe."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
