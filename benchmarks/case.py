"""What one scan costs with the installed models: seconds of each step and the peak memory of the whole process.

    python -m benchmarks.case [FILE ...]

Without files: a synthetic abdomen on 512 x 512 x 256, 600 and 1200 voxels. Each scan is run by `cascade run` in a
process of its own, all scans once a round, so that a slow minute of a shared machine hits all alike. Given are the
median and the spread of the rounds; nothing is extrapolated.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.process import asked_for_help, machine, spread, times, watched
from preprocess.geometry import Grid
from preprocess.nifti import write_nifti
from preprocess.nifti_header import NiftiHeader
from preprocess.phantom import make_phantom
from preprocess.resample import slabs

_ROUNDS = 3
_SLICES = (256, 600, 1200)
_STEPS = ("read", "stage1", "stage2", "merge", "write", "total")


def main() -> None:
    """Print a Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = [Path(file) for file in sys.argv[1:]] or [synthetic(folder / f"{n}.nii.gz", n) for n in _SLICES]
        rounds = [[measured(scan, folder / f"out{k}") for k, scan in enumerate(scans)] for _ in range(_ROUNDS)]
    print(f"{machine()}; median of {times(_ROUNDS)}, least and most in brackets\n")
    print("| scan | " + " | ".join(f"{step}, s" for step in _STEPS) + " | process, s | peak, GB |")
    print("| --- |" + " ---: |" * (len(_STEPS) + 2))
    for scan, runs in zip(scans, zip(*rounds, strict=True), strict=True):
        print(f"| {scan.name} | " + " | ".join(spread([run[k] for run in runs]) for k in runs[0]) + " |")


def measured(scan: Path, out: Path) -> dict[str, float]:
    """Seconds by step, of the whole process with its start, and its peak memory in GB."""
    code = "import sys; from cascade.cli import run_command; sys.exit(run_command(sys.argv[1:]))"
    done = watched([sys.executable, "-c", code, "run", str(scan), "-o", str(out), "--overwrite"])
    (report,) = out.glob("*/report.json")
    seconds = json.loads(report.read_text("utf-8"))["seconds"]
    return {**{step: seconds.get(step, 0.0) for step in _STEPS}, "process": done.seconds, "peak": done.peak_gb}


def synthetic(path: Path, slices: int) -> Path:
    """A phantom on 512 x 512 x `slices` voxels of 0.8 mm slices, its last slice repeated, with fresh grain."""
    volume = make_phantom(0, oriented=False).volume
    grid = Grid(volume.grid.shape, volume.grid.spacing_mm)
    _, *plane = (n * s / 512 for n, s in zip(grid.shape, grid.spacing_mm, strict=True))
    fine = grid.respaced((0.8, plane[0], plane[1]))
    body, noise = list(slabs(volume.array, grid, fine)), np.random.default_rng(0)
    # Grain made anew: a smooth picture would compress better than any scan.
    hu = np.empty((slices, 512, 512), np.int16)
    for z in range(slices):
        hu[z] = np.round(body[min(z, len(body) - 1)] + noise.normal(0, 8, (512, 512)))
    write_nifti(path, hu, NiftiHeader.of(Grid((slices, 512, 512), fine.spacing_mm)))
    return path


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
