"""What the installed models make of scans with no liver, or only the top of one: status, mL and warnings.

    python -m benchmarks.no_liver volume-46.nii.gz segmentation-46.nii.gz

The scan must show the body above and below its liver. Nothing is timed here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.process import asked_for_help
from cascade.checkpoint import load_stage_models
from cascade.engine import pick_engine
from cascade.pipeline import Stopwatch, liver_stage, segment, tumor_stage
from preprocess.geometry import Box, Grid
from preprocess.io import read_labels, read_scan
from preprocess.volume import Volume


def made_up() -> dict[str, Volume]:
    """Air, a cylinder of water and one of tissue, and a ball of 35 HU in a shell of bone, with noise."""
    grid = Grid((60, 128, 128), (3.0, 3.0, 3.0))
    z, y, x = np.indices(grid.shape)
    cylinder = (y - 64) ** 2 + (x - 64) ** 2 < 45**2
    radius = np.sqrt((z - 30) ** 2 + (y - 64) ** 2 + (x - 64) ** 2)
    head = np.select([radius < 26, radius < 29, radius < 32], [35, 900, 40], -1000)
    pictures = {"air": np.full(grid.shape, -1000), "head": head}
    pictures |= {f"cylinder of {hu} HU": np.where(cylinder, hu, -1000) for hu in (0, 60)}
    noise = np.random.default_rng(0).normal(0, 8, grid.shape)
    return {name: Volume((hu + noise).astype(np.int16), grid) for name, hu in pictures.items()}


def parts(image: Path, label: Path) -> dict[str, Volume]:
    """The scan above its liver, below it, and from 5 slices below the top of the liver upwards."""
    volume = read_scan(image).volume
    slices = np.flatnonzero(read_labels(label, like=volume.grid).array.any(axis=(1, 2)))
    count, rows, columns = volume.grid.shape
    cuts = {"above": (slices[-1] + 1, count), "dome": (slices[-1] - 4, count), "below": (0, slices[0])}
    return {name: volume.cropped(Box((int(a), 0, 0), (int(b), rows, columns))) for name, (a, b) in cuts.items()}


def main() -> None:
    """Print one line a scan."""
    engine = pick_engine("cpu")
    liver = liver_stage(load_stage_models(None, "liver"), engine)
    tumor = tumor_stage(load_stage_models(None, "tumor"), engine)
    for name, volume in (made_up() | parts(*map(Path, sys.argv[1:3]))).items():
        result = segment(volume, liver, tumor, Stopwatch())
        print(f"{name}: {result.status}, {result.labels.ml(1):.0f} mL {'; '.join(result.warnings)}")


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
