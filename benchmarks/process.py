"""Processes to measure: a command with its own peak of memory, and workers that take turns, all but one frozen.

Linux only: what is frozen, and what a process's own peak was, is asked of its kernel.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

#: What makes glibc keep freed memory, for programs that do not ask it by themselves: see glibc's manual, "Tunables".
TUNED = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=8589934592"
}

_WATCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
last = done.stdout.decode().splitlines()[-1:]
print(json.dumps({"process": seconds, "peak": peak / 1e6, "last": last[0] if last else ""}))
sys.exit(done.returncode)
"""


@dataclass(frozen=True)
class Watched:
    """A finished command: seconds with its start, peak memory in GB of its largest process, its last line."""

    seconds: float
    peak_gb: float
    last: str


def watched(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Watched:
    """Run `command` to its end, what it prints beside its last line unseen. Raises CalledProcessError when it fails.

    It gets a parent of its own: the peak that the system keeps of a process's children is that of the largest so far.
    """
    env = {**os.environ, **(environment or {})}
    done = subprocess.run([sys.executable, "-c", _WATCH, *command], stdout=subprocess.PIPE, env=env, check=True)
    table = json.loads(done.stdout)
    return Watched(table["process"], table["peak"], table["last"])


class Turns:
    """A worker: a module that calls `take_turns`, in a process of its own that is frozen while it is not its turn.

    So workers can be compared turn by turn, on one state of a shared machine, and what one does in threads or processes
    of its own cannot slow another down.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        env = {**os.environ, **(environment or {})}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._command = " ".join(command)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or the worker would be left, frozen
        self._process: subprocess.Popen[str] = subprocess.Popen([*command], env=env, start_new_session=True, **pipes)  # type: ignore[call-overload]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tell, self._told = self._process.stdin, self._process.stdout
        try:
            self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._signal(signal.SIGSTOP)

    def turn(self) -> dict[str, Any]:
        """What one turn gave. Raises RuntimeError when the worker died."""
        self._signal(signal.SIGCONT)
        self._tell.write("go\n")
        self._tell.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGKILL)
        self._end()

    def _answer(self) -> dict[str, Any]:
        for line in self._told:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self._command}: exit {self._end()}; its message stands above")

    def _end(self) -> int:
        for pipe in (self._tell, self._told):
            pipe.close()
        return self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def take_turns(work: Callable[[], Mapping[str, Any]]) -> None:
    """The worker's side: says that it is ready, then does `work` each time that it is asked to, and adds its peak."""
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps({**work(), "peak": peak_gb()}), flush=True)


def peak_gb(pid: int | str = "self") -> float:
    """Largest resident memory of a process since it began to run its program, in GB."""
    return memory_mb(pid)["VmHWM"] / 1e3


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """`VmRSS`, `VmHWM` (its peak) and the other sizes of a process in MB; empty when it is gone."""
    try:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {
        name: int(value.split()[0]) / 1e3 for name, _, value in (row.partition(":") for row in rows) if "kB" in value
    }


def page_cache_mb() -> float:
    """What the kernel keeps of files in the memory of the whole machine, in MB; programs get it when they need it."""
    rows = dict(row.split(":") for row in Path("/proc/meminfo").read_text().splitlines())
    return int(rows["Cached"].split()[0]) / 1e3


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds that one call took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with more than one value also the smallest and the largest."""
    around = f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{around}"


def times(rounds: int) -> str:
    """`3 rounds`."""
    return f"{rounds} round{'s' if rounds != 1 else ''}"


def machine(*pythons: str) -> str:
    """One line: cores, processor, and versions of what computes, here and in other interpreters."""
    rows = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), "unknown processor")
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if any(flag in row for row in rows)]
    ask = [subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True) for python in pythons]
    told = dict.fromkeys(
        [*_versions(), *(version for answer in ask for version in answer.stdout.split("\n") if version)]
    )
    return f"{os.cpu_count()} cores, {name} ({', '.join(flags) or 'no bf16'}); {', '.join(told)}"


def asked_for_help(text: str | None) -> None:
    """Print what a script says of itself, and end, where that is what its arguments ask for."""
    if {"-h", "--help"}.intersection(sys.argv[1:]):
        print(str(text).strip())
        sys.exit()


def _versions() -> list[str]:
    there = {name.lower(): version for name, version in ((d.name, d.version) for d in metadata.distributions())}
    return [f"{name} {there[name]}" for name in _PROGRAMS if name in there]


#: The third and fourth are those of the extra `[fast]`.
_PROGRAMS = ("torch", "numpy", "isal", "connected-components-3d", "openvino", "nnunetv2")
_VERSIONS = "from benchmarks.process import _versions; print(*_versions(), sep='\\n')"
