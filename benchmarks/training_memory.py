"""Does `cascade.memory` foresee what a training takes? Peak memory of real steps beside the estimate.

    python -m benchmarks.training_memory

Each row is a process of its own: three steps of optimiser, loss and running mean on random numbers, as `cascade train`
makes them. Measured is the growth of the peak of resident memory (VmHWM) from before the network is made.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.process import asked_for_help
from cascade.machine import autocast_dtype, tune_allocator
from cascade.memory import training_bytes
from cascade.ranks import Ranks
from cascade.sampler import Batch
from cascade.settings import load_settings
from cascade.stages import STAGES
from cascade.stepping import take_step
from cascade.training_state import Job, fresh_state
from preprocess.preparation import Preparation

#: Stage and what is set over its recipe.
ROWS = (
    ("liver",),
    ("liver", "sampling.patch=[64, 64, 64]"),
    ("tumor", "sampling.patch=[32, 32, 32]"),
    ("tumor", "sampling.patch=[64, 64, 64]"),
    ("tumor", "sampling.patch=[48, 48, 48]", "network.stem=1"),
    ("tumor", "sampling.patch=[64, 64, 64]", "network.encoder='residual'", "network.blocks=2"),
    ("tumor", "sampling.patch=[64, 64, 64]", "network.features=[64, 128, 256, 320]"),
    ("tumor",),
)


def main() -> None:
    """Print a Markdown table, or with arguments the bytes of one row."""
    if len(sys.argv) > 1:
        print(*measured(sys.argv[1], sys.argv[2:]))
        return
    print("| settings | measured MB | estimate MB | estimate / measured |")
    print("| --- | ---: | ---: | ---: |")
    for row in ROWS:
        command = [sys.executable, "-m", "benchmarks.training_memory", *row]
        real, guess = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        print(f"| {' '.join(row)} | {real / 1e6:.0f} | {guess / 1e6:.0f} | {guess / real:.2f} |", flush=True)


def measured(stage: str, assignments: list[str]) -> tuple[int, int]:
    """Bytes that three steps took, and the estimate."""
    tune_allocator()
    settings, device = load_settings(stage, assignments=assignments), torch.device("cpu")
    regions, before = len(STAGES[stage].regions), _status("VmRSS")
    preparation = Preparation((1.0, 1.0, 1.0), settings.preparation.window_hu)
    job = Job(STAGES[stage], settings, preparation, [], [], Path(tempfile.gettempdir()), Ranks(device))
    state = fresh_state(job)
    shape = (settings.sampling.batch, regions, *settings.sampling.patch)
    for _ in range(3):
        batch = Batch(torch.randn(shape)[:, :1], (torch.rand(shape) > 0.5).float(), torch.ones(shape))
        take_step(state, batch, job, 0.0)
    half = autocast_dtype(device) is not None
    return _status("VmHWM") - before, training_bytes(settings, regions, half=half)


def _status(field: str) -> int:
    lines = Path(f"/proc/{os.getpid()}/status").read_text("utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
