"""Work on many cases in several processes, so that one that crashes a reader does not take the others along."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from preprocess.errors import CascadeError, ResourceError

#: "max 100000", or how many microseconds of its cores a container may use in so many (cgroup version 2).
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> frozenset[int]:
    """Processors that this process may use: taskset or a container may leave it fewer than the machine has."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def usable_cores(own: frozenset[int] | None = None) -> int:
    """How many of its `own` (default: `cores`) a process can use: a container may have less time than they have."""
    count = len(cores() if own is None else own)
    with suppress(OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        quota, period = map(int, _QUOTA.read_text("ascii").split())
        return max(1, min(count, math.ceil(quota / period)))
    return count


def pool(jobs: int) -> Executor:
    """`jobs` fresh processes, which end when this one does, however it ends."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    # Ctrl-C reaches every process of a terminal; only the parent has something to say to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def outcomes(
    work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[int, Any | CascadeError]]:
    """`work(*task)` for every task as (its number, result), as they finish; a CascadeError is a result.

    When a process dies, every task that was left is done again in a process of its own, so that only the guilty one
    fails: its result is a ResourceError.
    """
    left = dict(enumerate(tasks))
    # Raised where the first process dies before the last task is handed over.
    with suppress(BrokenProcessPool):
        for number, result in _in_pool(work, left, jobs):
            if not isinstance(result, BrokenProcessPool):
                del left[number]
                yield number, result
    for number, task in left.items():
        ((_, result),) = _in_pool(work, {number: task}, 1)
        if isinstance(result, BrokenProcessPool):
            result = ResourceError(
                "its process died while reading it: the file is damaged in a way that crashes the reader, or memory "
                "is short; convert the file to .nii.gz, or use fewer --jobs"
            )
        yield number, result


def _in_pool(work: Callable[..., Any], tasks: dict[int, tuple[Any, ...]], jobs: int) -> Iterator[tuple[int, Any]]:
    executor = pool(jobs)
    try:
        futures: dict[Future[Any], int] = {executor.submit(work, *task): number for number, task in tasks.items()}
        for future in as_completed(futures):
            error = future.exception()
            if error is not None and not isinstance(error, CascadeError | BrokenProcessPool):
                raise error
            yield futures[future], future.result() if error is None else error
    except BaseException:
        # Ctrl-C: a case may take minutes.
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
