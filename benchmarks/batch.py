"""Batches: cases per minute of `cascade run FOLDER` with one and with two workers, and memory over many cases.

    python -m benchmarks.batch [--cases 8] [--rounds 2] [--many 200] [--tiny]

Throughput: the installed models on `cases` synthetic scans of ordinary size, in turns: one worker that has all cores,
one that is held on a single core, two workers that have one core each. "whole" counts the start of the processes,
"after the start" begins when each worker has done its first case. Per core: divided by the cores that the run may
use.

Memory: `many` small scans (the middle of a phantom, coarse; copies of ten different ones), two workers. After each
case the resident memory of the parent and of its workers is read, and the page cache of the whole machine; shown are
medians over tenths of the run, and a straight line through the second half of it, beside the size of the files that
were read and written. Nothing is extrapolated. Linux only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.process import machine, memory_mb, page_cache_mb, spread, times
from preprocess.geometry import Box
from preprocess.io import write_image
from preprocess.phantom import make_phantom

#: Label of a run, its --jobs, and how many cores it may use (None: all).
_WAYS: tuple[tuple[str, int, int | None], ...] = (
    ("1 worker", 1, None),
    ("1 worker, 1 core", 1, 1),
    ("2 workers", 2, 2),
)


@dataclass(frozen=True)
class Run:
    """Seconds from the start to the end of each case, to the end of all, and the memory in MB after each case.

    A row of `memory` is the parent's, the sum of the workers', the largest peak of a worker, and the page cache.
    """

    ends: list[float]
    whole: float
    memory: list[tuple[float, float, float, float]]


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=8, help="of a throughput run; 0: none")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--many", type=int, default=200, help="cases of the memory run; 0: none")
    parser.add_argument("--tiny", action="store_true", help="small scans for the throughput too, to try the script out")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        if options.cases:
            scans = scans_in(Path(name) / "ordinary", options.cases, small=options.tiny)
            print(
                f"\n{options.cases} scans, {times(options.rounds)}\n\n{throughput(scans, options.rounds)}", flush=True
            )
        if options.many:
            scans = scans_in(Path(name) / "small", options.many, small=True)
            run = run_folder(scans, Path(name) / "out", 2, None)
            files = [path.stat().st_size for part in (scans, Path(name) / "out") for path in part.rglob("*.*")]
            print(f"\n{options.many} small scans, two workers, {run.whole:.0f} s\n\n{memory_table(run)}")
            print(f"\nthe files that were read and written have {sum(files) / 1e6 / options.many:.3f} MB a case")


def scans_in(folder: Path, count: int, *, small: bool) -> Path:
    """A folder of `count` scans, ten different ones at most: the others are copies."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"case-{number:03d}.nii.gz"
        if number >= 10:
            shutil.copyfile(folder / f"case-{number % 10:03d}.nii.gz", path)
            continue
        volume = make_phantom(number, oriented=False).volume
        if small:
            z = volume.grid.shape[0]
            # Of different heights, so that no two cases in a row ask for the same memory.
            box = Box((z // 2 - 8 - number, 0, 0), (z // 2 + 8, *volume.grid.shape[1:]))
            volume = volume.cropped(box)
        write_image(path, volume)
    return folder


def run_folder(scans: Path, out: Path, jobs: int, cores: int | None) -> Run:
    """`cascade run` on a folder. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", "cascade", "run", str(scans), "-o", str(out), "--overwrite", "--jobs", str(jobs)]
    if cores is not None:
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        held = f"import os, sys; os.sched_setaffinity(0, {allowed}); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", held, *command]
    start = time.perf_counter()
    ends, memory = [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("case-"):
                continue
            ends.append(time.perf_counter() - start)
            memory.append(_memory(process.pid))
    if process.returncode or not ends:
        raise RuntimeError(f"cascade run: exit {process.returncode}; its message stands above")
    return Run(ends, time.perf_counter() - start, memory)


def _memory(parent: int) -> tuple[float, float, float, float]:
    children = [memory_mb(pid) for pid in _children(parent)]
    workers = [each for each in children if each.get("VmRSS", 0) > 100]  # not multiprocessing's own small helpers
    now, peak = sum(each["VmRSS"] for each in workers), max((each["VmHWM"] for each in workers), default=0.0)
    return memory_mb(parent).get("VmRSS", 0.0), now, peak, page_cache_mb()


def _children(parent: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def throughput(scans: Path, rounds: int) -> str:
    """Cases per minute of each way, whole and after the start, and per core as a share of one worker on one core."""
    whole: dict[str, list[float]] = {way: [] for way, _, _ in _WAYS}
    steady: dict[str, list[float]] = {way: [] for way, _, _ in _WAYS}
    for _ in range(rounds):
        for way, jobs, cores in _WAYS:
            with tempfile.TemporaryDirectory() as out:
                run = run_folder(scans, Path(out) / "out", jobs, cores)
            count = len(run.ends)
            whole[way].append(60 * count / run.whole)
            steady[way].append(60 * (count - jobs) / (run.ends[-1] - run.ends[jobs - 1]) if count > jobs else 0.0)
    lines = ["| | cores | cases/min, whole | after the start | per core | of one worker on one core |"]
    lines.append("| --- |" + " ---: |" * 5)
    for way, _, limit in _WAYS:
        cores = min(limit or len(os.sched_getaffinity(0)), len(os.sched_getaffinity(0)))
        share = [a / cores / b if b else 0.0 for a, b in zip(steady[way], steady["1 worker, 1 core"], strict=True)]
        each = median(steady[way]) / cores
        cells = f"{spread(whole[way])} | {spread(steady[way])} | {each:.2f} | {spread(share)}"
        lines.append(f"| {way} | {cores} | {cells} |")
    return "\n".join(lines)


def memory_table(run: Run) -> str:
    """Medians of the memory in each tenth of the run, and what a case adds in its second half."""
    rows = np.array(run.memory)
    lines = [
        "| cases done | parent, MB | workers together, MB | largest worker's peak, MB | page cache, MB |",
        "| ---: |" + " ---: |" * 4,
    ]
    for part in np.array_split(np.arange(len(rows)), min(10, len(rows))):
        cells = " | ".join(f"{value:.0f}" for value in np.median(rows[part], axis=0))
        lines.append(f"| {part[0] + 1}-{part[-1] + 1} | {cells} |")
    return "\n".join([*lines, "", f"in the second half a case adds {_slopes(run.memory[len(rows) // 2 :])}"])


def _slopes(rows: Sequence[Sequence[float]]) -> str:
    names = ("parent", "workers", "peak", "page cache")
    if len(rows) < 3:
        return "unknown: too few cases"
    slopes = np.polyfit(np.arange(len(rows)), np.asarray(rows), 1)[0].round(3) + 0.0
    return ", ".join(f"{name} {slope:+.3f} MB" for name, slope in zip(names, slopes, strict=True))


if __name__ == "__main__":
    main()
