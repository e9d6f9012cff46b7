"""Does bfloat16 change the mask? The installed models in bfloat16 and in float32 on labelled scans.

    python -m benchmarks.precision IMAGE LABEL [IMAGE LABEL ...]

Prints the share of voxels that differ and the Dice of both. Needs a CPU with AVX512-BF16 or AMX.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from cascade.case import load_runner
from cascade.machine import autocast_dtype
from cascade.pipeline import Stopwatch, segment
from evaluate.overlap import dice
from preprocess.io import read_labels, read_scan


def main() -> None:
    """Print a Markdown table."""
    if autocast_dtype(torch.device("cpu")) is None:
        sys.exit("this CPU does not compute in bfloat16; nothing to compare")
    runner = load_runner(None, None, "cpu", liver_only=False)
    print("| scan | voxels that differ | liver Dice, bf16 / fp32 | tumour Dice, bf16 / fp32 |")
    print("| --- | ---: | ---: | ---: |")
    files = [Path(name) for name in sys.argv[1:]]
    for image, label in zip(files[::2], files[1::2], strict=True):
        volume = read_scan(image).volume
        truth = read_labels(label, like=volume.grid).array
        half = segment(volume, runner.liver, runner.tumor, Stopwatch()).labels.array
        with patch("cascade.inference.autocast_dtype", lambda device: None):
            full = segment(volume, runner.liver, runner.tumor, Stopwatch()).labels.array
        scores = [[f"{dice(mask >= k, truth >= k):.4f}" for mask in (half, full)] for k in (1, 2)]
        print(f"| {image.name} | {np.mean(half != full):.4%} | " + " | ".join(" / ".join(s) for s in scores) + " |")


if __name__ == "__main__":
    main()
