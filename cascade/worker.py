"""Work in processes of its own, which may crash, hang or be killed: every task gets an answer.

A worker sets up once (reads models), told the task that it will most likely get first, and then takes one task after
another. While it works on one it begins the next in a thread (reads its scan), no more than one ahead. The parent only
waits, so it stays small and lives on. A worker that dies or takes too long costs its task, which is answered by an
error, and is replaced. If it had begun another, nobody knows which of the two killed it: both are done again, one at a
time. None outlives the parent, however that ends.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Generic, TypeVar

from cascade.serving import Identity, Ready, serve
from preprocess.errors import CascadeError, InputError, ModelError, ResourceError

T = TypeVar("T")
R = TypeVar("R")

#: Seconds that a worker may take to get ready: to import and to read its models, perhaps over a slow network.
SETUP_LIMIT_S = 600.0


def answers(
    tasks: Sequence[T], setup: Callable[[T | None], Ready[T, R]], jobs: int, limit_s: float
) -> Generator[tuple[T, R | CascadeError], None, None]:
    """Each task with its result or error, as they come; with one job in their order.

    `setup` and tasks are pickled. A worker that dies while it sets up, or lacks something then, is replaced by one that
    is told no task, since that may have been the cause. Raises the CascadeError that `setup` failed with, and
    ResourceError when a worker died or took too long over it by itself.
    """
    waiting = list(reversed(tasks))
    alone: list[T] = []  # what was begun or at work when a worker died; to be done with nothing begun beside it
    crew: list[_Worker[T, R]] = []
    identity: str | None = None
    try:
        crew += [_Worker(setup, task) for task in tasks[:jobs]]
        while waiting or any(worker.busy for worker in crew):
            while len(crew) < jobs and len(waiting) > sum(not worker.busy for worker in crew):
                crew.append(_Worker(setup))
            for worker in crew:
                if worker.idle and (k := _next_for(worker, crew, waiting)) is not None:
                    worker.give(waiting.pop(k))
            for worker in crew:
                # The last tasks wait for whoever is free first; those that a worker was told wait for it anyway.
                free = sum(task not in {other.likely for other in crew} for task in waiting)
                k = _next_for(worker, crew, waiting) if free >= jobs and worker.has_room else None
                if k is not None and not {*alone} & {worker.tasks[0], waiting[k]}:
                    worker.give(waiting.pop(k))
            for worker in _awake(crew, limit_s):
                answer = worker.answer(limit_s)
                if worker.dead:
                    crew.remove(worker)
                    waiting += reversed(worker.tasks)
                    alone += worker.tasks
                if isinstance(answer, Identity):
                    if identity not in (None, answer.value):
                        raise ModelError("a model file was replaced while it was in use; start again")
                    identity = answer.value
                elif answer:
                    yield answer
    finally:
        for worker in crew:
            worker.kill()


def _next_for(worker: _Worker[T, R], crew: Sequence[_Worker[T, R]], waiting: Sequence[T]) -> int | None:
    """Which of `waiting` to give it: what it was told, or the last that no other was told, whose first that will be."""
    if worker.likely in waiting:
        return waiting.index(worker.likely)
    told = [other.likely for other in crew]
    return next((k for k in reversed(range(len(waiting))) if waiting[k] not in told), None)


@dataclass(eq=False)
class _Worker(Generic[T, R]):
    """The parent's side of one worker; `tasks` holds the one it is at and the one it has begun beside it."""

    setup: Callable[[T | None], Ready[T, R]]
    likely: T | None = None
    tasks: list[T] = field(default_factory=list)
    ready: bool = False
    dead: bool = False
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.line, theirs = spawn.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        # Not a daemon in Python's sense: it may have children of its own.
        self.process = spawn.Process(target=serve, args=(partial(self.setup, self.likely), theirs, level, os.getpid()))
        # Blocked from its first moment, see `serve`; one that comes meanwhile reaches the parent after this.
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

    @property
    def has_room(self) -> bool:
        """For a task to begin beside the one it is at."""
        return self.ready and len(self.tasks) == 1

    @property
    def _may_be_its_task(self) -> bool:
        """Whether it fails in its setup by the task that it was told, perhaps."""
        return not self.ready and self.likely is not None

    def seconds_left(self, limit_s: float) -> float:
        """Until it is given up; an idle worker never is."""
        limit_s = limit_s if self.ready else SETUP_LIMIT_S
        return float("inf") if self.idle else self.since + limit_s - time.monotonic()

    def give(self, task: T) -> None:
        if not self.tasks:
            self.since = time.monotonic()
        self.likely = None
        self.tasks.append(task)
        with suppress(OSError):  # it died meanwhile: its end is noticed and answered
            self.line.send(task)

    def answer(self, limit_s: float) -> tuple[T, R | CascadeError] | Identity | None:
        """What a worker that is awake has to say, or what has to be said of it.

        None of one that died idle, or of two tasks, which stay in `tasks`, or of one that it was told while it set up.
        """
        try:
            said = self.line.recv() if self.line.poll() else None
        except (EOFError, OSError):
            said = None
        if said is None:
            late = self.seconds_left(limit_s) <= 0 and self.process.exitcode is None
            said = self._obituary(limit_s, late)
            if not late and (len(self.tasks) > 1 or self._may_be_its_task):
                return None
        elif isinstance(said, ResourceError) and self._may_be_its_task:  # no memory for models beside a scan
            self.kill()
            return None
        if isinstance(said, Identity):
            self.ready = True
            return said
        if not self.ready:
            raise said
        self.since = time.monotonic()
        return (self.tasks.pop(0), said) if self.tasks else None

    def _obituary(self, limit_s: float, late: bool) -> CascadeError:
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
            os.killpg(self.process.pid or 0, signal.SIGKILL)  # its group, see `serve`
        with suppress(OSError):
            self.process.kill()
        self.process.join()


def _awake(crew: Sequence[_Worker[T, R]], limit_s: float) -> list[_Worker[T, R]]:
    """Waits until workers have something to say, died or ran out of time, and returns them."""
    first = min(worker.seconds_left(limit_s) for worker in crew)
    lines = [thing for worker in crew for thing in (worker.line, worker.process.sentinel)]
    ready = wait(lines, max(0.0, first) if math.isfinite(first) else None)
    return [
        worker
        for worker in crew
        if worker.line in ready or worker.process.sentinel in ready or worker.seconds_left(limit_s) <= 0
    ]
