"""How long a training patch takes to read: from memory and from the disk, from plain arrays and from bricks.

    python -m benchmarks.patches DATA [--patches 60] [--side 96]

DATA is a prepared dataset (`cascade prepare`). Stage 2's images are read as training does, memory-mapped and copied,
at random places; before a "cold" one the kernel is told to forget the file (posix_fadvise), as when a dataset is larger
than the memory. "bricks" are copies of the same arrays in a temporary folder, cut into cubes of 32^3 that lie one after
the other, of which a patch reads those that it touches. Labels, half as large again, are left out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.process import machine, spread
from preprocess.prepared import load_dataset

BRICK = 32
Read = Callable[[Path, tuple[slice, ...]], NDArray[Any]]


def main() -> None:
    """Print a Markdown table: milliseconds a patch, median, least and most."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument("--side", type=int, default=96)
    options = parser.parse_args()
    plain = [case.folder / "tumor_image.npy" for case in load_dataset(options.data).cases]
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        bricks = [_in_bricks(path, Path(folder) / f"{k}.npy") for k, path in enumerate(plain)]
        places = _places(plain, options.patches, options.side)
        for (k, part), _ in zip(places, range(5), strict=False):
            assert np.array_equal(_plain(plain[k], part), _from_bricks(bricks[k], part))
        print(f"{machine()}; {options.patches} patches of {options.side}^3 from {len(plain)} scans\n")
        print("| | from memory, ms | from the disk, ms | of it read, MB |\n| --- | ---: | ---: | ---: |")
        for name, paths, read in (("plain", plain, _plain), ("bricks", bricks, _from_bricks)):
            warm = [_timed(read, paths[k], part, cold=False) for k, part in places]
            cold = [_timed(read, paths[k], part, cold=True) for k, part in places]
            columns = ([t for t, _ in warm], [t for t, _ in cold], [mb for _, mb in cold])
            print(f"| {name} | {' | '.join(map(spread, columns))} |")


def _places(paths: Sequence[Path], count: int, side: int) -> list[tuple[int, tuple[slice, ...]]]:
    rng = np.random.default_rng(1)
    shapes = [np.load(path, mmap_mode="r").shape for path in paths]
    places = []
    for number in range(count):
        k = number % len(paths)
        first = [int(rng.integers(max(1, n - side + 1))) for n in shapes[k]]
        places.append((k, tuple(slice(a, min(a + side, n)) for a, n in zip(first, shapes[k], strict=True))))
    return places


def _timed(read: Read, path: Path, part: tuple[slice, ...], *, cold: bool) -> tuple[float, float]:
    """Milliseconds, and megabytes that came from the disk."""
    if cold:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        read(path, part)
    before, start = _disk_mb(), time.perf_counter()
    read(path, part)
    return (time.perf_counter() - start) * 1000, _disk_mb() - before


def _disk_mb() -> float:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"]) / 1e6


def _plain(path: Path, part: tuple[slice, ...]) -> NDArray[Any]:
    return np.array(np.load(path, mmap_mode="r")[part])


def _in_bricks(path: Path, to: Path) -> Path:
    array = np.load(path)
    padded = np.pad(array, [(0, -n % BRICK) for n in array.shape])
    counts = [n // BRICK for n in padded.shape]
    cut = padded.reshape([m for n in counts for m in (n, BRICK)]).transpose(0, 2, 4, 1, 3, 5)
    np.save(to, np.ascontiguousarray(cut))
    return to


def _from_bricks(path: Path, part: tuple[slice, ...]) -> NDArray[Any]:
    bricks = np.load(path, mmap_mode="r")
    out = np.empty([p.stop - p.start for p in part], bricks.dtype)
    ranges = [range(p.start // BRICK, -(-p.stop // BRICK)) for p in part]
    for place in itertools.product(*ranges):
        within, to = [], []
        for k, p in zip(place, part, strict=True):
            low, high = max(p.start, k * BRICK), min(p.stop, (k + 1) * BRICK)
            within.append(slice(low - k * BRICK, high - k * BRICK))
            to.append(slice(low - p.start, high - p.start))
        out[tuple(to)] = bricks[place][tuple(within)]
    return out


if __name__ == "__main__":
    main()
