"""Work for workers of tests, to be imported by them: what crashes, hangs, fails, and what does not."""

import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from cascade.serving import Ready
from preprocess.errors import InputError, ModelError


@dataclass(frozen=True)
class Setup:
    """`fault`: what is wrong with the setup itself. `marks`: a folder where each worker leaves its process id, and
    in it the task that it was told."""

    marks: Path
    fault: str = ""

    def __call__(self, likely):
        (self.marks / str(os.getpid())).write_text(str(likely))
        count = len(list(self.marks.iterdir()))
        if likely == "pid late":
            time.sleep(1)
        if likely == "big":
            raise MemoryError
        if self.fault == "model":
            raise ModelError("no such model")
        if self.fault == "crash" or likely == "segv told":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "hang":
            time.sleep(60)
        return Ready(begin, f"model {count}" if self.fault == "replaced" else "model")


def begin(task):
    if task == "segv ahead":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif task == "error ahead":
        raise InputError("bad file")
    elif task == "waits for the next":
        return partial(wait, "next")
    if task == "next":
        BEGUN.set()
    return partial(act, task)


#: Set when the task `next` was begun.
BEGUN = Event()


def wait(_):
    """Says whether `next` is begun while this task is at work."""
    return "begun" if BEGUN.wait(5) else "not begun"


def act(task):
    if task.startswith("pid"):
        return str(os.getpid())
    if task == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "hang":
        time.sleep(60)
    elif task == "slow":
        Path("/proc/self/comm").write_text("slow")
        time.sleep(2)
    elif task.startswith("until "):
        Path("/proc/self/comm").write_text("slow")
        while not Path(task.removeprefix("until ")).exists():
            time.sleep(0.01)
    elif task == "error":
        raise InputError("bad file")
    elif task == "bug":
        raise IndexError("list index out of range")
    elif task == "memory":
        raise MemoryError
    elif task == "disk":
        raise OSError(28, "No space left on device", "/full/x")
    elif task == "leave":
        os._exit(0)
    return f"{task} done"
