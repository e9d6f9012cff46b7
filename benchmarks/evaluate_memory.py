"""Time and memory of one whole case score, 512 x 512 x 600 voxels of 0.78 x 0.78 x 0.5 mm.

python -m benchmarks.evaluate_memory
"""

from __future__ import annotations

import resource
import sys
import time

import evaluate
from benchmarks.masks import liver_pair
from benchmarks.process import asked_for_help

SHAPE, SPACING = (600, 512, 512), (0.5, 0.78, 0.78)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    """Print what two label arrays take, what scoring them takes beside, and how long it is."""
    prediction, truth = liver_pair(SHAPE, SPACING)
    before, start = _peak_mb(), time.process_time()
    case = evaluate.score(prediction, truth, SPACING)
    seconds, after = time.process_time() - start, _peak_mb()
    assert case.tumor is not None
    print(f"liver Dice {case.liver_dice:.3f}, ASSD {case.liver.assd:.3f} mm; tumour Dice {case.tumor_dice:.3f}")
    print("| | |\n| --- | ---: |")
    print(f"| two label arrays | {(prediction.nbytes + truth.nbytes) / 1e6:.0f} MB |")
    print(
        f"| peak before scoring | {before:.0f} MB |\n| peak after | {after:.0f} MB |\n| scoring | {seconds:.1f} CPU s |"
    )


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
