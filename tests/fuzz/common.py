"""The loop that all fuzz targets share: mutate a seed, try it in a child process with limits, keep what breaks it.

A target is a script `fuzz_NAME.py` beside this file; `make fuzz` finds it by its name. All of it:

    from tests.fuzz.common import expected_errors, main

    def check(content: bytes, folder: Path) -> None:
        path = folder / "a.nii.gz"
        path.write_bytes(content)
        with expected_errors():
            assert fine(read(path))

    if __name__ == "__main__":
        main(check, seeds())        # seeds: a list of bytes, each a good input

`check` raises whatever it likes when the input broke something; only a `CascadeError` inside `expected_errors()` is the
right answer to a bad input. A death by signal, more than `SECONDS` for one input and more than `MEMORY_MB` over the
start count as findings too. Each kind of finding is printed once, with its input saved under `build/fuzz/`; run

    .venv/bin/python -m tests.fuzz.fuzz_NAME build/fuzz/FILE

from the repository's root to see it again. Same `--seed`, same inputs.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from preprocess.errors import CascadeError

Check = Callable[[bytes, Path], None]
Mutate = Callable[[bytes, random.Random], bytes]

#: Limits for one input.
SECONDS, MEMORY_MB = 20, 400
#: Inputs of one child; then a new one starts, so that memory that only grows slowly is no finding.
_BATCH = 500
_FINDINGS = Path("build/fuzz")
_ODD_INTEGERS = (0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@contextmanager
def expected_errors() -> Iterator[None]:
    """Swallows a CascadeError, after checking that it is one line."""
    try:
        yield
    except CascadeError as error:
        if "\n" in str(error) or not 10 < len(str(error)) < 1000:
            raise AssertionError(f"not one short line: {error!r}") from error


def mutated(content: bytes, rng: random.Random) -> bytes:
    """`content` with one to four random changes: bits, odd integers, pieces dropped, doubled, moved or cut."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            _change(data, rng)
    return bytes(data)


def _change(data: bytearray, rng: random.Random) -> None:
    # Headers come first: half of all changes fall into the first kilobyte.
    at = rng.randrange(min(len(data), 1024) if rng.random() < 0.5 else len(data))
    length = min(rng.choice((1, 2, 4, 8, 16, 64, 512)), len(data) - at)
    kind = rng.randrange(8)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.randrange(256)
    elif kind in (2, 3):
        size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
        value = rng.choice(_ODD_INTEGERS) % (1 << (8 * size))
        data[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
    elif kind == 4:
        del data[at : at + length]
    elif kind == 5:
        data[at:at] = data[at : at + length]
    elif kind == 6:
        data[at : at + length] = rng.randbytes(length)
    else:
        del data[at:]


def main(check: Check, seeds: Sequence[bytes], mutate: Mutate = mutated) -> None:
    """The command line of a target: run until the time is over, or one saved file. Exits with 1 on any finding."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path, help="try this saved input instead of making new ones")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cascade-fuzz-") as name:
        if options.file:
            check(options.file.read_bytes(), Path(name))
            print("no finding")
            return
        # What is no finding must work: a target whose seeds are refused tests nothing.
        for seed in seeds:
            check(seed, Path(name))
        tried, found = _search(check, seeds, mutate, options, Path(name))
    print(f"{Path(sys.argv[0]).stem}: {tried} inputs in {options.seconds:g} s, {len(found)} findings")
    raise SystemExit(1 if found else 0)


@dataclass(frozen=True)
class Trial:
    """A target with the random numbers of one batch."""

    check: Check
    seeds: Sequence[bytes]
    mutate: Mutate
    rng: random.Random


def _search(
    check: Check, seeds: Sequence[bytes], mutate: Mutate, options: argparse.Namespace, scratch: Path
) -> tuple[int, set[str]]:
    """Children one after the other, each with its own random numbers; how many inputs, and the kinds of findings."""
    end, tried, found = time.monotonic() + options.seconds, 0, set[str]()
    current, log = scratch / "current", scratch / "log"
    for batch in range(sys.maxsize):
        if time.monotonic() >= end:
            break
        rng = random.Random(f"{options.seed}/{batch}")
        log.write_text("")
        pid = os.fork()
        if not pid:
            _child(Trial(check, seeds, mutate, rng), end, set(found), current, log)
        _, status = os.waitpid(pid, 0)
        lines = log.read_text().splitlines()
        tried += len(lines)
        found.update(line for line in lines if line)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            kind = f"longer than {SECONDS} s" if number == signal.SIGALRM else f"death by signal {number}"
            if kind not in found:
                _keep(kind, current.read_bytes(), "")
            found.add(kind)
    return tried, found


def _child(trial: Trial, end: float, known: set[str], current: Path, log: Path) -> None:
    """Tries a batch of inputs, one line of `log` each: empty, or the kind of the finding. Never returns."""
    limit = _peak_mb() + MEMORY_MB
    # A warning would stand on the user's terminal beside the one line.
    warnings.simplefilter("error")
    with log.open("a", buffering=1) as lines:
        for _ in range(_BATCH):
            if time.monotonic() >= end:
                break
            content = trial.mutate(trial.rng.choice(trial.seeds), trial.rng)
            current.write_bytes(content)
            # Not caught: SIGALRM ends this process, even inside of C++.
            signal.alarm(SECONDS)
            kind, trace = "", ""
            try:
                with tempfile.TemporaryDirectory(dir=current.parent) as folder:
                    trial.check(content, Path(folder))
                if _peak_mb() > limit:
                    kind = f"more than {MEMORY_MB} MB"
            except BaseException as error:
                kind, trace = _kind(error), traceback.format_exc()
            signal.alarm(0)
            if kind and kind not in known:
                _keep(kind, content, trace)
            known.add(kind)
            lines.write(kind + "\n")
            if kind.startswith("more than"):
                break
    os._exit(0)


def _kind(error: BaseException) -> str:
    """What tells one finding from another: the error and the line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def _keep(kind: str, content: bytes, trace: str) -> None:
    """Saves an input, unless this kind was saved before, and says so."""
    _FINDINGS.mkdir(parents=True, exist_ok=True)
    words = "".join(c if c.isalnum() else "-" for c in kind)
    path = _FINDINGS / f"{Path(sys.argv[0]).stem}-{words}"
    path.write_bytes(content)
    print(f"FINDING {kind}: {path}\n{trace}", flush=True)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
