"""Does bfloat16 change the mask? The installed models in bfloat16 and in float32 on labelled scans.

    python -m benchmarks.precision IMAGE LABEL [IMAGE LABEL ...]

Prints the share of voxels that differ and the Dice of both. On a CPU without AVX512-BF16 or AMX bfloat16 is emulated:
weights, and what each layer takes and gives, are rounded to it, and computed with in float32. That is what such a CPU
does as well, but for the order in which it adds up.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.process import asked_for_help, machine
from cascade.case import Runner, load_runner
from cascade.inference import as_infer
from cascade.machine import autocast_dtype
from cascade.pipeline import Stopwatch, segment
from cascade.unet import UNet3d
from evaluate.overlap import dice
from preprocess.io import read_labels, read_scan
from preprocess.volume import Volume


def main() -> None:
    """Print a Markdown table."""
    there = autocast_dtype(torch.device("cpu")) is not None
    print(f"{machine()}{'' if there else ': emulated'}\n")
    in_full = load_runner(None, None, "cpu", liver_only=False)
    with patch("cascade.engine.as_infer", as_infer if there else _emulated):
        in_half = load_runner(None, None, "cpu", liver_only=False)
    print("| scan | voxels that differ | liver Dice, bf16 / fp32 | tumour Dice, bf16 / fp32 |")
    print("| --- | ---: | ---: | ---: |")
    files = [Path(name) for name in sys.argv[1:]]
    for image, label in zip(files[::2], files[1::2], strict=True):
        volume = read_scan(image).volume
        truth = read_labels(label, like=volume.grid).array
        half = _mask(volume, in_half)
        with patch("cascade.inference.autocast_dtype", lambda device: None):
            full = _mask(volume, in_full)
        scores = [[f"{dice(mask >= k, truth >= k):.4f}" for mask in (half, full)] for k in (1, 2)]
        print(f"| {image.name} | {np.mean(half != full):.4%} | " + " | ".join(" / ".join(s) for s in scores) + " |")


def _mask(volume: Volume, runner: Runner) -> NDArray[np.uint8]:
    return segment(volume, runner.liver, runner.tumor, Stopwatch()).labels.array


def _emulated(network: UNet3d, *options: object) -> object:
    return as_infer(rounding(network), *options)  # type: ignore[arg-type]


def rounding(network: UNet3d) -> UNet3d:
    """`network`, its convolutions' weights rounded to bfloat16, as is all that its layers take and give."""
    for layer in network.modules():
        if not any(layer.children()):
            layer.register_forward_pre_hook(lambda _, images: tuple(map(_rounded, images)))
            layer.register_forward_hook(lambda _, images, result: _rounded(result))
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            for weight in layer.parameters():
                weight.data = _rounded(weight.data)
    return network


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().float()


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
