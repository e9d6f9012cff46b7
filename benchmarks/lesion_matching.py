"""Time of lesion matching against the number of voxels and of lesions: linear in voxels.

python -m benchmarks.lesion_matching [rounds]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.masks import liver_pair
from benchmarks.process import asked_for_help
from benchmarks.timing import interleaved
from evaluate.lesions import LesionMatch, match_lesions
from preprocess.geometry import Grid, Index, Triple
from preprocess.volume import TUMOR

#: Slices of 512 x 512 voxels; the tumours are the same in number, spread over more slices of less thickness.
SLICES = (64, 128, 256, 512)
TUMORS = (5, 20, 80, 320)

#: Radii in mm: large ones that fill boxes, small ones that stay apart.
LARGE, SMALL = (4.0, 15.0), (2.0, 3.0)


def _matching(
    shape: Index, spacing_mm: Triple, tumors: int, radii_mm: tuple[float, float]
) -> tuple[Callable[[], LesionMatch], int, int]:
    masks = [labels == TUMOR for labels in liver_pair(shape, spacing_mm, tumors, radii_mm)]
    grid = Grid(shape, spacing_mm)
    match = match_lesions(masks[0], masks[1], grid, "lits")
    return (lambda: match_lesions(masks[0], masks[1], grid, "lits")), int(np.prod(shape)), len(match.truth)


def main(rounds: int = 3) -> None:
    """Print both series."""
    for name, settings in (
        ("more voxels", [((n, 512, 512), (256 / n, 0.78, 0.78), 20, LARGE) for n in SLICES]),
        ("more tumours", [((128, 256, 256), (2.0, 1.56, 1.56), count, SMALL) for count in TUMORS]),
    ):
        prepared = [_matching(*setting) for setting in settings]
        seconds = interleaved({str(i): work for i, (work, _, _) in enumerate(prepared)}, rounds)
        print(f"{name}\n\n| voxels | true lesions | CPU s | ns a voxel |\n| ---: | ---: | ---: | ---: |")
        for each, (_, voxels, lesions) in zip(seconds.values(), prepared, strict=True):
            took = median(each)
            print(f"| {voxels / 1e6:.1f} M | {lesions} | {took:.3f} | {took / voxels * 1e9:.1f} |")
        print()


if __name__ == "__main__":
    asked_for_help(__doc__)
    main(*map(int, sys.argv[1:]))
