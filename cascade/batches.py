"""The batches of a training, one after the other: for a CPU made ahead of time in a thread, on a GPU in turn."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator

from cascade.machine import lacks_memory, leave
from cascade.sampler import Batch
from preprocess.errors import CascadeError, ResourceError

#: Seconds that a batch may take; one that needs more hangs, on a dead network disk for instance.
BATCH_LIMIT_S = 900.0
#: Seconds that the last batch, which nobody wants any more, is waited for.
_PARTING_S = 5.0


def ahead(
    make: Callable[[int], Batch], start: int, case: Callable[[], str], depth: int = 3, limit_s: float = BATCH_LIMIT_S
) -> Generator[Batch, None, None]:
    """Batches `start`, `start + 1`, ... without end, up to `depth` of them made ahead in a thread of their own.

    What goes wrong in that thread is raised here, naming the `case()` it was at, and so is, as ResourceError, a batch
    that takes longer than `limit_s`. A thread cannot be killed by itself as a process can: whatever ends it ends the
    training, which goes on with --resume.
    """
    ready: queue.Queue[Batch | Exception] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        step = start
        while not stopped.is_set():
            try:
                ready.put(make(step))
            except Exception as error:
                ready.put(error)
                return
            step += 1

    # A daemon, so that one that hangs does not keep the program from ending.
    thread = threading.Thread(target=work, daemon=True, name="batches")
    thread.start()
    try:
        while True:
            yield _taken(ready, case, limit_s)
    finally:
        stopped.set()
        with contextlib.suppress(queue.Empty):
            while True:
                ready.get_nowait()  # makes room for a thread that waits to put its last
        thread.join(_PARTING_S)  # or the end of the program could find it inside torch, and abort


def _taken(ready: queue.Queue[Batch | Exception], case: Callable[[], str], limit_s: float) -> Batch:
    try:
        item = ready.get(timeout=limit_s)
    except queue.Empty:
        raise ResourceError(_late(case(), limit_s)) from None
    if isinstance(item, Exception):
        raise _named(item, case()) from item
    return item


def in_turn(
    make: Callable[[int], Batch], start: int, case: Callable[[], str], limit_s: float = BATCH_LIMIT_S
) -> Generator[Batch, None, None]:
    """Batches as `ahead` gives them, each made when it is asked for.

    For a GPU: there work is only queued, which takes no time of the step before, and two threads that queue hinder each
    other: a step took twice as long. A batch that takes longer than `limit_s` ends the process, exit code 5: what hangs
    in the main thread cannot be made to raise anything.
    """
    for step in itertools.count(start):
        late = threading.Timer(limit_s, lambda: leave(_late(case(), limit_s)))
        late.daemon = True
        late.start()
        try:
            batch = make(step)
        except Exception as error:
            raise _named(error, case()) from error
        finally:
            late.cancel()
        yield batch


def _late(case: str, limit_s: float) -> str:
    return f"case {case}: no batch within {limit_s:g} s; is its disk still there? Go on with --resume"


def _named(error: Exception, case: str) -> Exception:
    """What is raised for an `error` in making a patch of `case`."""
    if isinstance(error, CascadeError) or lacks_memory(error):
        return error
    return ResourceError(f"case {case}: making a batch failed ({error!r}); run cascade prepare again")
